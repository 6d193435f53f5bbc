// A headless PulseAudio daemon of our own, with null sinks, and the ends that tests hold in it: parec, paplay, pactl.
// The same modules in the same order as the product's desktop, but nothing of the product runs here.
import { randomBytes } from 'node:crypto';
import { execFile } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { Child, eventually, remove } from './processes.mjs';

const run = promisify(execFile);

export class Pulse {
  /// `desktop`: sink `desktop` (stereo), sink `mic_in` and source `mic` (mono), as a Carillon desktop has them.
  static desktop() {
    return Pulse.start('desktop', [
      'load-module module-null-sink sink_name=desktop format=s16le rate=48000 channels=2',
      'load-module module-null-sink sink_name=mic_in format=s16le rate=48000 channels=1',
      'load-module module-remap-source source_name=mic master=mic_in.monitor',
      'set-default-sink desktop',
      'set-default-source mic',
    ]);
  }

  /// One stereo null sink for each browser: what it really plays.
  static ears(...sinks) {
    return Pulse.start('ears', [
      ...sinks.map((sink) => `load-module module-null-sink sink_name=${sink} format=s16le rate=48000 channels=2`),
      `set-default-sink ${sinks[0]}`,
    ]);
  }

  static async start(name, modules) {
    const pulse = new Pulse();
    pulse.folder = mkdtempSync(path.join(tmpdir(), `carillon-${name}-`));
    pulse.cookie = path.join(pulse.folder, 'cookie');
    pulse.server = `unix:${pulse.folder}/native.sock`;
    const script = path.join(pulse.folder, 'daemon.pa');
    const config = path.join(pulse.folder, 'daemon.conf');
    writeFileSync(pulse.cookie, randomBytes(256), { mode: 0o600 });
    writeFileSync(config, 'default-sample-rate = 48000\nresample-method = speex-float-5\n');
    const socket = `socket=${pulse.folder}/native.sock auth-cookie=${pulse.cookie}`;
    writeFileSync(script, [...modules, `load-module module-native-protocol-unix ${socket}`, ''].join('\n'));
    pulse.env = { PULSE_SERVER: pulse.server, PULSE_COOKIE: pulse.cookie };
    pulse.daemon = new Child(`pulse-${name}`, 'pulseaudio', [
      '-n', '-F', script, '--daemonize=no', '--exit-idle-time=-1', '--disallow-exit', '--use-pid-file=no',
    ], {
      env: { HOME: pulse.folder, XDG_RUNTIME_DIR: pulse.folder, PULSE_RUNTIME_PATH: pulse.folder, PULSE_CONFIG: config },
    });
    await eventually(`PulseAudio ${name} answers`, () => pulse.list('sinks'));
    return pulse;
  }

  /// A daemon that somebody else runs: `desktop` of the ready file.
  static attach({ pulse_server: server, cookie }) {
    return Object.assign(new Pulse(), { server, cookie, env: { PULSE_SERVER: server, PULSE_COOKIE: cookie } });
  }

  async list(what) {
    const { stdout } = await run('pactl', ['--format=json', 'list', what], {
      env: { ...process.env, ...this.env },
      maxBuffer: 1 << 24,
    });
    return JSON.parse(stdout);
  }

  record(source, channels = 2) {
    return new Recorder(this, source, channels);
  }

  /// Plays a file once; `.done` resolves when paplay ends.
  play(file, sink = 'desktop') {
    return new Child('paplay', 'paplay', ['-d', sink, '--latency-msec=20', file], { env: this.env });
  }

  async stop() {
    await this.daemon.stop();
    remove(this.folder);
  }
}

/// A parec that stays open: a null sink without a low-latency reader idles in blocks of two seconds.
export class Recorder {
  constructor(pulse, source, channels) {
    this.channels = channels;
    this.chunks = [];
    this.bytes = 0;
    this.child = new Child('parec', 'parec', [
      '-d', source, '--rate=48000', '--format=s16le', `--channels=${channels}`, '--latency-msec=10', '--raw',
    ], { env: pulse.env, binary: true });
    this.child.process.stdout.on('data', (chunk) => {
      this.chunks.push(chunk);
      this.bytes += chunk.length;
      while (this.bytes - this.chunks[0].length > RECORD_BYTES_MAX) {
        const old = this.chunks.shift();
        this.bytes -= old.length;
        this.dropped = (this.dropped ?? 0) + old.length;
      }
    });
  }

  /// Position in frames: give it to `since`.
  get position() {
    return ((this.dropped ?? 0) + this.bytes) / (2 * this.channels);
  }

  since(position, channel = 0) {
    const all = Buffer.concat(this.chunks);
    const start = Math.max(0, Math.floor(position) - (this.dropped ?? 0) / (2 * this.channels));
    const frames = Math.floor(all.length / (2 * this.channels));
    const out = new Float32Array(Math.max(0, frames - start));
    for (let i = 0; i < out.length; i++) {
      out[i] = all.readInt16LE(((start + i) * this.channels + channel) * 2) / 32768;
    }
    return out;
  }

  /// The newest `seconds` of one channel, waiting until that much sound has come after the call.
  async next(seconds, channel = 0) {
    const from = this.position;
    await eventually('the recorder hears the sink', () => this.position - from >= seconds * 48000);
    return this.since(from, channel);
  }

  stop() {
    return this.child.stop();
  }
}

/// Three minutes of stereo.
const RECORD_BYTES_MAX = 180 * 48000 * 4;
