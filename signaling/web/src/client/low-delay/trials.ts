// Decides for one track whether decoding is still tried: decoders that fail one after the other are not made for each packet.
// Pure; time is an argument.

/** Failures, one after the other, until the page is told. */
export const FAILURES_MAX = 3;
/** Between two trials from then on. */
export const TRIAL_MS = 1_000;

export class Trials {
  #failures = 0;
  #nextAt = Number.NEGATIVE_INFINITY;

  due(now: number): boolean {
    return now >= this.#nextAt;
  }

  succeeded(): void {
    this.#failures = 0;
    this.#nextAt = Number.NEGATIVE_INFINITY;
  }

  /** Whether the page is to be told: once for each trial. */
  failed(now: number): boolean {
    if (!this.due(now)) return false;
    this.#failures += 1;
    if (this.#failures < FAILURES_MAX) return false;
    this.#nextAt = now + TRIAL_MS;
    return true;
  }
}
