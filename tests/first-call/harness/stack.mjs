// The product as a user starts it: `carillon dev --ready-file`, on free ports, with a token key that the test knows, so
// that it can mint tokens for any room, good ones and bad ones. Each test takes a room of its own.
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Child, Fatal, PATIENCE_MS, binary, eventually, freePorts, remove } from './processes.mjs';
import { claims, mint } from './tokens.mjs';

const KEY = { id: 'e2e', secret: 'only-for-the-tests-of-this-machine-0123456789' };

export class Stack {
  static async start({ desktop = false, room = 'demo', args = [] } = {}) {
    const stack = new Stack();
    stack.folder = mkdtempSync(path.join(tmpdir(), 'carillon-e2e-'));
    stack.readyFile = path.join(stack.folder, 'ready.json');
    const [http, https, media] = await freePorts(3);
    stack.child = new Child('carillon', process.env.CARILLON ?? binary('carillon'), [
      'dev', '--ready-file', stack.readyFile, '--state-dir', path.join(stack.folder, 'state'), '--room', room,
      '--http-port', String(http), '--https-port', String(https),
      '--media-port', String(media), '--verbose', ...(desktop ? [] : ['--no-desktop']), ...args,
    ], { env: { CARILLON_TOKEN_KEY: `${KEY.id}:${KEY.secret}` } });
    await eventually('carillon dev is ready', () => {
      if (stack.child.exited) throw new Fatal(`carillon dev ended: ${stack.child.log.slice(-3000)}`);
      return stack.ready;
    }, 2 * PATIENCE_MS);
    stack.room = room;
    stack.media = media;
    stack.origin = new URL(stack.ready.page).origin;
    stack.key = KEY;
    return stack;
  }

  /// The ready file as it is now: process ids change when something was started again.
  get ready() {
    try {
      return JSON.parse(readFileSync(this.readyFile, 'utf8'));
    } catch {
      return null;
    }
  }

  ws(room) {
    return `${this.origin.replace(/^http/, 'ws')}/v1/rooms/${room}`;
  }

  token(room, identity, role = 'speaker') {
    return mint(KEY, claims(room, identity, role));
  }

  /// The page of a room, with a token for `identity` inside.
  link(room, identity, role = 'speaker') {
    return `${this.origin}/r/${room}#token=${this.token(room, identity, role)}`;
  }

  /// All samples of the media node's metrics: `name{labels}` to number.
  async metrics(process = 'sfu') {
    const text = await (await fetch(new URL('/metrics', this.ready.admin[process]))).text();
    const lines = text.split('\n').filter((line) => line && !line.startsWith('#'));
    return Object.fromEntries(lines.map((line) => [line.replace(/ \S+$/, ''), Number(line.match(/ (\S+)$/)[1])]));
  }

  async stop() {
    await this.child.stop(10_000);
    remove(this.folder);
  }
}
