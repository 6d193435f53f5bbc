// A desktop in a root of its own, as an ordinary user, and a browser outside: what the desktop plays is heard there, and its
// microphone is seen by a recorder inside.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Browser } from '../first-call/harness/browser.mjs';
import { Child, eventually, freePorts, pause } from '../first-call/harness/processes.mjs';
import { Pulse } from '../first-call/harness/pulse.mjs';
import { analyse } from '../first-call/harness/spectrum.mjs';
import { Stack } from '../first-call/harness/stack.mjs';

const ROOM = 'image';
const ROOT = process.env.DESKTOP_ROOT;
const RUN = '/home/desktop/run';
const USER = 102;
const REAR_CENTER = '/usr/share/sounds/alsa/Rear_Center.wav';
const MICROPHONE_HZ = 700;
/// The whole desktop sound, daemon and bridge: what a pod has for it.
const MEMORY_MIB_MAX = 256;

/// A program inside: own mounts, the root, an ordinary user, nothing of our environment.
function inside(name, command, env = {}) {
  const settings = Object.entries({
    PATH: '/usr/local/bin:/usr/bin:/bin', HOME: '/home/desktop', CARILLON_RUN: RUN, ...env,
  }).map(([key, value]) => `${key}=${value}`);
  const mounts = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t tmpfs tmpfs "$0/tmp" && exec chroot --userspec=102:102 "$0" env -i "$@"';
  return new Child(name, 'unshare', ['--mount', 'sh', '-c', mounts, ROOT, ...settings, ...command]);
}

describe('desktop image', () => {
  let stack;
  let ears;
  let ear;
  let browser;
  let tab;
  let entry;
  let desktop;

  const client = (name, ...command) => inside(name, command, { PULSE_SERVER: `unix:${RUN}/native`, PULSE_COOKIE: `${RUN}/cookie` });

  before(async () => {
    execFileSync('rm', ['-rf', path.join(ROOT, RUN)]);
    ears = await Pulse.ears('ear_image');
    stack = await Stack.start({ room: ROOM });
    const [port, admin] = await freePorts(2);
    entry = inside('entry', ['/opt/carillon-desktop/entry'], {
      BRIDGE_SIGNALING: stack.ws(ROOM), BRIDGE_TOKEN: stack.token(ROOM, 'desktop'), BRIDGE_ADMIN: `127.0.0.1:${admin}`,
      CARILLON_PULSE_PORT: String(port),
    });
    desktop = Object.assign(new Pulse(), {
      env: { PULSE_SERVER: `tcp:127.0.0.1:${port}`, PULSE_COOKIE: path.join(ROOT, RUN, 'cookie') },
    });
    await eventually('the desktop’s sound answers', () => desktop.list('sinks'));
    await eventually('the bridge is in the room', async () => (
      (await (await fetch(`http://127.0.0.1:${admin}/v1/status`)).json()).media === 'connected'
    ));
    ear = ears.record('ear_image.monitor');
    browser = await Browser.chromium({ hz: MICROPHONE_HZ, ear: { pulse: ears, sink: 'ear_image' } });
    tab = await browser.open(`${stack.link(ROOM, 'ada')}&join=mic`);
    await tab.connected();
  });

  after(async () => {
    await browser?.close();
    await ear?.stop();
    await entry?.stop();
    await stack?.stop();
    await ears?.stop();
  });

  it('everything inside runs as an ordinary user', () => {
    const ours = ['pulseaudio', 'audio-bridge'].map((name) => processesOf(name));
    for (const found of ours) {
      assert.equal(found.length, 1, JSON.stringify(ours));
      assert.deepEqual(found[0].uids, [USER, USER, USER, USER]);
    }
  });

  it('a system sound inside is heard by a browser outside', async () => {
    await ear.next(1);
    // On a machine that stalls it may come too late or damaged once.
    await eventually('it is heard', async () => {
      const from = ear.position;
      const { code } = await client('paplay', 'paplay', REAR_CENTER).done;
      assert.equal(code, 0);
      await ear.next(1);
      const peak = ear.since(from).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      // The file's own peak is 0.44.
      assert.ok(peak > 0.2 && peak < 0.7, `peak ${peak}`);
      return true;
    });
  });

  it('the browser’s microphone is at the desktop’s, and a recorder with a window attaches to it', async () => {
    const meter = client('pavumeter', 'xvfb-run', '-a', 'pavumeter', '--record');
    const microphone = desktop.record('mic', 1);
    try {
      await eventually('the microphone arrives', async () => {
        const found = analyse(await microphone.next(0.7), 48000, [MICROPHONE_HZ]);
        return Math.abs(found.peak_hz - MICROPHONE_HZ) <= 3 && found.peak_db > -25;
      });
      await eventually('pavumeter records from the mic', async () => {
        const mic = (await desktop.list('sources')).find((source) => source.name === 'mic');
        const outputs = await desktop.list('source-outputs');
        return outputs.some((output) => output.source === mic.index && /volume meter/i.test(JSON.stringify(output)));
      }, undefined, 200);
    } finally {
      await meter.stop();
      await microphone.stop();
    }
  });

  it('what plays into mic_in by mistake is put onto the desktop', async () => {
    // It plays for a second and a half; on a machine that stalls that may be over before it is noticed.
    await eventually('it is moved', async () => {
      await client('lost', 'paplay', '-d', 'mic_in', REAR_CENTER).done;
      return /moved a program from mic_in to desktop/.test(entry.log);
    });
  });

  it('the TCP port is on loopback and nobody gets in without the cookie', async () => {
    const listening = execFileSync('ss', ['-Hltn']).toString().split('\n').filter((line) => line.includes(`:${desktop.env.PULSE_SERVER.split(':')[2]} `));
    assert.ok(listening.length > 0 && listening.every((line) => line.includes('127.0.0.1:')), listening.join());
    const stranger = inside('stranger', ['pactl', 'info'], { PULSE_SERVER: desktop.env.PULSE_SERVER, PULSE_COOKIE: '/dev/null', HOME: '/tmp' });
    assert.notEqual((await stranger.done).code, 0, 'a program without the cookie was let in');
    const root = new Child('root', 'env', [`CARILLON_RUN=${path.join(ROOT, 'tmp')}`, path.join(ROOT, 'opt/carillon-desktop/entry')]);
    assert.notEqual((await root.done).code, 0, 'the entry runs as root');
  });

  it('a killed daemon comes back with its devices, and the bridge with it', async () => {
    const [{ pid }] = processesOf('pulseaudio');
    process.kill(pid, 'SIGKILL');
    await eventually('another daemon runs', () => processesOf('pulseaudio').some((found) => found.pid !== pid));
    await ear.next(1);
    await eventually('sound is heard again', async () => {
      const from = ear.position;
      await client('paplay', 'paplay', REAR_CENTER).done;
      await ear.next(1);
      return ear.since(from).some((x) => Math.abs(x) > 0.2);
    });
  });

  it('it fits into a small pod', async () => {
    const parts = ['pulseaudio', 'audio-bridge'].flatMap((name) => processesOf(name));
    const before = parts.map((part) => part.ticks());
    await pause(5000);
    const cpu = parts.map((part, i) => ((part.ticks() - before[i]) * 1000) / 100 / 5000 * 100);
    const mib = parts.map((part) => part.rss_mib());
    console.log(`resident: PulseAudio ${mib[0].toFixed(1)} MiB, bridge ${mib[1].toFixed(1)} MiB; of a core: ${cpu[0].toFixed(1)} %, ${cpu[1].toFixed(1)} %`);
    assert.ok(mib[0] + mib[1] < MEMORY_MIB_MAX);
  });
});

/// Processes of that name inside the root.
function processesOf(name) {
  const read = (pid, file) => readFileSync(`/proc/${pid}/${file}`, 'utf8');
  return readdirSync('/proc').filter((entry) => /^\d+$/.test(entry)).flatMap((pid) => {
    try {
      if (read(pid, 'comm').trim() !== name) return [];
      const root = execFileSync('readlink', [`/proc/${pid}/root`]).toString().trim();
      if (root !== ROOT) return [];
      return [{
        pid: Number(pid),
        uids: read(pid, 'status').match(/^Uid:\s+(.*)$/m)[1].split(/\s+/).map(Number),
        rss_mib: () => Number(read(pid, 'status').match(/^VmRSS:\s+(\d+)/m)[1]) / 1024,
        ticks: () => read(pid, 'stat').split(') ')[1].split(' ').slice(11, 13).reduce((sum, x) => sum + Number(x), 0),
      }];
    } catch {
      return []; // It ended while we looked.
    }
  });
}
