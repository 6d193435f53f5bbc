// What the page, the worker and the worklet say to each other.

import type { PlayoutCounts } from "./playout.ts";

/** With the transform of a receiver, so that its frames are known by a name. */
export interface TapOptions {
  tap: number;
}

/** Page to worker: decode this tap's frames into `port`, or (null) only pass them on. */
export interface Route {
  tap: number;
  port: MessagePort | null;
  /** Payload type of packets with redundancy, for browsers that do not name the codec of a frame. */
  red: number | null;
}

/** Worker to page: frames of this tap cannot be decoded. */
export interface Broken {
  tap: number;
  message: string;
}

/** Worker to page, now and then while they come: packets of this tap since the message before. */
export interface Seen {
  tap: number;
  packets: number;
}

/** Page to worklet: sound comes from here now. */
export interface Plug {
  port: MessagePort;
}

/** Worklet to page, ten times a second. Counts since the beginning. */
export interface Report {
  counts: PlayoutCounts;
  /** The loudest sample since the report before. */
  peak: number;
  /** Held beyond what the last seconds needed. */
  safetyMs: number;
  ppm: number;
  /** How far the output's clock was ahead of the machine's, at best since the report before. */
  leadMs: number;
}
