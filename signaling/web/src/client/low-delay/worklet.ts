// The audio worklet: one playout for each track, fed by the worker without a detour over the page.

import type { Plug, Report } from "./messages.ts";
import { RATE } from "./opus.ts";
import { Playout } from "./playout.ts";
import type { Sound } from "./playout.ts";

declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}
declare const currentFrame: number;
declare function registerProcessor(name: string, processor: new () => AudioWorkletProcessor): void;

const REPORT_SAMPLES = RATE / 10;

class LowDelayProcessor extends AudioWorkletProcessor {
  #playout = new Playout();
  #source: MessagePort | null = null;
  #sinceReport = 0;
  #leadMs = Number.NEGATIVE_INFINITY;

  constructor() {
    super();
    this.port.onmessage = ({ data }: MessageEvent<Plug>) => {
      this.#source?.close();
      this.#source = data.port;
      data.port.onmessage = (event: MessageEvent<Sound>) => this.#playout.push(event.data);
    };
  }

  process(_inputs: unknown, [output]: Float32Array[][]): boolean {
    const [left, right] = output ?? [];
    if (left === undefined || right === undefined) return true;
    this.#playout.render(left, right);
    this.#sinceReport += left.length;
    this.#leadMs = Math.max(this.#leadMs, ((currentFrame + left.length) / RATE) * 1_000 - Date.now());
    if (this.#sinceReport >= REPORT_SAMPLES) {
      this.#sinceReport = 0;
      const { counts, steering } = this.#playout;
      const safetyMs = (steering.safety * 1_000) / RATE;
      const report: Report = { counts, peak: this.#playout.takePeak(), safetyMs, ppm: steering.ppm, leadMs: this.#leadMs };
      this.port.postMessage(report);
      this.#leadMs = Number.NEGATIVE_INFINITY;
    }
    return true;
  }
}

registerProcessor("carillon-low-delay", LowDelayProcessor);
