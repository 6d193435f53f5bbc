// The bridge as a publisher to a WHIP server that is none of ours: aiortc behind the HTTP of Python's standard library, over TLS
// with an authority of the server's own making.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { python } from '../first-call/harness/aiortc.mjs';
import { Child, REPOSITORY, binary, eventually, freePorts } from '../first-call/harness/processes.mjs';
import { Pulse } from '../first-call/harness/pulse.mjs';
import { writeTone } from '../first-call/harness/spectrum.mjs';

const LEFT_HZ = 440;
const RIGHT_HZ = 1000;
/// A sine of a quarter of full scale; Opus may take some of it.
const LEVEL_DB = -12;
const WANTED = ['a=sendonly', 'a=group:BUNDLE ', 'a=bundle-only', 'a=rtcp-mux\r', 'a=rtcp-mux-only', 'a=msid:', 'a=setup:actpass'];
const TOKEN = 'a-token-of-the-test';

describe('whip', () => {
  let desktop;
  let folder;
  let player;
  let admin;
  const children = [];

  /// A server with these flags, and what it said so far.
  const server = async (...flags) => {
    const child = new Child('whip-server', python(), [path.join(REPOSITORY, 'tests/bridge/whip_server.py'), '--token', TOKEN, ...flags], { stdin: 'pipe' });
    children.push(child);
    const events = (name) => child.log.split('\n').filter((line) => line.endsWith('}')).map((line) => JSON.parse(line)).filter(({ event }) => event === name);
    await eventually('the WHIP server listens', () => events('listens').length);
    return { child, events, url: events('listens')[0].url };
  };
  const bridge = async (url, ...flags) => {
    const [port] = await freePorts(1);
    admin = `http://127.0.0.1:${port}`;
    const child = new Child('whip-bridge', binary('audio-bridge'), ['--whip', url, '--admin', `127.0.0.1:${port}`, ...flags], { env: desktop.env });
    children.push(child);
    return child;
  };
  const hears = (whip) => eventually('both channels arrive', () => {
    const last = whip.events('heard').at(-1);
    if (!last) return null;
    const close = (found, wanted) => Math.abs(found - wanted) <= 4;
    const loud = (found) => Math.abs(found - LEVEL_DB) <= 2;
    const right = close(last.left_hz, LEFT_HZ) && close(last.right_hz, RIGHT_HZ) && loud(last.left_db) && loud(last.right_db);
    if (!right) throw new Error(JSON.stringify(last));
    return last;
  });

  before(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'carillon-whip-'));
    desktop = await Pulse.desktop();
    const file = writeTone(path.join(folder, 'desktop.wav'), { left: LEFT_HZ, right: RIGHT_HZ, seconds: 300 });
    player = desktop.play(file);
  });

  after(async () => {
    for (const child of children) await child.stop();
    await player?.stop();
    await desktop?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it('desktop sound is heard in stereo over https through a busy server that redirects, comes back after a loss, and ends with DELETE', async () => {
    const whip = await server('--redirect', '--busy', '1', '--tls', folder);
    const publisher = await bridge(whip.url, '--token', TOKEN, '--trust', path.join(folder, 'authority.pem'));
    await publisher.says(/certificate_expired.*renew it/);
    whip.child.process.stdin.write('renew\n');
    await hears(whip);
    const [offer] = whip.events('offer');
    assert.deepEqual([offer.lines, offer.path], [1, '/elsewhere/whip']);
    assert.deepEqual(offer.has, WANTED, 'the offer lacks something that RFC 9725 wants');
    assert.equal(whip.events('busy').length, 1);
    assert.equal((await (await fetch(`${admin}/v1/status`)).json()).media, 'connected');
    // The server forgets the session, as when it starts anew.
    const heard = whip.events('heard').length;
    whip.child.process.stdin.write('forget\n');
    await eventually('the server forgets', () => whip.events('forgotten').length);
    await publisher.says(/the server ended the media connection/);
    await eventually('it is offered again and heard', () => whip.events('offer').length >= 2 && whip.events('heard').length > heard + 2);
    await publisher.stop(10_000);
    await eventually('the session is ended', () => whip.events('deleted').at(-1)?.path === `/session/${whip.events('offer').length}`);
  });

  it('a server that cannot prove who it is gets no word of ours', async () => {
    const whip = await server('--tls', folder);
    whip.child.process.stdin.write('renew\n');
    const stranger = await bridge(whip.url, '--token', TOKEN);
    await stranger.says(/certificate_untrusted.*`trust`/);
    const { status } = await fetch(`${admin}/readyz`);
    assert.equal(status, 503);
    const elsewhere = await bridge(whip.url.replace('localhost', '127.0.0.1'), '--token', TOKEN, '--trust', path.join(folder, 'authority.pem'));
    await elsewhere.says(/certificate_wrong_name.*URL/);
    await stranger.stop(10_000);
    await elsewhere.stop(10_000);
    assert.deepEqual([...whip.events('offer'), ...whip.events('asked')], []);
  });

  it('a wrong token is told in words and never printed; a new one in its file is taken up, by a server without AES-GCM', async () => {
    const whip = await server('--plain-srtp');
    const file = path.join(folder, 'token');
    writeFileSync(file, 'wrong-but-secret\n');
    const publisher = await bridge(whip.url, '--token-file', file);
    await publisher.says(/401.*token is missing, wrong or expired/);
    assert.ok(!publisher.log.includes('wrong-but-secret'), 'the token is in the log');
    writeFileSync(file, `${TOKEN}\n`);
    await hears(whip);
    await publisher.stop(10_000);
  });
});
