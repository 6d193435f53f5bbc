// Level of the own microphone, read from its track in the page: it moves before joining and while muted it rests.

import { MeterBallistics, meterPosition } from "../client/index.ts";
import { setMeter } from "./dom.ts";

export class MicMeter {
  #element: HTMLElement;
  readonly #ballistics = new MeterBallistics();
  #context: AudioContext | null = null;
  #source: MediaStreamAudioSourceNode | null = null;
  #frame = 0;

  constructor(element: HTMLElement) {
    this.#element = element;
  }

  /** The card it belongs to was made anew. */
  moveTo(element: HTMLElement): void {
    this.#element = element;
  }

  watch(track: MediaStreamTrack | null): void {
    this.#source?.disconnect();
    cancelAnimationFrame(this.#frame);
    setMeter(this.#element, 0);
    if (track === null) return;
    this.#context ??= new AudioContext();
    void this.#context.resume();
    this.#source = this.#context.createMediaStreamSource(new MediaStream([track]));
    const analyser = this.#context.createAnalyser();
    analyser.fftSize = 1024;
    this.#source.connect(analyser);
    this.#run(analyser, new Float32Array(analyser.fftSize));
  }

  stop(): void {
    cancelAnimationFrame(this.#frame);
    void this.#context?.close();
    this.#context = null;
  }

  #run(analyser: AnalyserNode, samples: Float32Array<ArrayBuffer>): void {
    const draw = (now: number) => {
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
      setMeter(this.#element, meterPosition(this.#ballistics.push(Math.sqrt(power), now)));
      this.#frame = requestAnimationFrame(draw);
    };
    this.#frame = requestAnimationFrame(draw);
  }
}
