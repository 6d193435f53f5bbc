// The desktop in the browser and the browser in the desktop, with the desktop that `carillon dev` starts.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Browser } from './harness/browser.mjs';
import { Child, PATIENCE_MS, eventually } from './harness/processes.mjs';
import { programs } from './harness/product-page.mjs';
import { Pulse } from './harness/pulse.mjs';
import { align, analyse, readWav, unevenness, writeTone } from './harness/spectrum.mjs';
import { Stack } from './harness/stack.mjs';

const ROOM = 'desk';
const MICROPHONE_HZ = 700;
const LEFT_HZ = 440;
const RIGHT_HZ = 1000;
const AMPLITUDE_DB = -12.04; // A quarter of full scale.
const REAR_CENTER = '/usr/share/sounds/alsa/Rear_Center.wav';
const BOTH = [LEFT_HZ, RIGHT_HZ];

describe('desktop', () => {
  let ears;
  let stack;
  let desktop;
  let folder;
  let monitor;
  let microphone;
  const chromium = { name: 'Chromium', make: Browser.chromium, sink: 'ear_chromium', role: 'speaker', join: 'mic' };
  const firefox = { name: 'Firefox', make: Browser.firefox, sink: 'ear_firefox', role: 'listener', join: 'listen' };

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'carillon-tones-'));
    ears = await Pulse.ears(chromium.sink, firefox.sink);
    stack = await Stack.start({ desktop: true, room: ROOM });
    desktop = Pulse.attach(stack.ready.desktop);
    // The monitor first: what is on the desktop before anyone plays belongs to the record too.
    monitor = desktop.record(`${stack.ready.desktop.sink}.monitor`);
    microphone = desktop.record(stack.ready.desktop.microphone, 1);
    for (const one of [chromium, firefox]) {
      one.browser = await one.make({ hz: MICROPHONE_HZ, ear: { pulse: ears, sink: one.sink } });
      one.recorder = ears.record(`${one.sink}.monitor`);
      one.tab = await one.browser.open(`${stack.link(ROOM, one.name, one.role)}&join=${one.join}`);
      await one.tab.connected();
    }
  });

  after(async () => {
    for (const one of [chromium, firefox]) {
      await one.browser?.close();
      await one.recorder?.stop();
    }
    for (const recorder of [monitor, microphone]) await recorder?.stop();
    await stack?.stop();
    await ears?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  /// Plays left 440 Hz and right 1000 Hz on the desktop while `during` runs.
  const whileToned = async (during) => {
    const file = writeTone(path.join(folder, 'tones.wav'), { left: LEFT_HZ, right: RIGHT_HZ, seconds: 60 });
    const player = desktop.play(file, stack.ready.desktop.sink);
    try {
      return await during();
    } finally {
      await player.stop();
    }
  };

  /// Both channels of what a browser sends to its sound device, once they are nothing but steady tones: no jitter buffer that
  /// stretches the sound to find its length, no output that stumbles on a busy machine.
  const played = (one) => eventually(`${one.name} plays the desktop`, async () => {
    const from = one.recorder.position;
    await one.recorder.next(0.8);
    const tones = [...BOTH, MICROPHONE_HZ];
    const sides = [LEFT_HZ, RIGHT_HZ].map((hz, channel) => {
      const samples = one.recorder.since(from, channel).slice(-32768);
      return { hz, samples, ...analyse(samples, 48000, tones) };
    });
    const problems = sides.flatMap(({ hz, samples, levels, rms_db }) => {
      const power = tones.reduce((sum, tone) => sum + 10 ** (levels[tone] / 10) / 2, 0);
      const found = [];
      if (levels[hz] < -30) found.push(`no ${hz} Hz`);
      if (Math.abs(10 * Math.log10(power) - rms_db) > 0.3) found.push(`more than tones: ${JSON.stringify({ levels, rms_db })}`);
      if (unevenness(samples, 4096) > 0.5) found.push(`uneven by ${unevenness(samples, 4096)} dB`);
      return found;
    });
    if (problems.length > 0) throw new Error(`${problems}; console: ${one.tab.console.slice(-5)}`);
    return { left: sides[0], right: sides[1] };
  }, 2 * PATIENCE_MS);

  const apart = ({ left, right }, decibels, name) => {
    const separation = {
      left: left.levels[LEFT_HZ] - left.levels[RIGHT_HZ],
      right: right.levels[RIGHT_HZ] - right.levels[LEFT_HZ],
    };
    const text = `${name}: ${JSON.stringify({ separation, left: left.levels, right: right.levels })}`;
    assert.ok(Math.min(separation.left, separation.right) >= decibels, `channels are mixed: ${text}`);
    assert.ok(Math.abs(left.levels[LEFT_HZ] - AMPLITUDE_DB) <= 1, `left level: ${text}`);
    assert.ok(Math.abs(right.levels[RIGHT_HZ] - AMPLITUDE_DB) <= 1, `right level: ${text}`);
  };

  it('Chromium plays left and right of the desktop 40 dB apart, within 1 dB of the level there', async () => {
    const sound = await whileToned(() => played(chromium));
    apart(sound, 40, chromium.name);
  });

  it('Firefox plays left and right of the desktop apart, within 1 dB of the level there', async () => {
    const sound = await whileToned(() => played(firefox));
    apart(sound, 30, firefox.name);
  });

  // What decides in the end is what reaches the sound device, whichever way it takes there.
  for (const one of [chromium, firefox]) {
    it(`${one.name} plays the same with low delay, and without it again`, () => whileToned(async () => {
      const path = () => one.tab.look(() => window.__carillon.lowDelay.tracks.map(({ path: by }) => by));
      const tooBusy = () => one.tab.look(() => window.__carillon.lowDelay.tracks.some(({ why }) => why === 'output'));
      const inCall = () => eventually(`${one.name} is in the call`, () => one.tab.look(() => window.__carillon.state === 'in_call'), 2 * PATIENCE_MS);
      await inCall();
      await one.tab.look(() => {
        window.statesAtSwitching = [];
        // Before and after the page's own listener, which gives the old connection up: whatever the machine does then is no matter.
        let before;
        const box = document.querySelector('#low-delay');
        document.addEventListener('change', () => (before = window.__carillon.state), true);
        box.addEventListener('change', () => window.statesAtSwitching.push([before, window.__carillon.state]));
      });
      await one.tab.page.click('#low-delay');
      // Firefox may judge a busy machine too uneven for it, either that its output stumbles, and then plays as always.
      await eventually(`${one.name} plays its own way`, async () => {
        const { console: log } = one.tab;
        if ((await path()).includes('own') || (one === firefox && (await path()).length > 0) || (await tooBusy())) return true;
        throw new Error(`${JSON.stringify(await one.tab.look(() => window.__carillon.lowDelay))}; console: ${log.slice(-5)}`);
      }, 2 * PATIENCE_MS);
      apart(await played(one), 30, `${one.name}, low delay`);
      await eventually('the page shows that it plays', async () => (await programs(one.tab)).join() === 'playing');
      await inCall();
      await one.tab.page.click('#low-delay');
      await eventually(`${one.name} plays the browser's way`, async () => (await path()).length === 0);
      apart(await played(one), 30, `${one.name}, low delay off again`);
      await inCall();
      const states = await one.tab.look(() => window.statesAtSwitching);
      assert.equal(states.length, 2);
      for (const [at, then] of states) assert.equal(then, at, 'switching is no loss');
    }));
  }

  it('the program sound sits in a slot of its own that names the desktop', async () => {
    await whileToned(async () => {
      const slots = await eventually('one stereo slot', async () => {
        const heard = await chromium.tab.hear(BOTH);
        const at = (side, hz) => side && Math.abs(side.peak_hz - hz) < 4 && side.peak_db > -30;
        const stereo = heard.filter((slot) => at(slot.left, LEFT_HZ) && at(slot.right, RIGHT_HZ));
        return stereo.length === 1 && heard.length === 1 && stereo;
      });
      assert.ok(slots[0].csrc, JSON.stringify(slots));
    });
  });

  // A machine that stalls damages a piece now and then; what the system cuts off is missing each time.
  it('a short system sound is heard from its first 60 ms', () => eventually('it is heard whole', async () => {
    const { samples, rate } = readWav(REAR_CENTER);
    assert.equal(rate, 48000);
    await eventually('the desktop is silent in the browser', async () => (
      analyse(await chromium.recorder.next(0.7), rate).rms_db < -70
    ));
    const from = chromium.recorder.position;
    await desktop.play(REAR_CENTER, stack.ready.desktop.sink).done;
    await chromium.recorder.next(1.2);
    const heard = chromium.recorder.since(from);
    const piece = (at, ms) => samples.slice(at, at + (ms * rate) / 1000);
    const level = (sound) => 10 * Math.log10(sound.reduce((sum, x) => sum + x * x, 1e-9) / sound.length);
    // From the first 10 ms in which the file is above -50 dBFS.
    let onset = 0;
    while (level(piece(onset, 10)) < -50) onset += rate / 100;
    const first = align(heard, piece(onset, 60));
    assert.ok(first.value > 0.9, `the first 60 ms are missing or damaged: ${JSON.stringify(first)}`);
    // The rest follows, up to what a browser's jitter buffer takes out or puts in on the way to its length: a piece in which
    // it does so fits less well.
    const SHIFT = 0.25 * rate;
    const fits = [];
    for (let at = onset; at + rate / 10 <= samples.length; at += rate / 10) {
      if (level(piece(at, 100)) < -30) continue;
      const expected = first.lag + at - onset;
      fits.push(align(heard, piece(at, 100), Math.max(0, expected - SHIFT), expected + SHIFT).value);
    }
    const typical = [...fits].sort((a, b) => a - b)[Math.floor(fits.length / 2)];
    assert.ok(typical > 0.9 && Math.min(...fits) > 0.4, `pieces of 100 ms are damaged: ${fits.map((fit) => fit.toFixed(2))}`);
    return true;
  }, 3 * PATIENCE_MS));

  it('a 700 Hz microphone of a browser is on the desktop’s mic', async () => {
    await eventually('the microphone arrives, and nothing else', async () => {
      const found = analyse(await microphone.next(0.7), 48000, [MICROPHONE_HZ]);
      if (Math.abs(found.peak_hz - MICROPHONE_HZ) > 3 || found.peak_db <= -25) throw new Error(JSON.stringify(found));
      // A hole that a stall leaves looks like other sound; what is there by our fault stays.
      if (found.rms_db + 3.01 - found.peak_db >= 1) throw new Error(`there is more than the tone: ${JSON.stringify(found)}`);
      return true;
    });
  });

  it('a recorder with a window attaches to the desktop’s mic', async () => {
    const meter = new Child('pavumeter', 'xvfb-run', ['-a', 'pavumeter', '--record'], { env: desktop.env });
    try {
      await eventually('pavumeter records from the mic', async () => {
        const sources = await desktop.list('sources');
        const mic = sources.find((source) => source.name === stack.ready.desktop.microphone);
        const outputs = await desktop.list('source-outputs');
        return outputs.some((output) => output.source === mic.index && /volume meter/i.test(JSON.stringify(output)));
      }, PATIENCE_MS, 200);
    } finally {
      await meter.stop();
    }
  });

  it('a microphone that is heard on the desktop’s mic is not in what the desktop plays', async () => {
    let played;
    await eventually('the microphone is on', async () => {
      const [voice, beside] = await Promise.all([microphone.next(2), monitor.next(2)]);
      played = beside;
      return analyse(voice, 48000, [MICROPHONE_HZ]).levels[MICROPHONE_HZ] > -25;
    });
    const { levels, rms_db } = analyse(played, 48000, [MICROPHONE_HZ]);
    assert.ok(levels[MICROPHONE_HZ] < -100 && rms_db < -100, `the desktop plays ${JSON.stringify({ levels, rms_db })}`);
  });
});
