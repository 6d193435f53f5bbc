// Delays between attempts: doubling with jitter up to a ceiling, for ever. Randomness is an argument.

export interface BackoffSettings {
  firstMs: number;
  maxMs: number;
}

export class Backoff {
  readonly #settings: BackoffSettings;
  readonly #random: () => number;
  #attempts = 0;

  constructor(settings: BackoffSettings, random: () => number) {
    this.#settings = settings;
    this.#random = random;
  }

  get attempts(): number {
    return this.#attempts;
  }

  /** Between half of the step and the whole step, so that a thousand clients of one lost server do not come back at once. */
  nextMs(): number {
    // The exponent is bounded because 2 ** 1024 is Infinity, and Infinity * 0 no number.
    const step = Math.min(this.#settings.maxMs, this.#settings.firstMs * 2 ** Math.min(this.#attempts, 30));
    this.#attempts += 1;
    return Math.round(step / 2 + (step / 2) * this.#random());
  }

  reset(): void {
    this.#attempts = 0;
  }
}
