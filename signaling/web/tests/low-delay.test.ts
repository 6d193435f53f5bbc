import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Intake } from "../src/client/low-delay/intake.ts";
import type { Frame } from "../src/client/low-delay/intake.ts";
import { Judge } from "../src/client/low-delay/judge.ts";
import { samplesOf, unwrapRed } from "../src/client/low-delay/opus.ts";
import { Trials } from "../src/client/low-delay/trials.ts";
import { Underruns } from "../src/client/low-delay/underruns.ts";
import { randomNumbers } from "./random.ts";

/** CELT, 10 ms, stereo, one frame. */
const TOC = (30 << 3) | 4;
const SAMPLES = 480;

function packet(mark: number, length = 5): Uint8Array {
  return new Uint8Array(length).fill(mark).fill(TOC, 0, 1);
}

/** RFC 2198, with copies of the packets before `mark`. */
function redundant(mark: number, copies: number): Uint8Array {
  const marks = Array.from({ length: copies }, (_, n) => mark - copies + n);
  const heads = marks.flatMap((one) => {
    const earlier = (mark - one) * SAMPLES;
    return [0x80 | 111, earlier >> 6, (earlier & 0x3f) << 2, packet(one).length];
  });
  return Uint8Array.from([...heads, 111, ...marks.flatMap((one) => [...packet(one)]), ...packet(mark)]);
}

function deliver(intake: Intake, n: number, options: { red?: number; source?: number; skew?: number; length?: number } = {}): Frame[] {
  const { red = 0, source = 7, skew = 0, length = 5 } = options;
  const payload = red > 0 ? redundant(n, red) : packet(n, length);
  const timestamp = (n * SAMPLES + skew) >>> 0;
  return intake.push({ source, sequence: n & 0xffff, timestamp, payload, red: red > 0 });
}

const marks = (frames: readonly Frame[]) => frames.map(({ data }) => data?.[1] ?? null);

describe("Opus packets", () => {
  it("tell their length", () => {
    assert.equal(samplesOf(packet(1)), 480);
    assert.equal(samplesOf(Uint8Array.of((28 << 3) | 0, 1)), 120);
    assert.equal(samplesOf(Uint8Array.of((1 << 3) | 3, 3)), 2880);
    assert.equal(samplesOf(Uint8Array.of((3 << 3) | 1, 3)), 5760);
    assert.equal(samplesOf(Uint8Array.of((14 << 3) | 0)), 480);
    assert.equal(samplesOf(Uint8Array.of((31 << 3) | 3, 63)), 0);
    assert.equal(samplesOf(new Uint8Array(0)), 0);
  });

  it("come out of redundancy oldest first", () => {
    const blocks = unwrapRed(redundant(9, 2)) ?? [];
    assert.deepEqual(blocks.map(({ earlier, data }) => [earlier, data[1]]), [[960, 7], [480, 8], [0, 9]]);
  });

  it("malformed redundancy is refused whole, whatever the bytes are", () => {
    const whole = redundant(9, 2);
    for (let length = 0; length < 9; length += 1) assert.equal(unwrapRed(whole.subarray(0, length)), null);
    const random = randomNumbers(3);
    for (let n = 0; n < 2_000; n += 1) {
      const bytes = Uint8Array.from({ length: Math.floor(random() * 40) }, () => Math.floor(random() * 256));
      for (const { data } of unwrapRed(bytes) ?? []) assert.ok(data.length <= bytes.length && samplesOf(data) <= 5_760);
      new Intake().push({ source: 1, sequence: 1, timestamp: 1, payload: bytes, red: true });
    }
  });
});

describe("intake", () => {
  it("fills what was lost from the copies, once", () => {
    const intake = new Intake();
    const heard = [1, 2, 5, 6].flatMap((n) => marks(deliver(intake, n, { red: 2 })));
    assert.deepEqual(heard, [1, 2, 3, 4, 5, 6]);
  });

  it("decodes what was overtaken, and nothing twice", () => {
    const intake = new Intake();
    const heard = [1, 3, 2, 3, 2, 4].flatMap((n) => marks(deliver(intake, n)));
    assert.deepEqual(heard, [1, 3, 2, 4]);
  });

  it("tells a pause from loss", () => {
    const intake = new Intake();
    deliver(intake, 1);
    const [afterPause] = deliver(intake, 2, { skew: 40 * SAMPLES });
    assert.equal(afterPause?.afterPause, true);
    const [afterLoss] = deliver(intake, 9, { skew: 40 * SAMPLES });
    assert.equal(afterLoss?.afterPause, false);
  });

  it("takes a packet without sound for silence", () => {
    const intake = new Intake();
    deliver(intake, 1);
    assert.equal(deliver(intake, 2, { length: 1 })[0]?.data, null);
  });

  it("counts on over the turn of the timestamp and of the sequence numbers", () => {
    const intake = new Intake();
    const skew = 2 ** 32 - 65_535 * SAMPLES;
    const at = [65_533, 65_534, 65_535, 65_536, 65_537].flatMap((n) => deliver(intake, n, { skew }).map((frame) => frame.at));
    for (let n = 1; n < at.length; n += 1) assert.equal((at[n] ?? 0) - (at[n - 1] ?? 0), SAMPLES);
    assert.equal(at.length, 5);
  });

  it("begins anew with another sender or another clock", () => {
    const intake = new Intake();
    const restarts = [
      ...deliver(intake, 1),
      ...deliver(intake, 2),
      ...deliver(intake, 30_000, { source: 8 }),
      ...deliver(intake, 30_001, { source: 8 }),
      ...deliver(intake, 30_002, { source: 8, skew: -20_000_000 }),
      ...deliver(intake, 30_003, { source: 8, skew: -20_000_000 }),
    ].map(({ restart }) => restart);
    assert.deepEqual(restarts, [true, false, true, false, true, false]);
  });
});

describe("judge", () => {
  const good = { received: 12_000, concealed: 0, underrun: 0, held: 15, packets: 25 };
  const own = () => {
    const judge = new Judge();
    for (let now = -900; now < 0; now += 100) assert.equal(judge.account(good, now).by, "browser");
    assert.equal(judge.account(good, 0).by, "own");
    return judge;
  };

  it("leaves it to the browser until something comes and nothing is missing", () => {
    const judge = new Judge();
    for (let now = 0; now < 3_000; now += 100) {
      assert.deepEqual(judge.account({ ...good, received: 0, packets: 0 }, now), { by: "browser", why: "waiting" });
    }
    for (let now = 3_000; now < 5_000; now += 100) judge.account({ ...good, concealed: now % 500 === 0 ? 480 : 0 }, now);
    assert.equal(judge.path.by, "browser");
    for (let now = 5_000; now < 6_000; now += 100) judge.account(good, now);
    assert.equal(judge.path.by, "own");
  });

  it("goes back to the browser when too much is missing, rests, and comes again; each rest is longer", () => {
    const judge = own();
    const lossy = { ...good, received: 11_000, concealed: 1_000 };
    const from = (start: number) => {
      let now = start;
      while (judge.account(lossy, now).by === "own") now += 250;
      assert.deepEqual(judge.path, { by: "browser", why: "loss" });
      assert.ok(now - start < 5_000, `after ${now - start} ms`);
      const left = now;
      while (judge.account(good, now).by === "browser") now += 250;
      return { rest: now - left, now };
    };
    const first = from(250);
    const second = from(first.now + 250);
    assert.deepEqual([first.rest, second.rest], [30_000, 60_000]);
  });

  it("one stall is no reason", () => {
    const judge = own();
    assert.equal(judge.account({ ...good, concealed: 6_000, held: 40 }, 250).by, "own");
    for (let now = 500; now < 20_000; now += 250) assert.equal(judge.account(good, now).by, "own");
  });

  it("silence that the output put in counts as much as sound that did not come, and is named for what it is", () => {
    const stumbling = { ...good, underrun: 500 };
    const judge = own();
    let now = 250;
    while (judge.account(stumbling, now).by === "own") now += 250;
    assert.deepEqual(judge.path, { by: "browser", why: "output" });
    assert.ok(now < 5_000, `after ${now} ms`);
    const both = own();
    for (let at = 250; at < 5_000; at += 250) both.account({ ...good, concealed: 500, underrun: 200 }, at);
    assert.deepEqual(both.path, { by: "browser", why: "loss" });
    const caught = own();
    for (let at = 250; at < 5_000; at += 250) caught.account({ ...good, concealed: 250, underrun: 200 }, at);
    assert.deepEqual(caught.path, { by: "browser", why: "output" });
    // After its rest it waits for an output that does not stumble; a little of it, which both ways have, is no reason.
    while (now < 40_000) assert.equal(judge.account(stumbling, (now += 250)).by, "browser");
    while (judge.account({ ...good, underrun: 128 }, now).by === "browser") now += 250;
    assert.ok(now < 46_000, `came again at ${now}`);
    for (let at = now + 250; at < now + 60_000; at += 250) assert.equal(judge.account({ ...good, underrun: 128 }, at).by, "own");
  });

  it("one stall of the output is no reason", () => {
    const judge = own();
    assert.equal(judge.account({ ...good, underrun: 7_000 }, 250).by, "own");
    for (let now = 500; now < 20_000; now += 250) assert.equal(judge.account(good, now).by, "own");
  });

  it("goes back when the delay is not low any more, and at once when it is broken or says nothing", () => {
    const slow = own();
    for (let now = 100; now < 2_000; now += 100) assert.equal(slow.account({ ...good, held: 200 }, now).by, "own");
    assert.deepEqual(slow.account({ ...good, held: 200 }, 2_000), { by: "browser", why: "delay" });
    const standing = own();
    for (let now = 100; now <= 2_000; now += 100) standing.account({ ...good, held: 200, underrun: now === 500 ? 5_000 : 0 }, now);
    assert.deepEqual(standing.path, { by: "browser", why: "output" });
    const broken = own();
    assert.deepEqual(broken.broken(250), { by: "browser", why: "broken" });
    assert.equal(broken.account(good, 500).by, "browser");
    const still = own();
    assert.equal(still.tick(1_000).by, "own");
    assert.deepEqual(still.tick(10_000), { by: "browser", why: "waiting" });
    for (let now = 10_000; now < 11_000; now += 100) still.account(good, now);
    assert.equal(still.path.by, "own");
  });

  it("rests once for what is broken, however often it is said", () => {
    const judge = own();
    for (let now = 250; now < 29_000; now += 250) judge.broken(now);
    let now = 29_000;
    while (judge.account(good, now).by === "browser") now += 100;
    assert.ok(now >= 30_250 && now < 32_000, `came again at ${now}`);
    const still = own();
    still.broken(250);
    still.broken(40_000);
    for (let at = 40_000; at < 100_000; at += 100) assert.deepEqual(still.account(good, at), { by: "browser", why: "broken" });
    assert.equal(still.account(good, 100_000).by, "own");
  });

  it("packets and no sound for two seconds is broken, no packets is a pause", () => {
    const nothing = { received: 0, concealed: 0, underrun: 0, held: 15, packets: 0 };
    const dead = own();
    // The worker tells twice a second.
    const packets = (now: number) => (now % 500 === 0 ? 50 : 0);
    for (let now = 100; now < 2_000; now += 100) assert.equal(dead.account({ ...nothing, packets: packets(now) }, now).by, "own");
    assert.deepEqual(dead.account({ ...nothing, packets: packets(2_000) }, 2_000), { by: "browser", why: "broken" });
    const quiet = own();
    for (let now = 100; now < 20_000; now += 100) assert.equal(quiet.account({ ...nothing, packets: now === 100 ? 50 : 0 }, now).by, "own");
  });
});

describe("underruns of the output", () => {
  const REPORT_MS = 100;
  const RATE = 48_000;
  /** Milliseconds of silence that are found, of an output whose clock is faster by `ppm` and that stood still for `still` at a time. */
  const found = ({ seconds = 60, ppm = 0, still = () => 0, late = () => 0, set = () => 0 }: { seconds?: number; ppm?: number; still?: (n: number) => number; late?: (n: number) => number; set?: (n: number) => number }) => {
    const underruns = new Underruns();
    const random = randomNumbers(5);
    let [stood, ahead] = [0, 0];
    for (let n = 0; n * REPORT_MS < seconds * 1_000; n += 1) {
      const now = n * REPORT_MS;
      stood += still(n);
      ahead += set(n);
      // Read to a millisecond.
      underruns.lead(-1e12 + Math.floor((now * ppm) / 1e6 - stood - ahead - late(n) - random()), now, Math.floor(1e12 + now + ahead));
    }
    return (underruns.samples / RATE) * 1_000;
  };

  it("are found for as long as they were, once each", () => {
    const total = found({ still: (n) => (n % 100 === 50 ? 40 : 0) });
    assert.ok(Math.abs(total - 240) <= 12, `${total} ms`);
    assert.ok(Math.abs(found({ still: (n) => (n === 300 ? 700 : 0) }) - 700) <= 2);
  });

  it("are none where the clocks differ, the thread is late within what the output holds, or the first look is a late one", () => {
    for (const ppm of [-500, 0, 500]) assert.equal(found({ ppm }), 0);
    const random = randomNumbers(9);
    assert.equal(found({ late: (n) => (n % 10 === 0 ? 0 : 30 * random()) }), 0);
    // For a whole second once.
    assert.equal(found({ late: (n) => (n >= 100 && n < 110 ? 25 : 0) }), 0);
    assert.equal(found({ late: (n) => (n < 5 ? 500 : 0) }), 0);
  });

  it("are none when the machine's clock is set, and are found again after that", () => {
    for (const ms of [20, 500, -500]) assert.equal(found({ set: (n) => (n === 305 ? ms : 0) }), 0, `${ms} ms`);
    const total = found({ set: (n) => (n === 305 ? 500 : 0), still: (n) => (n === 400 ? 700 : 0) });
    assert.ok(Math.abs(total - 700) <= 2, `${total} ms`);
  });

  it("are none when the machine slept, or when the output is another one", () => {
    assert.equal(found({ still: (n) => (n === 300 ? 3_600_000 : 0) }), 0);
    const underruns = new Underruns();
    for (let now = 0; now < 5_000; now += REPORT_MS) underruns.lead(1_000, now, now);
    underruns.restarted();
    for (let now = 5_000; now < 10_000; now += REPORT_MS) underruns.lead(0, now, now);
    assert.equal(underruns.samples, 0);
  });
});

describe("trials of decoding", () => {
  it("tell the page after the third failure in a row, and then for each trial, one in a second", () => {
    const trials = new Trials();
    assert.deepEqual([0, 10, 20, 30].map((now) => trials.failed(now)), [false, false, true, false]);
    assert.deepEqual([30, 1_019, 1_020].map((now) => trials.due(now)), [false, false, true]);
    assert.deepEqual([trials.failed(1_020), trials.due(1_030), trials.due(2_020)], [true, false, true]);
  });

  it("begin anew with the first success", () => {
    const trials = new Trials();
    for (const now of [0, 10, 20]) trials.failed(now);
    trials.succeeded();
    assert.deepEqual([30, 40].map((now) => trials.failed(now)), [false, false]);
    assert.equal(trials.due(50), true);
  });
});
