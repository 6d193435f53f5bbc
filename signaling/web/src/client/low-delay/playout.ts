// Sound of one track between its decoder and the output, on the sender's clock: what comes is put in its place, what is played
// is read at a position that goes on with the output's clock. A hole is bridged by a fade to silence and back, sound that is
// late puts the position off, sound that is held for longer than it needs to be is cut out with a cross-fade. Pure: no audio
// interface, no time of its own.

import { between, REACH } from "./interpolation.ts";
import { RATE } from "./opus.ts";
import { Steering } from "./steering.ts";

export interface Sound {
  at: number;
  left: Float32Array;
  right: Float32Array;
  afterPause: boolean;
  restart: boolean;
}

/** All in samples since the beginning. */
export interface PlayoutCounts {
  /** What came and was played or will be. */
  received: number;
  /** Put in for sound that was lost or late; a sender's pause is not. */
  concealed: number;
  /** Came too late to be of use. */
  dropped: number;
  /** Cut out to be sooner. */
  skipped: number;
  /** Sum over the received samples of how long each was held. */
  held: number;
}

const MS = RATE / 1_000;
const RING = 1 << 17;
const MASK = RING - 1;
/** Held at the start, when nothing is known of the way yet. */
const START = 25 * MS;
/** Sound that is later than this is dropped: a stall must not stay in the delay. */
const LATE_MAX = 60 * MS;
/** For so long all that came was dropped, and it is not a stall: the way has become longer. */
const DROPPING_MAX = 300 * MS;
/** Another place on the clock, not loss. Less than the ring, so that nothing is ever written over what is still to be played. */
const JUMP_MAX = RATE;
const FADE = 10 * MS;
const JOIN = 5 * MS;
/** How far around the wanted length a cut looks for a place where the sound is alike. */
const SEARCH = 5 * MS;

export class Playout {
  readonly counts: PlayoutCounts = { received: 0, concealed: 0, dropped: 0, skipped: 0, held: 0 };
  readonly steering = new Steering();
  readonly #pair = new Float32Array(2);
  readonly #rings = [new Float32Array(RING), new Float32Array(RING)] as const;
  /** Sound out of the mirror of what was last before a hole, for its beginning. */
  readonly #tails = [new Float32Array(FADE), new Float32Array(FADE)] as const;
  /** Where there is sound, ascending. */
  #pieces: { from: number; to: number }[] = [];
  #position: number | null = null;
  /** Up to here the rings are in order, with sound or what stands for it. */
  #ready = 0;
  #hole: number | null = null;
  /** Where the last sound before the newest hole ended. */
  #heardTo = Number.NEGATIVE_INFINITY;
  /** Bridged while nothing had come after it: loss, lateness or a pause. */
  #unexplained = 0;
  #pauseTo = Number.NEGATIVE_INFINITY;
  #peak = 0;
  #droppingSince: number | null = null;

  push(sound: Sound): void {
    const position = this.#position;
    if (position === null || sound.restart || Math.abs(sound.at - position) > JUMP_MAX) return this.#restart(sound);
    this.#explain(sound, position);
    const late = position - sound.at;
    this.steering.arrived(-late);
    // What comes before something that was heard already is of no use.
    if (sound.at < this.#heardTo || late > LATE_MAX || (late > 0 && this.#hole === null)) return this.#drop(sound, late);
    if (late > 0) {
      this.steering.late(late);
      this.#putOff(sound.at, position);
    }
    this.#accept(sound);
    this.#cut();
  }

  render(left: Float32Array, right: Float32Array): void {
    const position = this.#position;
    if (position === null) {
      left.fill(0);
      right.fill(0);
      return;
    }
    const step = 1 + this.steering.ppm / 1e6;
    const end = position + left.length * step;
    this.#prepare(Math.ceil(end) + REACH + 1);
    for (let n = 0; n < left.length; n += 1) {
      between(this.#rings, MASK, position + n * step, this.#pair);
      left[n] = this.#pair[0] ?? 0;
      right[n] = this.#pair[1] ?? 0;
      this.#peak = Math.max(this.#peak, Math.abs(left[n] ?? 0), Math.abs(right[n] ?? 0));
    }
    this.#position = end;
    this.steering.played(left.length);
    while (this.#pieces[0] !== undefined && this.#pieces[0].to < end - FADE) this.#pieces.shift();
  }

  /** The loudest sample since this was asked last, 0 to 1. */
  takePeak(): number {
    const peak = Math.min(1, this.#peak);
    this.#peak = 0;
    return peak;
  }

  /** Says what the bridged time was, now that something came after it. */
  #explain(sound: Sound, position: number): void {
    if (sound.afterPause) this.#pauseTo = sound.at;
    const lost = sound.afterPause ? Math.min(this.#unexplained, Math.max(0, position - sound.at)) : this.#unexplained;
    this.counts.concealed += Math.round(lost);
    this.#unexplained = 0;
  }

  #restart(sound: Sound): void {
    const from = Math.floor(this.#position ?? 0);
    if (this.#hole === null) this.#keepTail(from);
    const to = sound.at - START;
    const passed = this.#hole === null ? 0 : from - this.#hole;
    for (const ring of this.#rings) write(ring, to - REACH, read(ring, from - REACH, REACH));
    this.#pieces = [];
    this.#heardTo = Number.NEGATIVE_INFINITY;
    this.#position = to;
    this.#ready = to;
    this.#hole = to - passed;
    this.#unexplained = 0;
    this.#pauseTo = sound.at;
    this.steering.restarted();
    this.steering.arrived(START);
    this.#accept(sound);
  }

  #drop(sound: Sound, late: number): void {
    this.counts.dropped += sound.left.length;
    if (late <= LATE_MAX) return;
    const position = sound.at + late;
    this.#droppingSince ??= position;
    if (position - this.#droppingSince > DROPPING_MAX) this.#restart(sound);
  }

  /** Goes back to a little before `at`, where nothing is heard meanwhile. */
  #putOff(at: number, position: number): void {
    const wait = Math.round(this.steering.safety);
    const from = Math.floor(position);
    const to = at - wait;
    const by = from - to;
    for (const ring of this.#rings) write(ring, to - REACH, read(ring, from - REACH, REACH));
    this.#pieces = this.#pieces.filter((piece) => piece.from >= at);
    this.#hole = (this.#hole ?? from) - by;
    this.#ready = to;
    this.#position = position - by;
    this.steering.moved(by);
  }

  #accept(sound: Sound): void {
    const length = sound.left.length;
    const position = this.#position ?? sound.at;
    this.#droppingSince = null;
    this.counts.received += length;
    this.counts.held += (sound.at - position + length / 2) * length;
    write(this.#rings[0], sound.at, sound.left);
    write(this.#rings[1], sound.at, sound.right);
    this.#note(sound.at, sound.at + length);
    if (this.#hole !== null && this.#ready >= sound.at) this.#join(sound.at);
  }

  #note(from: number, to: number): void {
    const rest = this.#pieces.filter((piece) => piece.to < from || piece.from > to);
    const touching = this.#pieces.filter((piece) => piece.to >= from && piece.from <= to);
    const whole = touching.reduce((sum, piece) => ({ from: Math.min(sum.from, piece.from), to: Math.max(sum.to, piece.to) }), { from, to });
    this.#pieces = [...rest, whole].sort((a, b) => a.from - b.from);
  }

  /** Brings the rings in order up to `end`. */
  #prepare(end: number): void {
    while (this.#ready < end) {
      const next = this.#pieces.find(({ to }) => to > this.#ready);
      if (next !== undefined && next.from <= this.#ready) {
        this.#ready = Math.min(end, next.to);
        continue;
      }
      const until = Math.min(end, next?.from ?? end);
      this.#bridge(until, next !== undefined);
      if (until === next?.from) this.#join(until);
    }
  }

  #bridge(until: number, known: boolean): void {
    const from = this.#ready;
    if (this.#hole === null) {
      this.#keepTail(from);
      this.#hole = this.#heardTo = from;
    }
    for (let n = from; n < until; n += 1) {
      this.#rings.forEach((ring, channel) => (ring[n & MASK] = this.#tail(channel, n - (this.#hole ?? from))));
    }
    if (!known) this.#unexplained += until - from;
    else if (until > this.#pauseTo) this.counts.concealed += until - from;
    this.#ready = until;
  }

  /** Sound begins at `at` after a hole: it comes in while what stood for it goes out. */
  #join(at: number): void {
    const hole = this.#hole ?? at;
    this.#rings.forEach((ring, channel) => {
      for (let n = 0; n < JOIN; n += 1) {
        const share = rise(n / JOIN);
        ring[(at + n) & MASK] = (ring[(at + n) & MASK] ?? 0) * share + this.#tail(channel, at + n - hole) * (1 - share);
      }
    });
    this.#hole = null;
  }

  #keepTail(hole: number): void {
    this.#rings.forEach((ring, channel) => {
      for (let n = 0; n < FADE; n += 1) this.#tails[channel as 0 | 1][n] = (ring[(hole - 1 - n) & MASK] ?? 0) * (1 - rise(n / FADE));
    });
  }

  #tail(channel: number, n: number): number {
    return this.#tails[channel as 0 | 1][n] ?? 0;
  }

  /** Jumps over what is held for nothing, where the sound is most alike on both sides. */
  #cut(): void {
    const position = this.#position;
    const excess = this.steering.excess;
    if (position === null || excess < MS || this.#hole !== null) return;
    const from = Math.floor(position);
    const piece = this.#pieces.find((one) => one.from <= from && one.to >= from + excess + JOIN + REACH);
    if (piece === undefined) return;
    const by = this.#alike(from, excess);
    for (const ring of this.#rings) {
      // A copy: what is written may reach into what is read.
      const old = read(ring, from - REACH, REACH + JOIN);
      for (let n = -REACH; n < JOIN; n += 1) {
        const share = rise(Math.max(0, n / JOIN));
        ring[(from + by + n) & MASK] = (old[REACH + n] ?? 0) * (1 - share) + (ring[(from + by + n) & MASK] ?? 0) * share;
      }
    }
    this.#position = position + by;
    this.#ready = Math.max(this.#ready, from + by);
    this.counts.skipped += by;
    this.steering.moved(-by);
  }

  #alike(from: number, excess: number): number {
    const ring = this.#rings[0];
    let best = { by: excess, value: Number.NEGATIVE_INFINITY };
    for (let by = Math.max(MS, excess - SEARCH); by <= excess; by += 1) {
      let [product, energy] = [0, 1e-9];
      for (let n = 0; n < JOIN; n += 2) {
        const there = ring[(from + by + n) & MASK] ?? 0;
        product += (ring[(from + n) & MASK] ?? 0) * there;
        energy += there * there;
      }
      const value = product / Math.sqrt(energy);
      if (value > best.value) best = { by, value };
    }
    return best.by;
  }
}

/** From 0 to 1, without a corner at either end. */
function rise(share: number): number {
  return 0.5 - 0.5 * Math.cos(Math.PI * Math.min(1, share));
}

function write(ring: Float32Array, at: number, samples: Float32Array): void {
  for (let n = 0; n < samples.length; n += 1) ring[(at + n) & MASK] = samples[n] ?? 0;
}

function read(ring: Float32Array, at: number, length: number): Float32Array {
  return Float32Array.from({ length }, (_, n) => ring[(at + n) & MASK] ?? 0);
}
