// Processes that die without a goodbye: a browser, signalling, the bridge. On the product's page, with `carillon dev`
// looking after the servers.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { after, before, describe, it } from 'node:test';
import { Browser } from './harness/browser.mjs';
import { eventually, running } from './harness/processes.mjs';
import { peerId, programs, roster, seenStates, state, watchStates } from './harness/product-page.mjs';
import { Pulse } from './harness/pulse.mjs';
import { assertHardlyLost, HOLE_MS_MAX, stalled } from './harness/running-call.mjs';
import { analyse, longestHole, writeTone } from './harness/spectrum.mjs';
import { Stack } from './harness/stack.mjs';

const ROOM = 'failures';
const ADA_HZ = 620;
const BEN_HZ = 880;
const DESKTOP_HZ = 1320;
const ROSTER_MS_MAX = 5000;
/// How often that is tried: a machine that stalls may be late once.
const KILLS_MAX = 3;
/// Signalling lets go of a peer that does not come back within ten seconds.
const BEYOND_GRACE_S = 12;
/// Of which so much is looked at for a short hole.
const BACK_S = 2;
/// Longer than jitter buffers, and shorter than media that is set up again. Beside what the machine stood still.
const SHORT_HOLE_MS_MAX = 400;

describe('failures', () => {
  let ears;
  let stack;
  let folder;
  let ada;
  let recorder;
  let tab;

  const sees = async (name) => (await roster(tab)).includes(name);

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'carillon-tones-'));
    ears = await Pulse.ears('ear_ada', 'ear_ben');
    stack = await Stack.start({ desktop: true, room: ROOM });
    recorder = ears.record('ear_ada.monitor');
    ada = await Browser.chromium({ hz: ADA_HZ, ear: { pulse: ears, sink: 'ear_ada' } });
    tab = await ada.open(`${stack.link(ROOM, 'ada')}&join=mic`);
    await tab.connected();
  });

  after(async () => {
    await ada?.close();
    await recorder?.stop();
    await stack?.stop();
    await ears?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it('a browser that is killed leaves the roster and the sound of the others within 5 s', async () => {
    const took = [];
    while (took.length < KILLS_MAX && !took.some((ms) => ms <= ROSTER_MS_MAX)) {
      const ben = await Browser.chromium({ hz: BEN_HZ, ear: { pulse: ears, sink: 'ear_ben' } });
      try {
        await ben.open(`${stack.link(ROOM, 'ben')}&join=mic`);
        await tab.hears([BEN_HZ]);
        await eventually('ada’s page names ben', () => sees('ben'));
        const killed = performance.now();
        ben.kill9();
        await eventually('ben is gone from ada’s page', async () => !(await sees('ben')));
        took.push(performance.now() - killed);
        await tab.hears([]);
      } finally {
        await ben.close();
      }
    }
    assert.ok(Math.min(...took) <= ROSTER_MS_MAX, `ms until the roster says so: ${took}`);
  });

  /// Kills signalling and waits until the page is back; the longest hole in the sound, without the machine's longest stall.
  const holeOfAKill = async () => {
    const [from, old] = [recorder.position, stack.ready.processes.signaling];
    const delays = monitorEventLoopDelay({ resolution: 10 });
    delays.enable();
    await watchStates(tab, '#state');
    process.kill(old, 'SIGKILL');
    await eventually('the page says that it reconnects', async () => (await seenStates(tab, '#state')).includes('reconnecting'));
    await eventually('signalling is started again', () => stack.ready.processes.signaling !== old && running(stack.ready.processes.signaling));
    await eventually('the page is back in the call', async () => (await state(tab)) === 'in_call');
    await recorder.next(BACK_S);
    delays.disable();
    return longestHole(recorder.since(from), 48000).hole_ms - Math.round(delays.max / 1e6);
  };

  it('when signalling is killed sound goes on without a gap, and the page resumes as the same peer', async () => {
    const ben = await Browser.chromium({ hz: BEN_HZ, ear: { pulse: ears, sink: 'ear_ben' } });
    try {
      const bens = await ben.open(`${stack.link(ROOM, 'ben')}&join=mic`);
      const [{ mid }] = await tab.hears([BEN_HZ]);
      await bens.hears([ADA_HZ]);
      await recorder.next(1);
      const [from, me] = [recorder.position, await peerId(tab)];
      const [before, late] = [(await tab.inbound())[mid], await stalled(stack)];
      const holes = [];
      while (holes.length < KILLS_MAX && !holes.some((ms) => ms < SHORT_HOLE_MS_MAX)) holes.push(await holeOfAKill());
      assert.ok(Math.min(...holes) < SHORT_HOLE_MS_MAX, `ms without sound at each kill: ${holes}`);
      await recorder.next(BEYOND_GRACE_S - BACK_S);
      const samples = recorder.since(from);
      const { peak_hz, peak_db } = analyse(samples, 48000);
      const { hole_ms } = longestHole(samples, 48000);
      assert.ok(Math.abs(peak_hz - BEN_HZ) <= 4 && peak_db > -25, `ben is not heard: ${peak_hz} Hz, ${peak_db} dB`);
      assert.ok(hole_ms < HOLE_MS_MAX, `a hole of ${hole_ms} ms`);
      assertHardlyLost(before, (await tab.inbound())[mid], (await stalled(stack)) - late);
      assert.equal(await peerId(tab), me, 'the peer id is the same');
      assert.deepEqual(await tab.offers(), [1], 'nothing was offered again');
      assert.ok(await sees('ben'), 'the roster is back');
    } finally {
      await ben.close();
    }
  });

  it('after that a newcomer is let in and heard as ever', async () => {
    const ben = await Browser.chromium({ hz: BEN_HZ, ear: { pulse: ears, sink: 'ear_ben' } });
    try {
      const bens = await ben.open(`${stack.link(ROOM, 'ben')}&join=mic`);
      await tab.hears([BEN_HZ]);
      await bens.hears([ADA_HZ]);
    } finally {
      await ben.close();
    }
    await tab.hears([]);
  });

  it('a bridge that is killed is started again, both are said, and the desktop is heard again', async () => {
    const desktop = Pulse.attach(stack.ready.desktop);
    const file = writeTone(path.join(folder, 'desktop.wav'), { left: DESKTOP_HZ, seconds: 120 });
    const player = desktop.play(file, stack.ready.desktop.sink);
    try {
      await tab.hears([DESKTOP_HZ]);
      const old = stack.ready.processes['audio-bridge'];
      await watchStates(tab, '#programs');
      process.kill(old, 'SIGKILL');
      await eventually('the page says that the desktop is away', async () => (
        /reconnecting|ended/.test(await seenStates(tab, '#programs'))
      ));
      await eventually('the terminal says that it died and is back', () => (
        /audio-bridge was killed \(signal 9\)[^]*audio-bridge is back/.test(stack.child.log)
      ));
      await eventually('the ready file names the new process', () => stack.ready.processes['audio-bridge'] !== old);
      await tab.hears([DESKTOP_HZ]);
      await eventually('the page says that the desktop plays', async () => (await programs(tab)).join() === 'playing');
    } finally {
      await player.stop();
    }
  });

  it('when everything is killed the page promises sound no longer than sound comes in', async () => {
    const ben = await Browser.chromium({ hz: BEN_HZ, ear: { pulse: ears, sink: 'ear_ben' } });
    try {
      await ben.open(`${stack.link(ROOM, 'ben')}&join=mic`);
      await tab.hears([BEN_HZ]);
      await tab.look(watchPromises, SILENCE_MS_MAX);
      await stack.child.kill9();
      await eventually('the page says that the connection is lost', async () => (await state(tab)) === 'lost');
      const { said, empty } = await tab.look(() => window.__promises);
      // A page that stood still may have passed over the words without the promise.
      assert.ok(said.some((text) => text.startsWith('Reconnecting')), `it said ${said}`);
      assert.equal(empty, 0, 'promises of sound while none came in');
    } finally {
      await ben.close();
    }
  });
});

/// The page looks at its receivers each 100 ms and takes a second of silence for an interruption.
const SILENCE_MS_MAX = 2500;

/// In the page: keeps what the header said, and counts how often it promised sound long after the last of it had played.
/// Twice in a row, so that a page that stood still for a while is no liar.
function watchPromises(silence_ms_max) {
  const seen = { said: [], empty: 0 };
  window.__promises = seen;
  let before = false;
  setInterval(() => {
    const text = document.querySelector('#state').innerText.trim();
    if (seen.said.at(-1) !== text) seen.said.push(text);
    const receivers = window.__carillon.client.peerConnection?.getReceivers() ?? [];
    const played = receivers.flatMap((receiver) => receiver.getSynchronizationSources().map((source) => source.timestamp));
    const silence_ms = performance.timeOrigin + performance.now() - Math.max(0, ...played);
    const now = text.includes('goes on') && silence_ms > silence_ms_max;
    if (now && before) seen.empty += 1;
    before = now;
  }, 100);
}
