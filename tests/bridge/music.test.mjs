// The switch "music microphone": what is asked of the device, and that left and right arrive apart at the others.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../first-call/harness/browser.mjs';
import { eventually } from '../first-call/harness/processes.mjs';
import { writeTone } from '../first-call/harness/spectrum.mjs';
import { Stack } from '../first-call/harness/stack.mjs';

const ROOM = 'music';
const LEFT_HZ = 440;
const RIGHT_HZ = 1000;
const APART_DB = 30;

describe('music microphone', () => {
  let stack;
  let folder;
  let player;
  let listener;
  const browsers = [];

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'carillon-music-'));
    stack = await Stack.start({ room: ROOM });
    const says = writeTone(path.join(folder, 'instrument.wav'), { left: LEFT_HZ, right: RIGHT_HZ });
    for (const [name, options] of [['ada', { says }], ['ben', { hz: 700 }]]) {
      const browser = await Browser.chromium(options);
      browsers.push(browser);
      const role = name === 'ada' ? 'speaker' : 'listener';
      const tab = await browser.open(`${stack.link(ROOM, name, role)}&join=${name === 'ada' ? 'mic' : 'listen'}`);
      await tab.connected();
      if (name === 'ada') player = tab;
      else listener = tab;
    }
  });

  after(async () => {
    for (const browser of browsers) await browser.close();
    await stack?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  /// By how much the own tone of each channel is above the other channel's, in dB.
  const separation = async () => {
    const [slot] = await listener.hear([LEFT_HZ, RIGHT_HZ]);
    if (!slot?.left || !slot?.right) throw new Error('silence');
    return Math.min(
      slot.left.levels[LEFT_HZ] - slot.right.levels[LEFT_HZ],
      slot.right.levels[RIGHT_HZ] - slot.left.levels[RIGHT_HZ],
    );
  };
  const switched = () => player.look(() => document.querySelector('#music').click());
  const asked = async () => (await player.look(() => window.__probe.microphones())).at(-1);

  it('off, it is speech: filtered, and the same in both ears', async () => {
    const { echoCancellation, noiseSuppression, autoGainControl, channelCount } = await asked();
    assert.deepEqual([echoCancellation, noiseSuppression, autoGainControl, channelCount.ideal], [true, true, true, 1]);
    await eventually('one sound in both ears', async () => Math.abs(await separation()) < 6, undefined, 300);
  });

  it('on, it is asked for without filters, and left and right arrive apart', async () => {
    await switched();
    const apart = await eventually(`${APART_DB} dB between the channels`, async () => {
      const found = await separation();
      if (found < APART_DB) throw new Error(`${found} dB`);
      return found;
    }, undefined, 300);
    const { echoCancellation, noiseSuppression, autoGainControl, channelCount } = await asked();
    assert.deepEqual([echoCancellation, noiseSuppression, autoGainControl, channelCount.ideal], [false, false, false, 2]);
    // A machine that stalls sends less for a while.
    const bits = await eventually('more than a voice’s rate', async () => {
      const found = await player.look(() => window.__probe.sentBits(2));
      if (found <= 64_000) throw new Error(`${found} b/s is a voice's rate`);
      return found;
    });
    console.log(`music microphone: ${Math.round(apart)} dB apart, ${Math.round(bits / 1000)} kb/s`);
  });

  it('off again, it is speech again', async () => {
    await switched();
    await eventually('one sound in both ears', async () => Math.abs(await separation()) < 6, undefined, 300);
    assert.equal((await asked()).echoCancellation, true);
  });
});
