// Listening to program sound with little delay: a decoder and a jitter buffer of our own in place of the browser's, which goes
// on all the while, unheard, and takes over again whenever our way cannot serve. Here are the browser's parts of it; what
// decides is in `judge.ts` and `playout.ts`.

import type { Receiver } from "../media.ts";
import { Judge } from "./judge.ts";
import type { BrowserReason, Path } from "./judge.ts";
import type { Broken, Plug, Report, Route, Seen, TapOptions } from "./messages.ts";
import { RATE } from "./opus.ts";
import { Underruns } from "./underruns.ts";

/** Where the two scripts are; a bundler gives them other names. */
export interface LowDelayScripts {
  worker: string | URL;
  worklet: string | URL;
}

/** How one program slot is listened to. Counts are samples since our way began with it. */
export interface LowDelayTrack {
  mid: string;
  path: "own" | "browser";
  /** Why the browser plays. */
  why: BrowserReason | null;
  /** Packets came within the last two seconds. */
  live: boolean;
  received: number;
  concealed: number;
  /** Silence that the output played because the audio thread was late; the same for all tracks of a page. */
  underrun: number;
  dropped: number;
  skipped: number;
  /** Mean time between decoder and output since the last report. */
  heldMs: number;
  /** Sum over the samples, in seconds, as `jitterBufferDelay` of the browser's statistics. */
  heldSum: number;
  ppm: number;
}

export interface LowDelayHooks {
  /** How much of a slot is to be heard through its element, 0 or 1; the change takes `CROSS_FADE_MS`. */
  share(mid: string, share: number): void;
  changed(): void;
  /** It cannot go on: the worker, which all frames go through, does not run, or the output is another one. */
  failed(): void;
}

export const CROSS_FADE_MS = 60;
/** The least that the output can do: what a late quantum costs is heard, what is held back for nothing is not wanted. */
const LATENCY_HINT = 0;
const TICK_MS = 1_000;
const LIVE_MS = 2_000;
const NO_COUNTS = { received: 0, concealed: 0, dropped: 0, skipped: 0, held: 0 };

/** What an `AudioContext` tells of its output, where it does (Chromium, once a second). */
interface PlaybackStats {
  /** Seconds. */
  readonly underrunDuration: number;
}

interface Line {
  tap: number;
  judge: Judge;
  path: Path;
  node: AudioWorkletNode;
  gain: GainNode;
  volume: number;
  /** What is heard now. */
  own: boolean;
  report: Report;
  heldMs: number;
  /** Samples, and what the output had counted at the last report. */
  underrun: number;
  underrunSeen: number;
  /** Since the report before. */
  packets: number;
  packetsAt: number;
  /** As it was told last. */
  live: boolean;
}

/**
 * Whether this browser has all that it takes; it has not on a page without a secure origin. Some can only play to the default
 * output this way.
 */
export function canLowDelay(outputDevice = ""): boolean {
  if (typeof RTCRtpScriptTransform !== "function" || typeof AudioDecoder !== "function") return false;
  return typeof AudioWorkletNode === "function" && (outputDevice === "" || "setSinkId" in AudioContext.prototype);
}

export class LowDelay {
  readonly #scripts: LowDelayScripts;
  readonly #hooks: LowDelayHooks;
  readonly #lines = new Map<string, Line>();
  readonly #taps = new WeakMap<RTCRtpReceiver, number>();
  #tapsMade = 0;
  #worker: Worker | null = null;
  #context: AudioContext | null = null;
  #underruns = new Underruns();
  #ready: Promise<void> | null = null;
  #timer: ReturnType<typeof setInterval> | undefined;
  #sink = "";

  constructor(scripts: LowDelayScripts | undefined, hooks: LowDelayHooks) {
    this.#scripts = scripts ?? {
      worker: new URL(/* @vite-ignore */ "./worker.js", import.meta.url),
      worklet: new URL(/* @vite-ignore */ "./worklet.js", import.meta.url),
    };
    this.#hooks = hooks;
  }

  tracks(): LowDelayTrack[] {
    const now = performance.now();
    return [...this.#lines].map(([mid, line]) => {
      const { judge, report, heldMs, underrun } = line;
      const { held, ...counts } = report.counts;
      const path = judge.path;
      return { mid, path: path.by, why: path.by === "own" ? null : path.why, live: isLive(line, now), ...counts, underrun, heldMs, heldSum: held / RATE, ppm: report.ppm };
    });
  }

  /** For a receiver that was made this moment: Chromium takes no transform later on. */
  tap(receiver: RTCRtpReceiver): void {
    this.#worker ??= this.#newWorker();
    this.#tapsMade += 1;
    this.#taps.set(receiver, this.#tapsMade);
    const options: TapOptions = { tap: this.#tapsMade };
    receiver.transform = new RTCRtpScriptTransform(this.#worker, options);
  }

  /** The receivers of a connection that stands: those that were tapped are played. Does not fail but by `failed`. */
  async attach(receivers: readonly Receiver[]): Promise<void> {
    const tapped = receivers.filter(({ receiver }) => this.#taps.has(receiver));
    if (tapped.length === 0) return;
    this.#ready ??= this.#open();
    const context = this.#context;
    try {
      await this.#ready;
      // Stopped meanwhile, and perhaps begun again.
      if (context === null || context !== this.#context) return;
      for (const receiver of tapped) this.#plug(context, receiver);
    } catch {
      if (context !== this.#context) return;
      this.stop();
      this.#hooks.failed();
    }
  }

  /** Of what is played our way, 0 to 1; null: the browser plays. Its own level is none while its element is silent. */
  level(mid: string): number | null {
    const line = this.#lines.get(mid);
    return line?.own === true ? line.report.peak : null;
  }

  setVolume(mid: string, volume: number): void {
    const line = this.#lines.get(mid);
    if (line === undefined || line.volume === volume) return;
    line.volume = volume;
    this.#ramp(line);
  }

  /** Where it cannot be chosen for our way, the browser's goes on at the chosen device. */
  async setOutputDevice(deviceId: string): Promise<void> {
    if (deviceId === this.#sink) return;
    this.#sink = deviceId;
    await this.#applySink();
  }

  /** To be called from a click or key when the browser refused to play. */
  async resume(): Promise<void> {
    if (this.#context?.state === "suspended") await this.#context.resume().catch(() => undefined);
  }

  /** The browser plays everything again. The worker stays: frames go through it as long as their connection lives. */
  stop(): void {
    clearInterval(this.#timer);
    const context = this.#context;
    for (const [mid, line] of this.#lines) {
      this.#hooks.share(mid, 1);
      line.gain.gain.setTargetAtTime(0, line.gain.context.currentTime, CROSS_FADE_MS / 3_000);
      this.#unplug(line);
    }
    this.#lines.clear();
    this.#context = this.#ready = null;
    // The cross-fade needs it for a moment.
    setTimeout(() => void context?.close().catch(() => undefined), 2 * CROSS_FADE_MS);
  }

  /** After the last connection was closed. */
  end(): void {
    this.stop();
    this.#worker?.terminate();
    this.#worker = null;
  }

  async #open(): Promise<void> {
    const context = new AudioContext({ latencyHint: LATENCY_HINT, sampleRate: RATE });
    this.#context = context;
    this.#underruns = new Underruns();
    context.onstatechange = () => this.#underruns.restarted();
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    await context.audioWorklet.addModule(this.#scripts.worklet);
    if (this.#sink !== "") await this.#applySink();
  }

  async #applySink(): Promise<void> {
    const context = this.#context as (AudioContext & { setSinkId?: (id: string) => Promise<void> }) | null;
    if (context === null) return;
    try {
      if (context.setSinkId === undefined) throw new DOMException("no choice of output here", "NotSupportedError");
      await context.setSinkId(this.#sink);
      this.#underruns.restarted();
    } catch {
      this.#hooks.failed();
    }
  }

  #newWorker(): Worker {
    const worker = new Worker(this.#scripts.worker, { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Broken | Seen>) => {
      for (const [mid, line] of this.#lines) if (line.tap === data.tap) this.#heard(mid, line, data);
    };
    worker.onerror = () => {
      // One whose script did not load does not say so again: the frames of whoever is given to it would go nowhere.
      worker.terminate();
      if (this.#worker === worker) this.#worker = null;
      this.#hooks.failed();
    };
    return worker;
  }

  #heard(mid: string, line: Line, told: Broken | Seen): void {
    const now = performance.now();
    if ("message" in told) return this.#take(mid, line, line.judge.broken(now));
    line.packets += told.packets;
    line.packetsAt = now;
  }

  #plug(context: AudioContext, { mid, receiver }: Receiver): void {
    const tap = this.#taps.get(receiver) ?? 0;
    const line = this.#lines.get(mid) ?? this.#newLine(context, mid);
    if (line.tap === tap) return;
    this.#unplug(line);
    line.tap = tap;
    const { port1, port2 } = new MessageChannel();
    const red = receiver.getParameters().codecs.find(({ mimeType }) => /\/red$/i.test(mimeType))?.payloadType ?? null;
    const route: Route = { tap, port: port1, red };
    const plug: Plug = { port: port2 };
    this.#worker?.postMessage(route, [port1]);
    line.node.port.postMessage(plug, [port2]);
  }

  /** Frames of its tap are only passed on from now. */
  #unplug(line: Line): void {
    this.#worker?.postMessage({ tap: line.tap, port: null, red: null } satisfies Route);
  }

  #newLine(context: AudioContext, mid: string): Line {
    const node = new AudioWorkletNode(context, "carillon-low-delay", { numberOfInputs: 0, outputChannelCount: [2] });
    const gain = new GainNode(context, { gain: 0 });
    node.connect(gain).connect(context.destination);
    const report: Report = { counts: NO_COUNTS, peak: 0, safetyMs: 0, ppm: 0, leadMs: 0 };
    const underruns = { underrun: 0, underrunSeen: this.#underrun(context) };
    const judge = new Judge();
    const packets = { packets: 0, packetsAt: Number.NEGATIVE_INFINITY, live: false };
    const line: Line = { tap: 0, judge, path: judge.path, node, gain, volume: 1, own: false, report, heldMs: 0, ...underruns, ...packets };
    node.port.onmessage = ({ data }: MessageEvent<Report>) => this.#reported(mid, line, data);
    node.onprocessorerror = () => this.#take(mid, line, line.judge.broken(performance.now()));
    this.#lines.set(mid, line);
    return line;
  }

  #reported(mid: string, line: Line, report: Report): void {
    const before = line.report.counts;
    const received = report.counts.received - before.received;
    if (received > 0) line.heldMs = ((report.counts.held - before.held) / received / RATE) * 1_000;
    line.report = report;
    const { packets } = line;
    line.packets = 0;
    const context = this.#context;
    if (context?.state !== "running" || this.#lines.get(mid) !== line) return;
    const now = performance.now();
    this.#underruns.lead(report.leadMs, now, Date.now());
    const underrun = this.#underrun(context);
    // Another output may begin to count anew.
    const missed = Math.max(0, underrun - line.underrunSeen);
    line.underrun += missed;
    line.underrunSeen = underrun;
    const concealed = report.counts.concealed - before.concealed;
    this.#take(mid, line, line.judge.account({ received, concealed, underrun: missed, held: line.heldMs, packets }, now));
  }

  /** Samples, since some beginning. */
  #underrun(context: AudioContext): number {
    const seconds = (context as { playbackStats?: PlaybackStats }).playbackStats?.underrunDuration;
    return seconds === undefined ? this.#underruns.samples : Math.round(seconds * RATE);
  }

  #tick(): void {
    const now = performance.now();
    for (const [mid, line] of this.#lines) {
      this.#take(mid, line, line.judge.tick(now));
      const live = isLive(line, now);
      if (live === line.live) continue;
      line.live = live;
      this.#hooks.changed();
    }
  }

  #take(mid: string, line: Line, path: Path): void {
    if (path === line.path) return;
    line.path = path;
    const own = path.by === "own";
    if (own !== line.own) {
      line.own = own;
      this.#hooks.share(mid, own ? 0 : 1);
      this.#ramp(line);
    }
    this.#hooks.changed();
  }

  #ramp(line: Line): void {
    const target = line.judge.path.by === "own" ? line.volume : 0;
    const { gain, context } = line.gain;
    gain.cancelScheduledValues(context.currentTime);
    gain.setTargetAtTime(target, context.currentTime, CROSS_FADE_MS / 3_000);
  }
}

function isLive({ packetsAt }: Line, now: number): boolean {
  return now - packetsAt < LIVE_MS;
}
