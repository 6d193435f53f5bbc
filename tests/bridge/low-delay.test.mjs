// Low delay on a bad network: packets to the listener are lost, in a network namespace (see run), and the sound goes on.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../first-call/harness/browser.mjs';
import { PATIENCE_MS, eventually } from '../first-call/harness/processes.mjs';
import { Pulse } from '../first-call/harness/pulse.mjs';
import { analyse, writeTone } from '../first-call/harness/spectrum.mjs';
import { Stack } from '../first-call/harness/stack.mjs';

const ROOM = 'lossy';
const DESKTOP_HZ = 880;
const AMPLITUDE_DB = -12.04;
const LOST_PERCENT = 20;

describe('low delay on a bad network', () => {
  let stack;
  let ears;
  let recorder;
  let browser;
  let player;
  let folder;
  let tab;

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'carillon-lossy-'));
    ears = await Pulse.ears('ear');
    stack = await Stack.start({ desktop: true, room: ROOM });
    recorder = ears.record('ear.monitor');
    const file = writeTone(path.join(folder, 'desktop.wav'), { left: DESKTOP_HZ, seconds: 300 });
    player = Pulse.attach(stack.ready.desktop).play(file, stack.ready.desktop.sink);
    browser = await Browser.chromium({ ear: { pulse: ears, sink: 'ear' } });
    tab = await browser.open(`${stack.link(ROOM, 'listener', 'listener')}&join=listen`);
    await tab.connected();
    await tab.page.click('#low-delay');
  });

  after(async () => {
    await browser?.close();
    await player?.stop();
    await recorder?.stop();
    await stack?.stop();
    await ears?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const ways = () => tab.look(() => window.__carillon.lowDelay.tracks);
  const own = () => eventually('the page plays its own way', async () => {
    const tracks = await ways();
    if (tracks.some(({ path: by }) => by === 'own')) return true;
    throw new Error(JSON.stringify(tracks));
  }, 2 * PATIENCE_MS);
  const level = async () => analyse(await recorder.next(0.5), 48000, [DESKTOP_HZ]).levels[DESKTOP_HZ];

  it('goes on with the sound, one way or the other, and is clean again after it', async () => {
    await own();
    await eventually('the tone is heard', async () => Math.abs((await level()) - AMPLITUDE_DB) < 1);
    const received = async () => (await ways()).reduce((sum, track) => sum + track.received, 0);
    const nft = (...words) => execFileSync('nft', words);
    nft('add', 'table', 'inet', 'loss');
    nft('add', 'chain', 'inet', 'loss', 'in', '{ type filter hook input priority 0; }');
    // Only what the node sends, and of that only what looks like RTP (RFC 7983: the first byte is 128 to 191).
    nft('add', 'rule', 'inet', 'loss', 'in', `udp sport ${stack.media}-${stack.media + 7} @th,64,8 >= 128 @th,64,8 <= 191 numgen random mod 100 < ${LOST_PERCENT} drop`);
    const levels = [];
    const before = await received();
    try {
      for (let n = 0; n < 16; n++) levels.push(await level());
    } finally {
      nft('delete', 'table', 'inet', 'loss');
    }
    const after = await received();
    console.log(`levels under loss: ${levels.map((x) => x.toFixed(1))}; ${JSON.stringify(await ways())}`);
    assert.ok(after > before, 'frames still come');
    const typical = [...levels].sort((a, b) => a - b)[levels.length / 2];
    assert.ok(Math.abs(typical - AMPLITUDE_DB) < 3, `levels: ${levels}`);
    await eventually('the tone is clean again', async () => {
      const { levels: now, rms_db: all } = analyse(await recorder.next(0.8), 48000, [DESKTOP_HZ]);
      return Math.abs(now[DESKTOP_HZ] - AMPLITUDE_DB) < 0.5 && Math.abs(all + 3.01 - now[DESKTOP_HZ]) < 0.3;
    }, 2 * PATIENCE_MS);
  });
});
