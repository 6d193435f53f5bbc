// The bridge in a whole system, with everything that can be taken away from it: the media node, the network, the daemon;
// and what can be changed while it runs. Alone in a network namespace (see run).
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Aiortc } from '../first-call/harness/aiortc.mjs';
import { PATIENCE_MS, eventually, pause } from '../first-call/harness/processes.mjs';
import { Pulse } from '../first-call/harness/pulse.mjs';
import { analyse, writeTone } from '../first-call/harness/spectrum.mjs';
import { Stack } from '../first-call/harness/stack.mjs';

const ROOM = 'bridge';
const ADA_HZ = 600;
const BEN_HZ = 900;
const DESKTOP_HZ = 1320;
const BRIDGE = 'audio-bridge';

describe('bridge', () => {
  let stack;
  let desktop;
  let microphone;
  let folder;
  let player;
  const people = [];

  const sent = async () => (await stack.metrics(BRIDGE)).bridge_frames_sent_total;
  const admin = async (route, body) => {
    const answer = await fetch(new URL(route, stack.ready.admin[BRIDGE]), body && {
      method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
    });
    return { status: answer.status, body: await answer.text() };
  };
  const voices = async () => {
    const { levels } = analyse(await microphone.next(0.5), 48000, [ADA_HZ, BEN_HZ]);
    return [levels[ADA_HZ] > -25, levels[BEN_HZ] > -25];
  };
  const flows = (what) => eventually(what, async () => {
    const before = await sent().catch(() => NaN);
    await pause(200);
    return (await sent().catch(() => NaN)) > before + 5;
  });

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'carillon-bridge-'));
    stack = await Stack.start({ desktop: true, room: ROOM });
    desktop = Pulse.attach(stack.ready.desktop);
    microphone = desktop.record(stack.ready.desktop.microphone, 1);
    const file = writeTone(path.join(folder, 'desktop.wav'), { left: DESKTOP_HZ, seconds: 300 });
    player = desktop.play(file, stack.ready.desktop.sink);
    for (const [name, tone] of [['ada', ADA_HZ], ['ben', BEN_HZ]]) {
      const person = new Aiortc(stack.ws(ROOM), stack.token(ROOM, name), { tone, program: 1 });
      people.push(person);
      await person.says('heard');
    }
  });

  after(async () => {
    await player?.stop();
    for (const person of people) await person.stop();
    await microphone?.stop();
    await stack?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it('several microphones are one in the desktop', async () => {
    await eventually('both are heard', async () => (await voices()).every(Boolean));
  });

  it('who may speak into the desktop changes while it runs', async () => {
    assert.equal((await admin('/v1/speakers', { may_speak: 'identity:ada' })).status, 200);
    await eventually('only ada is heard', async () => `${await voices()}` === 'true,false');
    await admin('/v1/speakers', { may_speak: 'none' });
    await eventually('nobody is heard', async () => `${await voices()}` === 'false,false');
    await admin('/v1/speakers', { may_speak: 'role:speaker', gains: 'ben=0' });
    await eventually('ben is turned down', async () => `${await voices()}` === 'true,false');
    await admin('/v1/speakers', { may_speak: 'all', gains: '' });
    await eventually('both are heard again', async () => (await voices()).every(Boolean));
    assert.equal((await admin('/v1/speakers', { may_speak: 'everybody' })).status, 422);
  });

  it('the profile changes while it runs and the listeners go on hearing', async () => {
    for (const [profile, rate] of [['instant', 200], ['thrift', 50], ['studio', 100], ['music', 100]]) {
      assert.equal((await admin('/v1/encode', { profile })).status, 200);
      // Rates differ by two, so a machine that does not keep pace is told from a profile that was not taken up.
      await eventually(`${profile} has ${rate} packets a second`, async () => {
        const [from, before] = [performance.now(), await sent()];
        await pause(1000);
        const packets = ((await sent()) - before) * 1000 / (performance.now() - from);
        if (Math.abs(Math.log2(packets / rate)) > 0.5) throw new Error(`${packets} packets a second`);
        return true;
      }, PATIENCE_MS);
      await people[0].hears([BEN_HZ, DESKTOP_HZ]);
    }
    assert.equal((await admin('/v1/encode', { frame_ms: 7 })).status, 422);
  });

  it('loss on the way to the node is answered with redundancy', async () => {
    const nft = (...words) => execFileSync('nft', words);
    nft('add', 'table', 'inet', 'loss');
    nft('add', 'chain', 'inet', 'loss', 'in', '{ type filter hook input priority 0; }');
    // DTLS and STUN pass: only what looks like RTP is lost (RFC 7983: the first byte is 128 to 191). And only the bridge's:
    // aiortc, which speaks and listens here, has neither redundancy nor concealment.
    const ports = portsOf(stack.ready.processes[BRIDGE]).join(', ');
    nft('add', 'rule', 'inet', 'loss', 'in', `udp sport { ${ports} } udp dport ${stack.media}-${stack.media + 7} @th,64,8 >= 128 @th,64,8 <= 191 numgen random mod 100 < 15 drop`);
    try {
      await eventually('two blocks of redundancy', async () => {
        const { bridge_red_blocks: blocks, bridge_uplink_loss_ratio: loss } = await stack.metrics(BRIDGE);
        if (blocks !== 2 || loss <= 0) throw new Error(`${blocks} blocks at ${loss} lost`);
        return true;
      }, 2 * PATIENCE_MS);
      await people[0].hears([BEN_HZ, DESKTOP_HZ]);
    } finally {
      nft('delete', 'table', 'inet', 'loss');
    }
  });

  it('when the media node is killed, sound comes back with it', async () => {
    const old = stack.ready.processes.sfu;
    process.kill(old, 'SIGKILL');
    await eventually('the node is started again', () => stack.ready.processes.sfu !== old);
    const back = Date.now();
    await flows('the desktop is sent again');
    console.log(`sound ${Date.now() - back} ms after the node`);
  });

  it('after 30 s without network sound comes back, and nothing has piled up', async () => {
    await flows('the desktop is sent');
    execFileSync('ip', ['link', 'set', 'lo', 'down']);
    await pause(30_000);
    execFileSync('ip', ['link', 'set', 'lo', 'up']);
    const back = Date.now();
    await flows('the desktop is sent again');
    console.log(`sound ${Date.now() - back} ms after the network`);
    // A stall leaves something there for a moment; what has piled up without a network would stay.
    await eventually('the queue is short', async () => (await stack.metrics(BRIDGE)).bridge_queue_milliseconds <= 40);
  });
});

/// UDP ports of a process.
function portsOf(pid) {
  const lines = execFileSync('ss', ['-Huanp']).toString().split('\n').filter((line) => line.includes(`pid=${pid},`));
  return lines.map((line) => line.trim().split(/\s+/)[3].replace(/.*:/, ''));
}
