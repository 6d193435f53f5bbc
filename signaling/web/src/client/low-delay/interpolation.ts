// Samples between samples: a windowed sinc over 16 neighbours, in steps finer than can be heard. Pure.

/** Neighbours on each side. */
export const REACH = 8;
const TAPS = 2 * REACH;
const PHASES = 256;
const KAISER_BETA = 8;
/** One row of weights for each phase, and one more so that two rows can be mixed. */
const WEIGHTS = table();

/** The values at `position` of two rings whose length is `mask + 1`. */
export function between([left, right]: readonly [Float32Array, Float32Array], mask: number, position: number, pair: Float32Array): void {
  const whole = Math.floor(position);
  const phase = (position - whole) * PHASES;
  const row = Math.floor(phase);
  const share = phase - row;
  const first = row * TAPS;
  let [leftSum, rightSum] = [0, 0];
  for (let tap = 0; tap < TAPS; tap += 1) {
    const low = WEIGHTS[first + tap] ?? 0;
    const weight = low + share * ((WEIGHTS[first + TAPS + tap] ?? 0) - low);
    const at = (whole + tap - REACH + 1) & mask;
    leftSum += (left[at] ?? 0) * weight;
    rightSum += (right[at] ?? 0) * weight;
  }
  pair[0] = leftSum;
  pair[1] = rightSum;
}

function table(): Float32Array {
  const weights = new Float32Array((PHASES + 1) * TAPS);
  for (let row = 0; row <= PHASES; row += 1) {
    let sum = 0;
    for (let tap = 0; tap < TAPS; tap += 1) {
      const x = tap - REACH + 1 - row / PHASES;
      const weight = sinc(x) * kaiser(x / REACH);
      weights[row * TAPS + tap] = weight;
      sum += weight;
    }
    for (let tap = 0; tap < TAPS; tap += 1) weights[row * TAPS + tap] = (weights[row * TAPS + tap] ?? 0) / sum;
  }
  return weights;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function kaiser(x: number): number {
  return Math.abs(x) >= 1 ? 0 : bessel(KAISER_BETA * Math.sqrt(1 - x * x)) / bessel(KAISER_BETA);
}

function bessel(x: number): number {
  let [sum, term] = [1, 1];
  for (let k = 1; k < 40; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}
