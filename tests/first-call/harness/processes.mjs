// Child processes of a test: started with their output kept, waited for by what they print, ended by pid. Nothing is
// left behind: whatever still runs when the test process exits gets SIGKILL.
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';
import { appendFileSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const REPOSITORY = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
export const OUT = process.env.TEST_OUT ?? path.join(REPOSITORY, 'tests/out/first-call');
const alive = new Set();

process.on('exit', () => {
  for (const child of alive) child.signal('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

export class Child {
  constructor(name, command, args, { env = {}, cwd = REPOSITORY, stdin = 'ignore', binary = false } = {}) {
    this.name = name;
    this.log = '';
    this.exited = false;
    // A process group of its own: a wrapper such as xvfb-run takes its children with it.
    const options = { cwd, env: { ...process.env, ...env }, stdio: [stdin, 'pipe', 'pipe'], detached: true };
    this.process = spawn(command, args, options);
    this.pid = this.process.pid;
    alive.add(this);
    mkdirSync(OUT, { recursive: true });
    const file = path.join(OUT, `${name}.log`);
    const keep = (chunk) => {
      this.log = (this.log + chunk).slice(-LOG_CHARS_MAX);
      appendFileSync(file, chunk);
    };
    if (!binary) this.process.stdout.on('data', keep);
    this.process.stderr.on('data', keep);
    this.done = new Promise((resolve) => {
      this.process.on('error', (error) => {
        this.exited = true;
        keep(`${error}\n`);
        alive.delete(this);
        resolve({ code: -1 });
      });
      this.process.on('exit', (code, signal) => {
        this.exited = true;
        this.signal('SIGKILL');
        alive.delete(this);
        resolve({ code, signal });
      });
    });
  }

  signal(name) {
    try {
      process.kill(-this.pid, name);
    } catch {
      // Already gone.
    }
  }

  async stop(grace_ms = 3000) {
    if (this.exited) return;
    this.signal('SIGTERM');
    const timer = setTimeout(() => this.signal('SIGKILL'), grace_ms);
    await this.done;
    clearTimeout(timer);
  }

  async kill9() {
    this.signal('SIGKILL');
    await this.done;
  }

  /// The match of `pattern` in what the process printed.
  async says(pattern, timeout_ms = PATIENCE_MS) {
    return eventually(`${this.name} prints ${pattern}`, () => {
      const match = this.log.match(pattern);
      if (!match && this.exited) throw new Fatal(`${this.name} ended: ${this.log.slice(-2000)}`);
      return match;
    }, timeout_ms);
  }
}

/// Ends an `eventually` at once: waiting longer cannot help.
export class Fatal extends Error {}

/// Far longer than anything takes: on a busy machine a browser may stand still for seconds.
export const PATIENCE_MS = 60_000;

/// Polls until `probe` gives something truthy; the error carries the last value or failure seen.
export async function eventually(what, probe, timeout_ms = PATIENCE_MS, every_ms = 50) {
  const deadline = performance.now() + timeout_ms;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      if (error instanceof Fatal) throw error;
      last = error;
    }
    if (performance.now() >= deadline) {
      const seen = last instanceof Error ? last.message : JSON.stringify(last);
      throw new Error(`not within ${timeout_ms} ms: ${what} (last: ${seen})`);
    }
    await pause(every_ms);
  }
}

/// A folder of the test's own. What a killed program still writes there is not worth a failure.
export function remove(folder) {
  try {
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  } catch (error) {
    console.error(`left ${folder}: ${error.message}`);
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/// Ports that were free a moment ago. Not among those that the kernel gives to whoever asks for any (32768 and on), or a
/// connection of some other program would have taken one before who asked listens there.
export async function freePorts(count) {
  const ports = new Set();
  for (let tries = 0; ports.size < count; tries++) {
    const port = randomInt(20_000, 32_000);
    if (await isFree(port)) ports.add(port);
    else if (tries > 1000) throw new Error('no free ports');
  }
  return [...ports];
}

function isFree(port) {
  return new Promise((resolve) => {
    const server = createServer().once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

export function residentKiB(pid) {
  return Number(readFileSync(`/proc/${pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1]);
}

export function running(pid) {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

export function binary(name) {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(REPOSITORY, 'target');
  return path.join(process.env.CARILLON_BIN_DIR ?? path.join(target, 'release'), name);
}

/// A chatty process must not fill the memory of the test; the file in tests/out keeps everything.
const LOG_CHARS_MAX = 1 << 20;
