// How much silence the output played because the audio thread was late, for browsers that do not say so: told from the clock of
// the output, which stands still meanwhile, beside the machine's. Pure; time is an argument. What is less than a quantum in a
// second looks like a difference of the clocks and is not counted.

import { RATE } from "./opus.ts";

/** The best lead of so long is judged: within it the audio thread was in time at least once. */
const PIECE_MS = 1_000;
/** Clocks differ by less in a piece, and are read to a millisecond. */
const BEHIND_MS_MIN = 3;
/** Somebody slept. */
const BEHIND_MS_MAX = 2_000;
/** The report in which the machine's clock was set, and the one that was under way. */
const REPORTS_OF_A_STEP = 2;

export class Underruns {
  #samples = 0;
  #best = Number.NEGATIVE_INFINITY;
  #bestBefore = Number.NEGATIVE_INFINITY;
  #reference: number | null = null;
  #until: number | null = null;
  #wallAhead: number | null = null;
  #skip = 0;

  /** Since the beginning. */
  get samples(): number {
    return Math.round(this.#samples);
  }

  /**
   * The output's clock was at best so many milliseconds ahead of the machine's since this was told last. That is a clock which can
   * be set (`Date.now`, the only one that the audio thread has), here beside `now`, which cannot.
   */
  lead(ms: number, now: number, wall: number): void {
    const ahead = wall - now;
    if (this.#wallAhead !== null && Math.abs(ahead - this.#wallAhead) >= BEHIND_MS_MIN) {
      this.restarted();
      this.#skip = REPORTS_OF_A_STEP;
    }
    this.#wallAhead = ahead;
    if (this.#skip > 0) {
      this.#skip -= 1;
      return;
    }
    this.#until ??= now + PIECE_MS;
    if (now >= this.#until) this.#judge(now);
    this.#best = Math.max(this.#best, ms);
  }

  /** The output is another one, or stood still because it was told to. */
  restarted(): void {
    this.#reference = this.#until = null;
    this.#best = this.#bestBefore = Number.NEGATIVE_INFINITY;
  }

  #judge(now: number): void {
    // Two pieces, so that one in which the thread was late all the time, and the output's own buffer helped, is none.
    const lead = Math.max(this.#best, this.#bestBefore);
    const behind = this.#reference === null ? 0 : this.#reference - lead;
    if (behind >= BEHIND_MS_MIN && behind <= BEHIND_MS_MAX) this.#samples += (behind * RATE) / 1_000;
    this.#reference = lead;
    this.#bestBefore = this.#best;
    this.#best = Number.NEGATIVE_INFINITY;
    this.#until = now + PIECE_MS;
  }
}
