// A hundred thousand datagrams of a stranger at the media port, from many addresses: nothing comes back that amplifies,
// nothing goes on to anybody, nothing is remembered, and the call of the others does not notice.
import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { after, before, describe, it } from 'node:test';
import { pause, residentKiB } from './harness/processes.mjs';
import { Pulse } from './harness/pulse.mjs';
import { RunningCall } from './harness/running-call.mjs';
import { Stack } from './harness/stack.mjs';

const DATAGRAMS = 100_000;
const SOURCES = 250;
/// Datagrams sent at once, and the rest between two such bursts: about 20,000 a second, below what the socket buffer holds.
const BURST = 100;
const REST_MS = 5;
/// Pages that the process touches for the first time under load; a hundred bytes kept of each datagram would be ten times
/// as much.
const GROWTH_KIB_MAX = 1024;

describe('forged datagrams', () => {
  let ears;
  let stack;
  let call;
  let ssrcs;
  const strangers = [];

  before(async () => {
    ears = await Pulse.ears('ear');
    stack = await Stack.start({ args: ['--shards', '1'] });
    call = await RunningCall.start(stack, ears, 'ear');
    const answers = await Promise.all([call.speaker, call.listener].map((tab) => (
      tab.page.evaluate(() => `${window.thin.connection.localDescription.sdp}${window.thin.connection.remoteDescription.sdp}`)
    )));
    ssrcs = [...new Set(answers.join('').match(/(?<=^a=ssrc:)\d+/gm))].map(Number);
    for (let i = 0; i < SOURCES; i++) strangers.push(await stranger(`127.0.${i % 5}.${2 + i}`));
  });

  after(async () => {
    for (const { socket } of strangers) socket.close();
    await call?.stop();
    await stack?.stop();
    await ears?.stop();
  });

  const flood = async (count, forge) => {
    for (let sent = 0; sent < count; ) {
      for (let i = 0; i < BURST && sent < count; i++, sent++) {
        const from = strangers[sent % SOURCES];
        const datagram = forge(sent);
        from.sent += datagram.length;
        from.socket.send(datagram, stack.media, '127.0.0.1');
      }
      await pause(REST_MS);
    }
  };

  const forgers = {
    RTP: () => rtp(randomInt(2) ? ssrcs[randomInt(ssrcs.length)] : randomInt(2 ** 32)),
    RTCP: () => rtcp(ssrcs[randomInt(ssrcs.length)]),
    STUN: () => stunBinding(),
    DTLS: (n) => (n % 3 ? clientHello() : applicationData()),
  };

  it('100,000 of them are dropped and counted; nothing is forwarded or kept and the call is untouched', async () => {
    // Once a little of each first: lazily made tables are no leak.
    for (const forge of Object.values(forgers)) await flood(500, forge);
    const resident = residentKiB(stack.ready.processes.sfu);
    await call.untouched();
    // The listener is asked before and after the node: between two readings a stall may be long.
    const look = async () => ({ least: (await call.counts()).packets, metrics: await stack.metrics(), most: (await call.counts()).packets });
    const before = await look();
    for (const forge of Object.values(forgers)) await flood(DATAGRAMS / 4, forge);
    const after = await look();
    await call.untouched();
    const grown = residentKiB(stack.ready.processes.sfu) - resident;
    const gone = (pattern) => sum(after.metrics, pattern) - sum(before.metrics, pattern);
    // What came while the machine did not run the node, the node itself or the kernel drops unread.
    const dropped = gone(/^sfu_(dropped|receive_late|socket_receive_overflows)_total/);
    assert.ok(dropped >= DATAGRAMS * 0.95, `only ${dropped} drops are counted: ${JSON.stringify(after, null, 1)}`);
    // What the node forwarded is what the listener got, up to the packets that were on their way.
    const forwarded = gone(/^sfu_rtp_forwarded_total/);
    const [least, most] = [after.least - before.most, after.most - before.least];
    assert.ok(forwarded >= least - 50 && forwarded <= most + 50, `${forwarded} packets forwarded, ${least} to ${most} of them to the listener`);
    assert.ok(grown < GROWTH_KIB_MAX, `the node has grown by ${grown} KiB`);
  });

  it('a stranger gets back less than it sends, and never sound', () => {
    for (const { address, sent, received } of strangers) {
      const bytes = received.reduce((total, datagram) => total + datagram.length, 0);
      assert.ok(bytes <= sent, `${address} sent ${sent} bytes and got ${bytes}`);
      const media = received.filter((datagram) => datagram[0] >> 6 === 2);
      assert.equal(media.length, 0, `${address} was sent RTP or RTCP`);
      const tls = received.filter((datagram) => datagram[0] >= 20 && datagram[0] <= 63);
      assert.equal(tls.length, 0, `${address} was spoken to in DTLS`);
    }
  });

  it('no peer was added to the node', async () => {
    const metrics = await stack.metrics();
    const peers = Object.entries(metrics).filter(([name]) => /peers(\{|$)/.test(name)).map(([, value]) => value);
    assert.ok(peers.length > 0, `no metric for peers: ${Object.keys(metrics)}`);
    assert.equal(Math.max(...peers), 2);
  });
});

async function stranger(address) {
  const socket = createSocket('udp4');
  const one = { address, socket, sent: 0, received: [] };
  socket.on('message', (datagram) => one.received.push(datagram));
  await new Promise((resolve, reject) => socket.once('error', reject).bind(0, address, resolve));
  return one;
}

function sum(metrics, pattern) {
  return Object.entries(metrics).filter(([name]) => pattern.test(name)).reduce((total, [, value]) => total + value, 0);
}

function rtp(ssrc) {
  const packet = randomBytes(100);
  packet[0] = 0x80;
  packet[1] = 111;
  packet.writeUInt32BE(ssrc >>> 0, 8);
  return packet;
}

/// A receiver report about `ssrc`, as SRTCP with a tag made up.
function rtcp(ssrc) {
  const packet = randomBytes(32 + 4 + 16);
  packet.set([0x81, 201, 0, 7]);
  packet.writeUInt32BE(ssrc >>> 0, 8);
  packet[32] = randomInt(2) << 7; // The E bit, set or not.
  return packet;
}

/// A binding request with a user name that looks right, USE-CANDIDATE, and an integrity nobody has the key for.
function stunBinding() {
  const attribute = (type, value) => {
    const padded = Buffer.alloc(4 + Math.ceil(value.length / 4) * 4);
    padded.writeUInt16BE(type, 0);
    padded.writeUInt16BE(value.length, 2);
    padded.set(value, 4);
    return padded;
  };
  const body = Buffer.concat([
    attribute(0x0006, Buffer.from(`${randomBytes(4).toString('hex')}:${randomBytes(4).toString('hex')}`)),
    attribute(0x0024, randomBytes(4)),
    attribute(0x0025, Buffer.alloc(0)),
    attribute(0x802a, randomBytes(8)),
    attribute(0x0008, randomBytes(20)),
  ]);
  const header = Buffer.alloc(20);
  header.writeUInt16BE(1, 0);
  header.writeUInt16BE(body.length, 2);
  header.writeUInt32BE(0x2112a442, 4);
  header.set(randomBytes(12), 8);
  return Buffer.concat([header, body]);
}

/// A ClientHello that a DTLS server would answer: cookie empty, one suite, use_srtp.
function clientHello() {
  const extensions = Buffer.from('000e00050002000100', 'hex'); // use_srtp: AES128_CM_SHA1_80
  const hello = Buffer.concat([
    Buffer.from('fefd', 'hex'), randomBytes(32), Buffer.from([0, 0]),
    Buffer.from('0002c02b', 'hex'), Buffer.from('0100', 'hex'),
    Buffer.from([0, extensions.length]), extensions,
  ]);
  const handshake = Buffer.alloc(12);
  handshake[0] = 1;
  handshake.writeUIntBE(hello.length, 1, 3);
  handshake.writeUIntBE(hello.length, 9, 3);
  return record(22, Buffer.concat([handshake, hello]));
}

function applicationData() {
  return record(23, randomBytes(64));
}

function record(type, payload) {
  const header = Buffer.alloc(13);
  header[0] = type;
  header.writeUInt16BE(0xfefd, 1);
  header.writeUInt16BE(payload.length, 11);
  return Buffer.concat([header, payload]);
}
