// What is read of Opus packets without decoding them: their length in time (RFC 6716 section 3.1), and the packets inside of
// one with redundancy (RFC 2198). Pure; whatever does not make sense gives nothing.

/** The clock of Opus in RTP, whatever a sender encodes from (RFC 7587 section 4.1). */
export const RATE = 48_000;

/** A packet of this size or less has no sound in it: the sender says "pause" (RFC 6716 section 3.2.1, RFC 7587 section 3.1.3). */
export const PAUSE_BYTES_MAX = 2;

const SAMPLES_MAX = (120 * RATE) / 1000;
const CELT = 16;
const HYBRID = 12;

/** Samples of one channel; 0 when it is no Opus packet. */
export function samplesOf(packet: Uint8Array): number {
  const toc = packet[0];
  if (toc === undefined) return 0;
  const config = toc >> 3;
  const code = toc & 3;
  const frames = code === 0 ? 1 : code < 3 ? 2 : (packet[1] ?? 0) & 0x3f;
  const samples = frames * frameSamples(config);
  return samples <= SAMPLES_MAX ? samples : 0;
}

function frameSamples(config: number): number {
  if (config >= CELT) return 120 << (config & 3);
  if (config >= HYBRID) return 480 << (config & 1);
  return (config & 3) === 3 ? 2880 : 480 << (config & 3);
}

export interface Block {
  /** How much earlier than the packet's own timestamp. */
  earlier: number;
  data: Uint8Array;
}

/** The blocks of a payload with redundancy, oldest first; null when it is malformed. */
export function unwrapRed(payload: Uint8Array): Block[] | null {
  const heads: { earlier: number; length: number }[] = [];
  let at = 0;
  for (;;) {
    const first = payload[at];
    if (first === undefined) return null;
    at += 1;
    if ((first & 0x80) === 0) break;
    const [high, middle, low] = [payload[at], payload[at + 1], payload[at + 2]];
    if (high === undefined || middle === undefined || low === undefined) return null;
    heads.push({ earlier: (high << 6) | (middle >> 2), length: ((middle & 3) << 8) | low });
    at += 3;
  }
  const blocks: Block[] = [];
  for (const { earlier, length } of heads) {
    if (at + length > payload.length) return null;
    if (length > 0) blocks.push({ earlier, data: payload.subarray(at, at + length) });
    at += length;
  }
  if (at < payload.length) blocks.push({ earlier: 0, data: payload.subarray(at) });
  return blocks.sort((a, b) => b.earlier - a.earlier);
}
