// From the packets of one track to the frames that are decoded: redundant copies in place of what was lost, nothing twice,
// the sender's pauses told from loss, and a new beginning when the sender or its clock is another. Pure; it holds nothing back,
// so a packet that was overtaken is decoded out of its turn, which for a moment sounds a little wrong and not like a hole.

import { PAUSE_BYTES_MAX, RATE, samplesOf, unwrapRed } from "./opus.ts";

export interface Packet {
  source: number;
  sequence: number;
  timestamp: number;
  payload: Uint8Array;
  red: boolean;
}

export interface Frame {
  /** On the sender's clock, counted on over the turns of the RTP timestamp. */
  at: number;
  samples: number;
  /** Null: a pause. */
  data: Uint8Array | null;
  /** The sender left out all that is between the frame before and this one. */
  afterPause: boolean;
  /** What comes now has nothing to do with what came before. */
  restart: boolean;
}

/** A copy of what is longer ago than this would come too late. */
const OLD_MAX = 0.1 * RATE;
/** Beyond this it is another clock and no loss. */
const JUMP_MAX = 10 * RATE;
const SEQUENCE_JUMP_MAX = 3_000;
/** Frames of 2.5 ms within `OLD_MAX`, and some. */
const SEEN_MAX = 64;

export class Intake {
  #source: number | null = null;
  #sequence = 0;
  /** Of the first packet: what is older belongs to a time before. */
  #first = 0;
  #newest = 0;
  #newestEnd = 0;
  #seen: number[] = [];

  push(packet: Packet): Frame[] {
    const blocks = packet.red ? unwrapRed(packet.payload) : [{ earlier: 0, data: packet.payload }];
    if (blocks === null) return [];
    let step = turned(packet.sequence - this.#sequence, 16);
    const ahead = turned(packet.timestamp - this.#newest, 32);
    let restart = packet.source !== this.#source || Math.abs(ahead) > JUMP_MAX || Math.abs(step) > SEQUENCE_JUMP_MAX;
    if (restart) {
      this.#source = packet.source;
      this.#seen = [];
      this.#first = this.#newest = packet.timestamp;
      this.#newestEnd = Number.NEGATIVE_INFINITY;
      step = 1;
    }
    const own = restart ? packet.timestamp : this.#newest + ahead;
    const frames: Frame[] = [];
    for (const { earlier, data } of blocks) {
      const at = own - earlier;
      const samples = samplesOf(data);
      if (samples === 0 || at < Math.max(this.#first, this.#newest - OLD_MAX) || this.#seen.includes(at)) continue;
      const afterPause = step === 1 && !restart && at > this.#newestEnd;
      frames.push({ at, samples, data: data.length <= PAUSE_BYTES_MAX ? null : data, afterPause, restart });
      restart = false;
      this.#remember(at, samples);
    }
    if (step > 0) this.#sequence = packet.sequence;
    return frames;
  }

  #remember(at: number, samples: number): void {
    this.#seen.push(at);
    if (this.#seen.length > SEEN_MAX) this.#seen.shift();
    this.#newest = Math.max(this.#newest, at);
    this.#newestEnd = Math.max(this.#newestEnd, at + samples);
  }
}

/** A difference of counters of so many bits, as the shorter way around. */
function turned(difference: number, bits: number): number {
  const turn = 2 ** bits;
  const rest = ((difference % turn) + turn) % turn;
  return rest >= turn / 2 ? rest - turn : rest;
}
