// The worker: gets the encoded frames of program tracks before the browser's jitter buffer, passes each on to it at once, and
// decodes them for the playout.

import { Intake } from "./intake.ts";
import type { Frame } from "./intake.ts";
import type { Broken, Route, Seen, TapOptions } from "./messages.ts";
import { RATE } from "./opus.ts";
import type { Sound } from "./playout.ts";
import { Trials } from "./trials.ts";

interface Transformer {
  readable: ReadableStream<RTCEncodedAudioFrame>;
  writable: WritableStream<RTCEncodedAudioFrame>;
  options: TapOptions;
}

interface WorkerScope {
  onrtctransform: ((event: { transformer: Transformer }) => void) | null;
  onmessage: ((event: MessageEvent<Route>) => void) | null;
  postMessage(message: Broken | Seen): void;
}

const scope = globalThis as unknown as WorkerScope;
const taps = new Map<number, Tap>();
/** Between two words on the packets that came. */
const SEEN_MS = 500;
/** What a decoder has not given back by now it never will. */
const PENDING_MAX = 64;

class Tap {
  readonly #id: number;
  readonly #port: MessagePort;
  readonly red: number | null;
  readonly #intake = new Intake();
  #decoder: AudioDecoder | null = null;
  #pending: { timestamp: number; frame: Frame }[] = [];
  #decoded = 0;
  readonly #trials = new Trials();
  #packets = 0;
  #toldAt = Number.NEGATIVE_INFINITY;

  constructor({ tap, red }: Route, port: MessagePort) {
    this.#id = tap;
    this.red = red;
    this.#port = port;
  }

  take(encoded: RTCEncodedAudioFrame): void {
    this.#count(performance.now());
    const about = encoded.getMetadata();
    const frames = this.#intake.push({
      source: about.synchronizationSource ?? 0,
      sequence: about.sequenceNumber ?? 0,
      timestamp: about.rtpTimestamp ?? (encoded as { timestamp?: number }).timestamp ?? 0,
      payload: new Uint8Array(encoded.data),
      red: about.mimeType === undefined ? this.red !== null && about.payloadType === this.red : /\/red$/i.test(about.mimeType),
    });
    for (const frame of frames) this.#decode(frame);
  }

  failed(error: unknown): void {
    this.#dropDecoder();
    if (this.#trials.failed(performance.now())) scope.postMessage({ tap: this.#id, message: String(error) });
  }

  close(): void {
    this.#dropDecoder();
    this.#port.close();
  }

  #count(now: number): void {
    this.#packets += 1;
    if (now - this.#toldAt < SEEN_MS) return;
    scope.postMessage({ tap: this.#id, packets: this.#packets });
    this.#packets = 0;
    this.#toldAt = now;
  }

  #decode(frame: Frame): void {
    if (!this.#trials.due(performance.now())) return;
    if (frame.data === null) return this.#give(frame, new Float32Array(frame.samples), new Float32Array(frame.samples));
    // Timestamps of their own, one behind the other: a decoder may take offence at a clock that jumps.
    const timestamp = Math.round((this.#decoded * 1e6) / RATE);
    this.#decoded += frame.samples;
    this.#pending.push({ timestamp, frame });
    if (this.#pending.length > PENDING_MAX) this.#pending.shift();
    try {
      this.#decoder ??= this.#newDecoder();
      this.#decoder.decode(new EncodedAudioChunk({ type: "key", timestamp, data: new Uint8Array(frame.data) }));
    } catch (error) {
      this.failed(error);
    }
  }

  #newDecoder(): AudioDecoder {
    const decoder: AudioDecoder = new AudioDecoder({
      output: (data) => this.#output(data),
      // One that was given up has nothing to say about the one after it.
      error: (error) => (this.#decoder === decoder ? this.failed(error) : undefined),
    });
    decoder.configure({ codec: "opus", sampleRate: RATE, numberOfChannels: 2 });
    return decoder;
  }

  #output(data: AudioData): void {
    const index = this.#pending.findIndex(({ timestamp }) => Math.abs(timestamp - data.timestamp) < 1_000);
    const found = this.#pending[index];
    this.#pending.splice(0, index + 1);
    if (found !== undefined && data.sampleRate === RATE) {
      const channel = (plane: number) => {
        const samples = new Float32Array(data.numberOfFrames);
        data.copyTo(samples, { planeIndex: Math.min(plane, data.numberOfChannels - 1), format: "f32-planar" });
        return samples;
      };
      this.#trials.succeeded();
      this.#give(found.frame, channel(0), channel(1));
    }
    data.close();
  }

  #give({ at, afterPause, restart }: Frame, left: Float32Array<ArrayBuffer>, right: Float32Array<ArrayBuffer>): void {
    const sound: Sound = { at, left, right, afterPause, restart };
    this.#port.postMessage(sound, [left.buffer, right.buffer]);
  }

  #dropDecoder(): void {
    if (this.#decoder?.state === "configured") this.#decoder.close();
    this.#decoder = null;
    this.#pending = [];
  }
}

scope.onmessage = ({ data }) => {
  taps.get(data.tap)?.close();
  taps.delete(data.tap);
  if (data.port !== null) taps.set(data.tap, new Tap(data, data.port));
};

scope.onrtctransform = ({ transformer }) => void pass(transformer).catch(() => undefined);

async function pass({ readable, writable, options }: Transformer): Promise<void> {
  const reader = readable.getReader();
  const writer = writable.getWriter();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const tap = taps.get(options.tap);
    try {
      // Ours first: what is written is no longer ours to read.
      tap?.take(value);
    } catch (error) {
      // The browser's way goes on, whatever becomes of ours.
      tap?.failed(error);
    }
    writer.write(value).catch(() => undefined);
  }
  taps.get(options.tap)?.close();
  taps.delete(options.tap);
}
