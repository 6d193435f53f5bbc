// A call that runs beside whatever a test does to the servers, and tells afterwards whether it was touched: a speaker and a
// listener in two tabs of one Chromium, the listener's sound recorded where it leaves the browser.
import assert from 'node:assert/strict';
import { Browser } from './browser.mjs';
import { analyse, longestHole } from './spectrum.mjs';
import { join, openThin } from './thin-page.mjs';

export class RunningCall {
  static async start(stack, ears, sink, { hz = 620, room = 'running-call' } = {}) {
    const call = new RunningCall();
    call.hz = hz;
    call.recorder = ears.record(`${sink}.monitor`);
    call.browser = await Browser.chromium({ hz, ear: { pulse: ears, sink } });
    call.speaker = await openThin(call.browser, stack.origin);
    call.listener = await openThin(call.browser, stack.origin);
    const ws = stack.ws(room);
    await join(call.speaker, { ws, token: stack.token(room, 'steady-speaker'), speech: 0, program: 0 });
    await join(call.listener, { ws, token: stack.token(room, 'steady-listener', 'listener'), mic: false });
    await call.listener.hears([hz]);
    await call.recorder.next(1);
    call.mark = { at: call.recorder.position, inbound: await call.counts() };
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
    this.mark = { at: this.recorder.position, inbound };
    const report = { hole_ms, before, inbound, seconds, hz: sound.peak_hz, db: sound.peak_db };
    assert.ok(Math.abs(sound.peak_hz - this.hz) <= 4, `the tone is another: ${JSON.stringify(report)}`);
    assert.ok(sound.peak_db > -20, `the tone is weak: ${JSON.stringify(report)}`);
    assert.ok(hole_ms < HOLE_MS_MAX, `the tone was interrupted: ${JSON.stringify(report)}`);
    assertHardlyLost(before, inbound);
    return report;
  }

  async stop() {
    await this.browser?.close();
    await this.recorder?.stop();
  }
}

/// What two shared cores do to a browser's output by themselves stays below; a lost connection lasts much longer.
export const HOLE_MS_MAX = 400;

/// A machine that stalls loses a packet here and there: what is too old is dropped, and buffers end.
const LOST_SHARE_MAX = 0.02;

/// Fails when more than a few of the packets between two readings of a receiver's statistics are missing.
export function assertHardlyLost(before, after) {
  const [lost, packets] = [after.lost - before.lost, after.packets - before.packets];
  const report = JSON.stringify({ before, after });
  assert.ok(packets > 0, `nothing arrived: ${report}`);
  assert.ok(lost <= Math.max(2, LOST_SHARE_MAX * packets), `${lost} packets were lost beside ${packets}: ${report}`);
}
