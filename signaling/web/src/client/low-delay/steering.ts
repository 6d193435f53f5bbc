// How much sound to hold back: enough for how unevenly it comes, and no more. Judges by the margins of the frames, that is how
// long before its turn each one came; the least margin of the last seconds is what could be given up. Pure; time is what was played.

import { RATE } from "./opus.ts";

const MS = RATE / 1_000;
/** Kept beyond what the last seconds needed: a machine at rest is late by this much now and then, less often than each ten seconds. */
const SAFETY_START = 12 * MS;
const SAFETY_MIN = 10 * MS;
export const SAFETY_MAX = 40 * MS;
/** A frame that came late adds half of what it was late, within these. */
const SAFETY_STEP_MIN = 2 * MS;
const SAFETY_STEP_MAX = 8 * MS;
/** Given back for each second without a late frame. */
const SAFETY_EASE = 0.1 * MS;
/** A piece of time with one least margin. */
const PIECE = RATE / 2;
const PIECES = 20;
/** More than this, during the last so many pieces, is cut out at once; less is left to the rate. */
const CUTS: readonly { pieces: number; over: number }[] = [
  { pieces: 2, over: 30 * MS },
  { pieces: 6, over: 10 * MS },
  { pieces: PIECES, over: 3 * MS },
];
/** Nobody hears a pitch that is off by this much, less than a cent. */
const PPM_MAX = 500;
const PPM_FOR_MS = 100;
/** Learns the difference of the clocks: ppm for each millisecond and piece. More spare than this is no matter of clocks. */
const LEARN = 2;
const LEARN_MS_MAX = 3;
const RATE_PIECES = 4;

export class Steering {
  /** Samples. */
  safety = SAFETY_START;
  #margins: number[] = [];
  #least = Number.POSITIVE_INFINITY;
  #played = 0;
  #learnt = 0;
  #ppm = 0;

  /** By how much faster than the output's clock to play. */
  get ppm(): number {
    return this.#ppm;
  }

  /** A frame came so many samples before its turn. */
  arrived(margin: number): void {
    this.#least = Math.min(this.#least, margin);
  }

  late(by: number): void {
    this.safety = Math.min(SAFETY_MAX, this.safety + Math.max(SAFETY_STEP_MIN, Math.min(SAFETY_STEP_MAX, by / 2)));
  }

  played(samples: number): void {
    this.#played += samples;
    if (this.#played < PIECE) return;
    this.#played -= PIECE;
    this.safety = Math.max(SAFETY_MIN, this.safety - (SAFETY_EASE * PIECE) / RATE);
    // Nothing came: nothing is known.
    if (this.#least === Number.POSITIVE_INFINITY) return;
    this.#margins.push(this.#least);
    if (this.#margins.length > PIECES) this.#margins.shift();
    this.#least = Number.POSITIVE_INFINITY;
    this.#setRate();
  }

  /** The turn of all sound was put off by so many samples, or brought forward. */
  moved(by: number): void {
    this.#margins = this.#margins.map((margin) => margin + by);
    this.#least += by;
  }

  /** Another track, of which nothing is known yet but how uneven the way is. */
  restarted(): void {
    this.#margins = [];
    this.#least = Number.POSITIVE_INFINITY;
  }

  /** Samples to be cut out now; 0 when there are too few to be worth it. */
  get excess(): number {
    for (const { pieces, over } of CUTS) {
      const spare = this.#spare(pieces);
      if (spare > over) return Math.floor(spare);
    }
    return 0;
  }

  #spare(pieces: number): number {
    if (this.#margins.length < pieces) return 0;
    return Math.min(this.#least, ...this.#margins.slice(-pieces)) - this.safety;
  }

  #setRate(): void {
    const recent = this.#margins.slice(-RATE_PIECES);
    const spare_ms = Math.max(-5, Math.min(5, (Math.min(...recent) - this.safety) / MS));
    if (Math.abs(spare_ms) <= LEARN_MS_MAX) this.#learnt = clamp(this.#learnt + LEARN * spare_ms);
    this.#ppm = clamp(this.#learnt + PPM_FOR_MS * spare_ms);
  }
}

function clamp(ppm: number): number {
  return Math.max(-PPM_MAX, Math.min(PPM_MAX, ppm));
}
