// Sound levels as meters show them. Pure arithmetic.

/** Quieter than this is an empty meter. */
const FLOOR_DB = -60;
/** A meter falls this much a second, so that syllables do not flicker. */
const RELEASE_DB_PER_S = 60;
/** Louder than this counts as speaking. */
export const SPEAKING_DB = -45;

/** `level` is linear, 0 to 1, as `audioLevel` of the browsers. */
export function toDecibel(level: number): number {
  return level <= 0 ? FLOOR_DB : Math.max(FLOOR_DB, Math.min(0, 20 * Math.log10(level)));
}

/** Position of a meter, 0 to 1. */
export function meterPosition(decibel: number): number {
  return Math.max(0, Math.min(1, 1 - decibel / FLOOR_DB));
}

/** Rises at once and falls slowly. */
export class MeterBallistics {
  #decibel = FLOOR_DB;
  #at = 0;

  push(level: number, now: number): number {
    const fallen = this.#decibel - (RELEASE_DB_PER_S * Math.max(0, now - this.#at)) / 1_000;
    this.#at = now;
    this.#decibel = Math.max(FLOOR_DB, fallen, toDecibel(level));
    return this.#decibel;
  }
}
