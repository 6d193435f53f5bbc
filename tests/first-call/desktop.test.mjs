// The desktop in the browser and the browser in the desktop, with the desktop that `carillon dev` starts.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Browser } from './harness/browser.mjs';
import { Child, eventually } from './harness/processes.mjs';
import { Pulse } from './harness/pulse.mjs';
import { align, analyse, correlation, readWav, writeTone } from './harness/spectrum.mjs';
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

  /// Both channels of what a browser sends to its sound device, once the tones are there.
  const played = (one) => eventually(`${one.name} plays the desktop`, async () => {
    const from = one.recorder.position;
    await one.recorder.next(0.8);
    const [left, right] = [0, 1].map((channel) => analyse(one.recorder.since(from, channel), 48000, BOTH));
    const there = left.levels[LEFT_HZ] > -20 && right.levels[RIGHT_HZ] > -20;
    if (!there) throw new Error(JSON.stringify({ left, right, console: one.tab.console.slice(-5) }));
    return { left, right };
  });

  const apart = ({ left, right }, decibels, name) => {
    const separation = {
      left: left.levels[LEFT_HZ] - left.levels[RIGHT_HZ],
      right: right.levels[RIGHT_HZ] - right.levels[LEFT_HZ],
    };
    const text = `${name}: ${JSON.stringify({ separation, left, right })}`;
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

  it('the program sound sits in a slot of its own that names the desktop', async () => {
    await whileToned(async () => {
      const slots = await eventually('one stereo slot', async () => {
        const heard = await chromium.tab.hear(BOTH);
        const stereo = heard.filter((slot) => slot.left && slot.right && Math.abs(slot.right.peak_hz - RIGHT_HZ) < 4);
        return stereo.length === 1 && heard.length === 1 && stereo;
      });
      assert.ok(Math.abs(slots[0].left.peak_hz - LEFT_HZ) < 4 && slots[0].csrc, JSON.stringify(slots));
    });
  });

  it('a short system sound is heard from its first 60 ms', async () => {
    const { samples, rate } = readWav(REAR_CENTER);
    assert.equal(rate, 48000);
    await eventually('the desktop is silent in the browser', async () => (
      analyse(await chromium.recorder.next(0.7), rate).rms_db < -70
    ));
    const from = chromium.recorder.position;
    await desktop.play(REAR_CENTER, stack.ready.desktop.sink).done;
    await chromium.recorder.next(1.2);
    const heard = chromium.recorder.since(from);
    const whole = align(heard, samples);
    assert.ok(whole.value > 0.8, `the sound is not there: ${JSON.stringify(whole)}`);
    // From the first 10 ms in which the file is above -50 dBFS: 60 ms, found where the whole was found, up to the drift of
    // the player's speed control.
    const step = rate / 100;
    const loud = (at) => analyse(samples.subarray(at, at + step), rate).rms_db > -50;
    let onset = 0;
    while (!loud(onset)) onset += step;
    const first = samples.slice(onset, onset + 0.06 * rate);
    let best = 0;
    for (let shift = -0.02 * rate; shift <= 0.02 * rate; shift++) {
      best = Math.max(best, correlation(heard, first, whole.lag + onset + shift));
    }
    assert.ok(best > 0.7, `the first 60 ms are missing or damaged: ${best.toFixed(2)}, whole ${whole.value.toFixed(2)}`);
  });

  it('a 700 Hz microphone of a browser is on the desktop’s mic', async () => {
    const sound = await eventually('the microphone arrives', async () => {
      const found = analyse(await microphone.next(0.7), 48000, [MICROPHONE_HZ]);
      return Math.abs(found.peak_hz - MICROPHONE_HZ) <= 3 && found.peak_db > -25 && found;
    });
    assert.ok(sound.rms_db + 3.01 - sound.peak_db < 1, `there is more than the tone: ${JSON.stringify(sound)}`);
  });

  it('a recorder with a window attaches to the desktop’s mic', async () => {
    const meter = new Child('pavumeter', 'xvfb-run', ['-a', 'pavumeter', '--record'], { env: desktop.env });
    try {
      await eventually('pavumeter records from the mic', async () => {
        const sources = await desktop.list('sources');
        const mic = sources.find((source) => source.name === stack.ready.desktop.microphone);
        const outputs = await desktop.list('source-outputs');
        return outputs.some((output) => output.source === mic.index && /volume meter/i.test(JSON.stringify(output)));
      }, 20_000, 200);
    } finally {
      await meter.stop();
    }
  });

  it('the microphone never reaches what the desktop plays', () => {
    // Everything since before the first browser joined, second by second.
    const all = monitor.since(0);
    for (let at = 0; at + 48000 <= all.length; at += 48000) {
      const { levels } = analyse(all.subarray(at, at + 48000), 48000, [MICROPHONE_HZ]);
      assert.ok(levels[MICROPHONE_HZ] < -75, `${levels[MICROPHONE_HZ]} dB at ${at / 48000} s`);
    }
  });
});
