// Low delay where it cannot go on: its decoder errs, the audio thread is late, its script is not there. Each time the sound must
// go on by the browser's own way, at the level it had; what decides is what reaches the sound device. What is wrong with the page
// comes from a front of the server.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Browser } from './harness/browser.mjs';
import { Front } from './harness/front.mjs';
import { PATIENCE_MS, eventually } from './harness/processes.mjs';
import { Pulse } from './harness/pulse.mjs';
import { analyse, writeTone } from './harness/spectrum.mjs';
import { Stack } from './harness/stack.mjs';

const ROOM = 'fragile';
const TONE_HZ = 880;
const AMPLITUDE_DB = -12.04; // A quarter of full scale.
const BUSY = '/assets/busy-for-a-test.js';
const NOTHING = '/assets/nothing-is-here.js';
/// Works for nothing for 120 ms of each 400, until it is told that it is enough.
const BUSY_SCRIPT = `registerProcessor('busy', class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.port.onmessage = () => (this.enough = true);
  }
  process() {
    if (this.enough) return false;
    const now = Date.now();
    if (now - (this.at ?? 0) >= 400) for (this.at = now; Date.now() < now + 120; );
    return true;
  }
});`;
/// From when the test says so, real decoders get what none can decode: of the 63 frames that are promised no byte is there (RFC
/// 6716 section 3.2.5).
const ERRING_SCRIPT = `{
  const test = new BroadcastChannel('decoder-for-a-test');
  let erring = false;
  test.onmessage = () => (erring = true);
  const Decoder = self.AudioDecoder;
  self.AudioDecoder = class extends Decoder {
    constructor({ output, error }) {
      super({ output, error: (problem) => (test.postMessage(String(problem)), error(problem)) });
    }
    decode(chunk) {
      if (!erring) return super.decode(chunk);
      super.decode(new EncodedAudioChunk({ type: 'key', timestamp: chunk.timestamp, data: Uint8Array.of(0xff, 0x3f) }));
    }
  };
}
`;

describe('low delay that cannot go on', () => {
  let ears;
  let stack;
  let front;
  let player;
  let folder;
  const chromium = { name: 'Chromium', make: Browser.chromium, sink: 'ear_chromium' };
  const firefox = { name: 'Firefox', make: Browser.firefox, sink: 'ear_firefox' };

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'carillon-fragile-'));
    ears = await Pulse.ears(chromium.sink, firefox.sink);
    stack = await Stack.start({ desktop: true, room: ROOM });
    const before = [[/^\/assets\/worker-[^/]*\.js$/, ERRING_SCRIPT]];
    front = await Front.start(stack.origin, { before, scripts: { [BUSY]: BUSY_SCRIPT, [NOTHING]: null } });
    const file = writeTone(path.join(folder, 'tone.wav'), { left: TONE_HZ, seconds: 600 });
    player = Pulse.attach(stack.ready.desktop).play(file, stack.ready.desktop.sink);
    for (const one of [chromium, firefox]) {
      one.browser = await one.make({ ear: { pulse: ears, sink: one.sink } });
      one.recorder = ears.record(`${one.sink}.monitor`);
      one.tab = await one.browser.open(front.link(`${stack.link(ROOM, one.name, 'listener')}&join=listen`));
      await one.tab.connected();
    }
  });

  after(async () => {
    for (const one of [chromium, firefox]) {
      await one.browser?.close();
      await one.recorder?.stop();
    }
    await player?.stop();
    front?.stop();
    await stack?.stop();
    await ears?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const tracks = (one) => one.tab.look(() => window.__carillon.lowDelay.tracks);
  /// Of the slot that the desktop is in.
  const track = async (one) => (await tracks(one)).sort((a, b) => b.received - a.received)[0];

  const inCall = (one) => eventually(`${one.name} is in the call`, () => one.tab.look(() => (
    window.__carillon.state === 'in_call' && window.__carillon.client.peerConnection?.connectionState === 'connected'
  )), 2 * PATIENCE_MS);

  const on = async (one) => {
    await inCall(one);
    // The page remembers it.
    if (!(await one.tab.look(() => window.__carillon.lowDelay.on))) await one.tab.page.click('#low-delay');
  };

  /// It decodes and plays, heard or (a busy machine, above all in Firefox) not yet.
  const works = (one) => eventually(`${one.name} decodes by itself`, async () => {
    const found = await track(one);
    if (found?.received > 48_000 && (one === firefox || found.path === 'own' || found.why === 'output')) return true;
    throw new Error(JSON.stringify({ found, console: one.tab.console.slice(-5) }));
  }, 2 * PATIENCE_MS);

  const fallsBack = (one, whys) => eventually(`${one.name} goes back to the browser's way`, async () => {
    const found = await track(one);
    if (found.path === 'browser' && whys.includes(found.why)) return true;
    throw new Error(JSON.stringify(found));
  }, 2 * PATIENCE_MS);

  /// Nothing but the tone, at its level.
  const sounds = (one) => eventually(`${one.name} plays the tone`, async () => {
    const { levels: { [TONE_HZ]: level }, peak_hz, rms_db } = analyse(await one.recorder.next(0.8), 48000, [TONE_HZ]);
    if (Math.abs(peak_hz - TONE_HZ) < 3 && Math.abs(level - AMPLITUDE_DB) < 1 && Math.abs(rms_db + 3.01 - level) < 0.5) return true;
    throw new Error(JSON.stringify({ level, peak_hz, rms_db }));
  }, 2 * PATIENCE_MS);

  for (const one of [chromium, firefox]) {
    it(`${one.name} goes on with the sound when the decoder errs`, async () => {
      await on(one);
      await works(one);
      await one.tab.look(() => {
        window.errors = [];
        const test = new BroadcastChannel('decoder-for-a-test');
        test.onmessage = ({ data }) => window.errors.push(data);
        test.postMessage('err from now on');
      });
      await fallsBack(one, ['broken']);
      await sounds(one);
      const errors = await one.tab.look(() => window.errors);
      assert.ok(errors.length > 0, 'a real decoder has refused a frame');
      assert.equal((await track(one)).path, 'browser');
    });

    it(`${one.name} goes on with the sound when the audio thread is late, and counts what was missing`, async () => {
      await one.tab.page.evaluateOnNewDocument(() => {
        window.contexts = [];
        window.AudioContext = class extends AudioContext {
          constructor(...options) {
            super(...options);
            window.contexts.push(this);
          }
        };
      });
      await one.tab.page.reload();
      await on(one);
      await works(one);
      const before = (await track(one)).underrun;
      await one.tab.page.evaluate(async (script) => {
        const context = window.contexts.at(-1);
        await context.audioWorklet.addModule(script);
        window.busy = new AudioWorkletNode(context, 'busy');
        window.busy.connect(context.destination);
      }, BUSY);
      // What comes while the output stands still is held, and when it catches up it asks for more than has come: either may be
      // seen first. Firefox may not have taken its own way yet.
      await fallsBack(one, ['output', 'delay', 'loss', ...(one === firefox ? ['waiting'] : [])]);
      await eventually('what was missing is counted', async () => (await track(one)).underrun > before);
      const rest = () => one.tab.look(() => void window.busy.port.postMessage('enough'));
      // In Firefox one thread makes the sound of both ways.
      if (one === firefox) await rest();
      await sounds(one);
      if (one !== firefox) await rest();
    });

    it(`${one.name} goes on with the sound when the worker's script is not there`, async () => {
      await one.tab.page.evaluateOnNewDocument(() => {
        window.Worker = class extends Worker {
          constructor(_script, options) {
            super('/assets/nothing-is-here.js', options);
          }
        };
      });
      await one.tab.page.reload();
      await inCall(one);
      await eventually('low delay is given up', () => one.tab.look(() => !window.__carillon.lowDelay.on));
      await inCall(one);
      await sounds(one);
    });
  }
});
