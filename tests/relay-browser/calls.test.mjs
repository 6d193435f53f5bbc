// A call with sound between Chromium and Firefox that goes through the relay only, behind three firewalls, each of which leaves one
// way to the relay: UDP, TCP, or TLS; then a desktop whose bridge has UDP to the relay and nothing else. The page gets its servers
// and credentials from signalling, and so does the bridge; nothing is told to the page but `relay=1`.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../first-call/harness/browser.mjs';
import { Child, binary, eventually } from '../first-call/harness/processes.mjs';
import { Pulse } from '../first-call/harness/pulse.mjs';
import { analyse, writeTone } from '../first-call/harness/spectrum.mjs';
import { HOST, dropped, firewall, metrics, portOf, startStack } from './harness/servers.mjs';

const PEOPLE = [
  { name: 'ada', make: Browser.chromium, hz: 523, sink: 'ear_ada' },
  { name: 'cleo', make: Browser.firefox, hz: 1109, sink: 'ear_cleo' },
];
const ALL = PEOPLE.map(({ hz }) => hz);
const DESKTOP_HZ = 1320;

describe('calls through the relay', () => {
  let ears;
  let stack;
  let relay;

  before(async () => {
    ears = await Pulse.ears(...PEOPLE.map(({ sink }) => sink));
    stack = await startStack();
    const [udp, , tls] = stack.ready.relay.urls;
    relay = { plain: portOf(udp), tls: portOf(tls) };
    for (const person of PEOPLE) {
      const ear = { pulse: ears, sink: person.sink };
      person.browser = await person.make({ hz: person.hz, ear, authority: process.env.AUTHORITY });
      person.recorder = ears.record(`${person.sink}.monitor`);
    }
  });

  after(async () => {
    for (const person of PEOPLE) {
      await person.browser?.close();
      await person.recorder?.stop();
    }
    await stack?.stop();
    await ears?.stop();
  });

  /// Both join the room, hear each other at a good level, in the page and at the sound device, by one way only.
  const holdCall = async (test, room, protocol) => {
    for (const person of PEOPLE) {
      person.tab = await person.browser.open(`${stack.link(room, person.name)}&join=mic&relay=1`);
    }
    for (const { tab } of PEOPLE) await tab.connected(20_000);
    for (const person of PEOPLE) {
      const [other] = PEOPLE.filter((one) => one !== person);
      const [slot] = await person.tab.hears([other.hz], { others: ALL, timeout_ms: 25_000 });
      const side = slot.left ?? slot.right;
      assert.ok(side.peak_db > -25, `${person.name} hears ${side.peak_hz} Hz at only ${side.peak_db} dB`);
      assert.ok(side.levels[person.hz] < side.peak_db - 25, `${person.name} hears itself: ${JSON.stringify(side)}`);
      await eventually(`${person.name} plays ${other.hz} Hz`, async () => {
        const { levels } = analyse(await person.recorder.next(0.5), 48000, ALL);
        return levels[other.hz] > -30;
      });
      const way = await selectedWay(person.tab);
      test.diagnostic(`${person.tab.name}: ${JSON.stringify(way)}`);
      assert.deepEqual([way.local, way.protocol, way.remote], ['relay', protocol, HOST], person.tab.name);
    }
    const before = await metrics(stack, 'relay');
    await PEOPLE[0].recorder.next(1);
    const later = await metrics(stack, 'relay');
    const forwarded = relayed(later) - relayed(before);
    assert.ok(forwarded >= 100, `the relay forwarded only ${forwarded} packets in a second of a call of two`);
    for (const person of PEOPLE) await person.tab.page.close();
  };

  it('over UDP, where the relay has no other way', async (test) => {
    await firewall(`tcp dport { ${relay.plain}, ${relay.tls} }`);
    await holdCall(test, 'udp', 'udp');
    assert.ok(await dropped() > 0, 'nobody tried TCP: the firewall proved nothing');
  });

  it('over TCP, where UDP is dropped and TLS blocked', async (test) => {
    await firewall('meta l4proto udp', `tcp dport ${relay.tls}`);
    await holdCall(test, 'tcp', 'tcp');
    assert.ok(await dropped() > 0, 'nobody tried UDP: the firewall proved nothing');
  });

  it('over TLS with a certificate that the browsers check, where only the TLS port is open', async (test) => {
    await firewall('meta l4proto udp', `tcp dport ${relay.plain}`);
    await holdCall(test, 'tls', 'tls');
    assert.ok(await dropped() > 0, 'nobody tried UDP or the plain port: the firewall proved nothing');
  });

  it('of a desktop: the audio-bridge is heard and hears where only UDP to the relay is open', async () => {
    // Not the media ports, neither over UDP nor, for the browser, over TCP.
    await firewall(`udp dport != ${relay.plain}`, `tcp dport { ${stack.media}, ${relay.plain}, ${relay.tls} }`);
    const [ada] = PEOPLE;
    const room = 'desktop';
    const folder = mkdtempSync(path.join(tmpdir(), 'carillon-tone-'));
    const desktop = await Pulse.desktop();
    const microphone = desktop.record('mic', 1);
    const player = desktop.play(writeTone(path.join(folder, 'desktop.wav'), { left: DESKTOP_HZ, seconds: 300 }));
    const bridge = new Child('audio-bridge', binary('audio-bridge'), ['--admin', '127.0.0.1:0'], {
      env: {
        ...desktop.env,
        BRIDGE_SIGNALING: `${stack.origin.replace(/^http/, 'ws')}/v1/rooms/${room}`,
        BRIDGE_TOKEN: stack.token(room, 'desktop'),
        BRIDGE_TRUST: process.env.AUTHORITY,
      },
    });
    try {
      const tab = await ada.browser.open(`${stack.link(room, ada.name)}&join=mic&relay=1`);
      await tab.connected(30_000);
      const [slot] = await tab.hears([DESKTOP_HZ], { others: ALL, timeout_ms: 45_000 });
      assert.ok((slot.left ?? slot.right).peak_db > -25, JSON.stringify(slot));
      await eventually(`${ada.name} is on the desktop's microphone`, async () => {
        const { levels } = analyse(await microphone.next(0.5), 48000, ALL);
        return levels[ada.hz] > -25;
      }, 45_000);
      const allocations = Object.entries(await metrics(stack, 'relay'))
        .filter(([name]) => name.startsWith('relay_allocations{'))
        .reduce((sum, [, value]) => sum + value, 0);
      assert.ok(allocations >= 2, `browser and bridge have ${allocations} allocations together`);
      assert.ok(await dropped() > 0, 'the bridge did not try the media node: the firewall proved nothing');
      await tab.page.close();
    } finally {
      for (const child of [bridge, player, microphone, desktop]) await child.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

/// The pair that carries the media: what the local candidate is, how it reaches the relay, and where the remote one is.
function selectedWay(tab) {
  return eventually(`${tab.name} has a selected pair`, () => tab.look(async () => {
    const stats = await window.__carillon.getStats();
    const byId = new Map(stats.map((entry) => [entry.id, entry]));
    const transport = stats.find(({ type }) => type === 'transport');
    const pair = byId.get(transport?.selectedCandidatePairId)
      ?? stats.find(({ type, selected, nominated, state }) => type === 'candidate-pair' && (selected ?? nominated) && state === 'succeeded');
    if (!pair) return null;
    const local = byId.get(pair.localCandidateId);
    const remote = byId.get(pair.remoteCandidateId);
    return { local: local?.candidateType, protocol: local?.relayProtocol, remote: remote?.address };
  }));
}

/// Packets in both directions.
function relayed(samples) {
  return Object.entries(samples)
    .filter(([name]) => /^relay_to_(peer|client)_packets_total/.test(name))
    .reduce((sum, [, value]) => sum + value, 0);
}
