// What a piece of sound is made of: an FFT with a Blackman-Harris window (side lobes at -92 dB, so that 40 dB between two
// channels can be measured), tone levels, WAV files, alignment. Levels are dBFS of a sine's amplitude: 0 dB is full scale.
// `analyse` uses nothing outside itself because the same text runs inside the browsers.
import { readFileSync, writeFileSync } from 'node:fs';

/// Spectrum of the last power-of-two samples: the loudest tone, the level at each of `tones`, and the total level.
export function analyse(samples, rate, tones = []) {
  let size = 1;
  while (size * 2 <= Math.min(samples.length, 32768)) size *= 2;
  const start = samples.length - size;
  const re = new Float64Array(size);
  const im = new Float64Array(size);
  let gain = 0;
  let energy = 0;
  for (let i = 0; i < size; i++) {
    const x = (2 * Math.PI * i) / size;
    const w = 0.35875 - 0.48829 * Math.cos(x) + 0.14128 * Math.cos(2 * x) - 0.01168 * Math.cos(3 * x);
    re[i] = samples[start + i] * w;
    gain += w;
    energy += samples[start + i] ** 2;
  }
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [re[i], re[j]] = [re[j], re[i]];
  }
  for (let len = 2; len <= size; len <<= 1) {
    const half = len >> 1;
    for (let k = 0; k < half; k++) {
      const c = Math.cos((-2 * Math.PI * k) / len);
      const s = Math.sin((-2 * Math.PI * k) / len);
      for (let i = k; i < size; i += len) {
        const j = i + half;
        const tr = re[j] * c - im[j] * s;
        const ti = re[j] * s + im[j] * c;
        re[j] = re[i] - tr;
        im[j] = im[i] - ti;
        re[i] += tr;
        im[i] += ti;
      }
    }
  }
  const decibel = (amplitude) => Math.max(-140, 20 * Math.log10(Math.max(amplitude, 1e-9)));
  const amplitude = (bin) => (2 * Math.hypot(re[bin], im[bin])) / gain;
  // The window spreads a tone over +-4 bins; between two bins the highest one reads at most 0.8 dB low, so the power of
  // the whole main lobe is summed (2.0044 is the window's noise bandwidth in bins).
  const lobe = (bin) => {
    let power = 0;
    for (let b = Math.max(1, bin - 4); b <= Math.min(size / 2 - 1, bin + 4); b++) power += amplitude(b) ** 2;
    return Math.sqrt(power / 2.0044);
  };
  let peak = 1;
  for (let bin = 2; bin < size / 2; bin++) if (amplitude(bin) > amplitude(peak)) peak = bin;
  const levels = {};
  for (const hz of tones) levels[hz] = decibel(lobe(Math.round((hz * size) / rate)));
  return {
    rms_db: decibel(Math.sqrt(energy / size)),
    peak_hz: (peak * rate) / size,
    peak_db: decibel(lobe(peak)),
    levels,
  };
}

/// Two channels (or more) of sines into a 16-bit WAV file. Whole seconds of whole hertz loop without a click.
export function writeTone(path, { left, right = left, seconds = 2, amplitude = 0.25, rate = 48000 }) {
  const frames = seconds * rate;
  const data = Buffer.alloc(frames * 4);
  for (let i = 0; i < frames; i++) {
    data.writeInt16LE(Math.round(32767 * amplitude * Math.sin((2 * Math.PI * left * i) / rate)), i * 4);
    data.writeInt16LE(Math.round(32767 * amplitude * Math.sin((2 * Math.PI * right * i) / rate)), i * 4 + 2);
  }
  const header = Buffer.alloc(44);
  header.write('RIFF', 0);
  header.writeUInt32LE(36 + data.length, 4);
  header.write('WAVEfmt ', 8);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20);
  header.writeUInt16LE(2, 22);
  header.writeUInt32LE(rate, 24);
  header.writeUInt32LE(rate * 4, 28);
  header.writeUInt16LE(4, 32);
  header.writeUInt16LE(16, 34);
  header.write('data', 36);
  header.writeUInt32LE(data.length, 40);
  writeFileSync(path, Buffer.concat([header, data]));
  return path;
}

/// First channel of a 16-bit PCM WAV file as floats.
export function readWav(path) {
  const file = readFileSync(path);
  let channels = 1;
  let rate = 48000;
  for (let at = 12; at + 8 <= file.length; ) {
    const id = file.toString('latin1', at, at + 4);
    const size = file.readUInt32LE(at + 4);
    if (id === 'fmt ') {
      channels = file.readUInt16LE(at + 10);
      rate = file.readUInt32LE(at + 12);
    } else if (id === 'data') {
      const samples = new Float32Array(Math.floor(Math.min(size, file.length - at - 8) / (2 * channels)));
      for (let i = 0; i < samples.length; i++) samples[i] = file.readInt16LE(at + 8 + i * 2 * channels) / 32768;
      return { samples, rate };
    }
    at += 8 + size + (size & 1);
  }
  throw new Error(`${path} has no data chunk`);
}

/// Normalised correlation of `needle` with `hay` at `lag`.
export function correlation(hay, needle, lag) {
  let dot = 0;
  let a = 0;
  let b = 0;
  for (let i = 0; i < needle.length; i++) {
    const h = hay[lag + i] ?? 0;
    dot += h * needle[i];
    a += h * h;
    b += needle[i] * needle[i];
  }
  return a && b ? dot / Math.sqrt(a * b) : 0;
}

/// The lag in [from, to) at which `needle` fits `hay` best. Coarse steps on an eighth of the rate first, then exact.
export function align(hay, needle, from = 0, to = hay.length - needle.length) {
  const thin = (x, step) => {
    const out = new Float32Array(Math.floor(x.length / step));
    for (let i = 0; i < out.length; i++) for (let k = 0; k < step; k++) out[i] += x[i * step + k] / step;
    return out;
  };
  const step = 8;
  const [thinHay, thinNeedle] = [thin(hay, step), thin(needle, step)];
  let best = { lag: from, value: -1 };
  for (let lag = Math.floor(from / step); lag < to / step; lag++) {
    const value = correlation(thinHay, thinNeedle, lag);
    if (value > best.value) best = { lag: lag * step, value };
  }
  const coarse = best.lag;
  best = { lag: coarse, value: -1 };
  for (let lag = Math.max(0, coarse - 2 * step); lag <= coarse + 2 * step; lag++) {
    const value = correlation(hay, needle, lag);
    if (value > best.value) best = { lag, value };
  }
  return best;
}

/// Longest run of 10 ms windows, in ms, that are more than 20 dB below the median window: a hole in a steady tone.
export function longestHole(samples, rate) {
  const window = rate / 100;
  const power = [];
  for (let at = 0; at + window <= samples.length; at += window) {
    let sum = 0;
    for (let i = 0; i < window; i++) sum += samples[at + i] ** 2;
    power.push(sum / window);
  }
  const median = [...power].sort((a, b) => a - b)[Math.floor(power.length / 2)] ?? 0;
  let longest = 0;
  let run = 0;
  for (const p of power) {
    run = p < median / 100 ? run + 1 : 0;
    longest = Math.max(longest, run);
  }
  return { hole_ms: longest * 10, median_db: 10 * Math.log10(median + 1e-14) };
}

/// Decibels between the loudest and the quietest window of so many samples.
export function unevenness(samples, window) {
  const powers = [];
  for (let at = 0; at + window <= samples.length; at += window) {
    let sum = 0;
    for (let i = 0; i < window; i++) sum += samples[at + i] ** 2;
    powers.push(sum / window + 1e-14);
  }
  return 10 * Math.log10(Math.max(...powers) / Math.min(...powers));
}
