import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RATE } from "../src/client/low-delay/opus.ts";
import { Playout } from "../src/client/low-delay/playout.ts";
import { randomNumbers } from "./random.ts";

const QUANTUM = 128;
const MS = RATE / 1_000;
const FRAME = 10 * MS;
const AMPLITUDE = 0.25;
/** 440 Hz: eleven turns. */
const TONE = Float32Array.from({ length: 1_200 }, (_, n) => AMPLITUDE * Math.sin((2 * Math.PI * 11 * n) / 1_200));

interface World {
  seconds: number;
  /** Milliseconds that this frame takes beyond the shortest way; null: lost. */
  way?: (frame: number) => number | null;
  /** Frames that the sender leaves out. */
  pause?: (frame: number) => boolean;
  /** What the sender's clock is faster by. */
  ppm?: number;
  /** Timestamp of a frame, where it is not the sum of the frames before. */
  at?: (frame: number) => number;
  source?: (frame: number) => number;
  /** Where in the sound to listen: everything by default. */
  heed?: (second: number) => boolean;
}

interface Heard {
  playout: Playout;
  /** Largest step of the output between two samples. A tone of this amplitude makes at most 0.0145. */
  step: number;
  /** Of ten a second: how long the newest frame was held, in ms. */
  held: number[];
  /** Level of each tenth of a second, in dB below the tone. */
  levels: number[];
}

/** Plays a tone through a way of which everything is known, in virtual time. */
function listen({ seconds, way = () => 0, pause = () => false, ppm = 0, at = (n) => n * FRAME, source = () => 0, heed = () => true }: World): Heard {
  const playout = new Playout();
  const arrivals: { time: number; frame: number }[] = [];
  const frames = Math.floor((seconds * RATE) / FRAME);
  for (let frame = 0; frame < frames; frame += 1) {
    const ms = pause(frame) ? null : way(frame);
    if (ms !== null) arrivals.push({ time: ((frame + 1) * FRAME) / (1 + ppm / 1e6) + ms * MS, frame });
  }
  arrivals.sort((a, b) => a.time - b.time);
  const [left, right] = [new Float32Array(QUANTUM), new Float32Array(QUANTUM)];
  const heard: Heard = { playout, step: 0, held: [], levels: [] };
  let [next, last, energy, previous] = [0, 0, 0, -1];
  let before = { received: 0, held: 0 };
  for (let time = 0; time < seconds * RATE; time += QUANTUM) {
    for (let arrival = arrivals[next]; arrival !== undefined && arrival.time <= time; arrival = arrivals[next]) {
      next += 1;
      const { frame } = arrival;
      const samples = new Float32Array(FRAME);
      for (let n = 0; n < FRAME; n += 1) samples[n] = TONE[(frame * FRAME + n) % TONE.length] ?? 0;
      const restart = source(frame) !== source(Math.max(0, previous));
      playout.push({ at: at(frame), left: samples, right: samples.slice(), afterPause: frame > 0 && pause(frame - 1), restart });
      previous = frame;
    }
    playout.render(left, right);
    const second = time / RATE;
    for (const sample of left) {
      if (heed(second)) heard.step = Math.max(heard.step, Math.abs(sample - last));
      last = sample;
      energy += sample * sample;
    }
    if (Math.floor((time + QUANTUM) / 4_800) > Math.floor(time / 4_800)) {
      heard.levels.push(10 * Math.log10(energy / 4_800 / (AMPLITUDE ** 2 / 2) + 1e-9));
      const { received, held } = playout.counts;
      heard.held.push(received > before.received ? (held - before.held) / (received - before.received) / MS : Number.NaN);
      before = { received, held };
      energy = 0;
    }
  }
  assert.ok(Number.isFinite(last));
  assert.deepEqual([...left], [...right]);
  return heard;
}

const most = (held: readonly number[]) => Math.max(...held.filter((ms) => !Number.isNaN(ms)));

/** Neither click nor corner: twice what the tone itself does. */
const STEP_MAX = 0.03;

describe("playout", () => {
  it("holds an even sound for little and conceals nothing", () => {
    const { playout, step, held, levels } = listen({ seconds: 30 });
    assert.equal(playout.counts.concealed, 0);
    assert.ok(Math.abs(playout.takePeak() - AMPLITUDE) < 0.02);
    assert.equal(playout.takePeak(), 0);
    assert.ok(step < STEP_MAX, `step ${step}`);
    // Half a frame, a quantum of the output, and what is kept for safety.
    assert.ok(most(held.slice(-50)) < 22, `held ${held.slice(-5)}`);
    assert.ok(Math.max(...levels.slice(5).map(Math.abs)) < 0.2, `levels ${levels.slice(5, 10)}`);
  });

  it("takes up what jitter there is and not much more", () => {
    const random = randomNumbers(1);
    const { playout, held, step } = listen({ seconds: 60, way: () => 30 * random() });
    const { received, concealed } = playout.counts;
    assert.ok(concealed / received < 0.01, `${concealed} of ${received}`);
    assert.ok(most(held.slice(-50)) < 65, `held ${held.slice(-5)}`);
    assert.ok(step < STEP_MAX, `step ${step}`);
  });

  for (const ppm of [-300, 300]) {
    it(`follows a clock that is off by ${ppm} ppm for ten minutes`, () => {
      const { playout, held, step } = listen({ seconds: 600, ppm });
      assert.ok(playout.counts.concealed <= 0.02 * RATE, `${playout.counts.concealed} concealed`);
      assert.ok(most(held.slice(300)) < 27, `held ${most(held.slice(300))}`);
      assert.ok(step < STEP_MAX, `step ${step}`);
      assert.ok(Math.abs(playout.steering.ppm - ppm) < 150, `steers ${playout.steering.ppm}`);
    });
  }

  it("bridges a lost frame without a click, and counts it", () => {
    const { playout, step } = listen({ seconds: 20, way: (n) => (n > 500 && n % 50 === 0 ? null : 0) });
    const lost = 29;
    assert.ok(Math.abs(playout.counts.concealed - lost * FRAME) <= FRAME, `${playout.counts.concealed}`);
    assert.ok(step < STEP_MAX, `step ${step}`);
  });

  it("plays what was overtaken in its place, once it knows of it", () => {
    const { playout, step } = listen({ seconds: 60, way: (n) => (n % 100 === 0 ? 25 : 0) });
    // The first ones come too late; then a little more is held.
    assert.ok(playout.counts.concealed < 0.3 * RATE, `${playout.counts.concealed}`);
    assert.ok(playout.counts.dropped < 0.1 * RATE, `${playout.counts.dropped} dropped`);
    assert.ok(step < STEP_MAX, `step ${step}`);
  });

  it("a stall does not stay in the delay", () => {
    // Half a second in which nothing comes, and then everything at once.
    const { playout, held, step } = listen({ seconds: 40, way: (n) => (n >= 1_000 && n < 1_050 ? (1_050 - n) * 10 : 0) });
    assert.ok(playout.counts.concealed > 0.4 * RATE, `${playout.counts.concealed}`);
    const calm = most(held.slice(80, 99));
    const after = most(held.slice(125, 135));
    assert.ok(after < calm + 30, `two seconds later ${after} after ${calm}`);
    assert.ok(most(held.slice(300)) < calm + 10, `${held.slice(300, 303)} after ${calm}`);
    assert.ok(step < STEP_MAX, `step ${step}`);
  });

  it("a longer way is followed, and a shorter one again", () => {
    const { playout, held, step } = listen({ seconds: 60, way: (n) => (n > 1_000 && n < 3_000 ? 200 : 0) });
    assert.ok(most(held.slice(150, 290)) < 60, `held ${held.slice(150, 155)}`);
    assert.ok(most(held.slice(450)) < 35, `held ${held.slice(450, 455)}`);
    assert.ok(playout.counts.concealed < RATE, `${playout.counts.concealed}`);
    assert.ok(step < STEP_MAX, `step ${step}`);
  });

  it("a sender's pause is silence and not loss", () => {
    const pause = (n: number) => n % 300 >= 200 && n % 40 !== 0;
    const { playout, step, levels } = listen({ seconds: 30, pause });
    assert.equal(playout.counts.concealed, 0);
    assert.ok(step < STEP_MAX, `step ${step}`);
    assert.ok(Math.min(...levels) < -40);
    assert.ok(Math.abs(levels[5] ?? 0) < 0.2);
  });

  it("goes on after another clock or another sender, without a click", () => {
    for (const world of [
      { at: (n: number) => n * FRAME + (n > 500 ? 7_000_000 : 0) },
      { at: (n: number) => n * FRAME - (n > 500 ? 7_000_000 : 0) },
      { source: (n: number) => (n > 500 ? 1 : 0), at: (n: number) => n * FRAME + (n > 500 ? 300 : 0) },
    ]) {
      const { step, levels, held } = listen({ seconds: 20, ...world });
      assert.ok(step < STEP_MAX, `step ${step}`);
      assert.ok(Math.abs(levels[60] ?? -99) < 0.3 && Math.abs(levels.at(-1) ?? -99) < 0.3, `levels ${levels.slice(45, 62)}`);
      assert.ok(most(held.slice(-20)) < 40);
    }
  });

  it("loss, jitter, reordering and stalls together never click, and never more than half a second is held", () => {
    for (let seed = 1; seed <= 5; seed += 1) {
      const random = randomNumbers(seed);
      const { step, held } = listen({
        seconds: 60,
        way: (n) => (random() < 0.05 ? null : 80 * random() ** 3 + (n % 1_300 > 1_270 ? (1_300 - (n % 1_300)) * 10 : 0)),
        ppm: 200 * (random() - 0.5),
      });
      assert.ok(step < 2 * STEP_MAX, `seed ${seed}: step ${step}`);
      assert.ok(most(held) < 500, `seed ${seed}: held ${most(held)}`);
    }
  });
});
