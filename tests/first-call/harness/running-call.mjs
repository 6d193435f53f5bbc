// A call that runs beside whatever a test does to the servers, and tells afterwards whether it was touched: a speaker and a
// listener in two tabs of one Chromium, the listener's sound recorded where it leaves the browser.
import assert from 'node:assert/strict';
import { Browser } from './browser.mjs';
import { analyse, longestHole } from './spectrum.mjs';
import { join, openThin } from './thin-page.mjs';

export class RunningCall {
  static async start(stack, ears, sink, { hz = 620, room = 'running-call' } = {}) {
    const call = new RunningCall();
    Object.assign(call, { hz, stack });
    call.recorder = ears.record(`${sink}.monitor`);
    call.browser = await Browser.chromium({ hz, ear: { pulse: ears, sink } });
    call.speaker = await openThin(call.browser, stack.origin);
    call.listener = await openThin(call.browser, stack.origin);
    const ws = stack.ws(room);
    await join(call.speaker, { ws, token: stack.token(room, 'steady-speaker'), speech: 0, program: 0 });
    await join(call.listener, { ws, token: stack.token(room, 'steady-listener', 'listener'), mic: false });
    await call.listener.hears([hz]);
    await call.recorder.next(1);
    call.mark = { at: call.recorder.position, inbound: await call.counts(), stalled: await stalled(stack) };
    return call;
  }

  async counts() {
    const [only] = Object.values(await this.listener.inbound());
    return only;
  }

  /// Fails unless the tone has sounded on, and hardly a packet was lost, since the start or the last check.
  async untouched() {
    await this.recorder.next(0.5);
    const samples = this.recorder.since(this.mark.at);
    const inbound = await this.counts();
    const { hole_ms } = longestHole(samples, 48000);
    const sound = analyse(samples, 48000, [this.hz]);
    const seconds = samples.length / 48000;
    const before = this.mark.inbound;
    const late = (await stalled(this.stack)) - this.mark.stalled;
    this.mark = { at: this.recorder.position, inbound, stalled: this.mark.stalled + late };
    const report = { hole_ms, before, inbound, seconds, hz: sound.peak_hz, db: sound.peak_db };
    assert.ok(Math.abs(sound.peak_hz - this.hz) <= 4, `the tone is another: ${JSON.stringify(report)}`);
    assert.ok(sound.peak_db > -20, `the tone is weak: ${JSON.stringify(report)}`);
    assert.ok(hole_ms < HOLE_MS_MAX, `the tone was interrupted: ${JSON.stringify(report)}`);
    assertHardlyLost(before, inbound, late);
    return report;
  }

  async stop() {
    await this.browser?.close();
    await this.recorder?.stop();
  }
}

/// What two shared cores do to a browser's output by themselves stays below; a lost connection lasts much longer. A short
/// one does not show, nor in the packets that are missing: the node numbers what it sends on without gaps. Who looks for
/// one tells it from the machine's own.
export const HOLE_MS_MAX = 1500;

const LOST_SHARE_MAX = 0.02;
/// Of what came while the machine did not run the node, so that it was too late when the node saw it.
const LATE_SHARE_MAX = 0.25;

/// Packets that the node did not pass on because the machine stalled, by its own metrics.
export async function stalled(stack) {
  const metrics = await stack.metrics();
  const counted = /^sfu_(receive_late|socket_receive_overflows)_total/;
  return Object.entries(metrics).filter(([name]) => counted.test(name)).reduce((sum, [, value]) => sum + value, 0);
}

/// Fails when more than a few of the packets between two readings of a receiver's statistics are missing.
/// `late` of them the node did not pass on because the machine stalled.
export function assertHardlyLost(before, after, late = 0) {
  const [missing, packets] = [after.lost - before.lost, after.packets - before.packets];
  const report = JSON.stringify({ before, after, late });
  const lost = missing - Math.min(late, LATE_SHARE_MAX * packets);
  assert.ok(packets > 0, `nothing arrived: ${report}`);
  assert.ok(lost <= Math.max(2, LOST_SHARE_MAX * packets), `${lost} packets were lost beside ${packets}: ${report}`);
}
