// What a client is made with, and what it tells.

import type { Level } from "./monitor.ts";
import type { LowDelayScripts, LowDelayTrack } from "./low-delay/low-delay.ts";
import type { Member, ProtocolError, Slot, TrackKind } from "./protocol.ts";
import type { CallState, EndReason } from "./session.ts";

export interface ClientOptions {
  room: string;
  token: string;
  /** Shown to the others unless the token has a name. At most 64 characters. */
  name?: string;
  /** Where the rooms are, `wss://host`; left out: where the page came from. */
  server?: string;
  /** M-lines to receive speech in; more participants than that share them. */
  speechSlots?: number;
  /** M-lines to receive program sound (desktops, shared tabs) in, in stereo. */
  programSlots?: number;
  /** Media goes through a relay or not at all: for trying a relay out, and for people who must not show their address. */
  relayOnly?: boolean;
  /** Milliseconds asked of the jitter buffers; null leaves the browser's own choice. */
  jitterBufferTargetMs?: number | null;
  /** Program sound by a decoder and a jitter buffer of our own, where the browser has what that takes. */
  lowDelay?: boolean;
  /** Where the scripts for it are, when they are not beside this one. */
  lowDelayScripts?: LowDelayScripts;
}

export interface ClientEvents {
  state: { state: CallState; end: EndReason | null; error: ProtocolError | null };
  /** The roster changed in any way. */
  roster: Member[];
  left: { member: Member; reason: string };
  mute: { peer: string; track: TrackKind; muted: boolean; by: string };
  slots: Slot[];
  /** Loudest first, as the server hears it. */
  speakers: string[];
  signal: { from: string; data: unknown };
  /** Ten times a second while media stands. */
  levels: ReadonlyMap<string, Level>;
  /** True: the browser refuses to play until `resumeSound()` is called from a click. */
  sound_blocked: boolean;
  /** Low delay was switched, a program slot changed its way, began or ceased to get packets, or the output device is another. */
  low_delay: { on: boolean; tracks: LowDelayTrack[] };
  /** What is sent changed: microphone, mute or sharing. */
  sending: { microphone: boolean; muted: boolean; sharing: boolean };
  /** Something the user asked for did not work, in words for the user. */
  problem: string;
}
