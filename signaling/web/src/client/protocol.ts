// The messages of the native protocol (signaling/protocol/README.md), as this client reads and writes them. Types and the
// one parser only: no socket, no state.

export const PROTOCOL_VERSION = 1;
export const SUBPROTOCOL = "carillon.v1";

export type Role = "listener" | "speaker" | "publisher" | "moderator";
export type TrackKind = "mic" | "program";
export type MediaRole = "mic" | "program" | "speech_slot" | "program_slot";

/** What one audio m-line of an offer is for. */
export interface MediaUse {
  mid: string;
  use: MediaRole;
}

export type ClientRequest =
  | { type: "hello"; token?: string; resume?: string; name?: string; protocol: number }
  | { type: "offer"; sdp: string; media: MediaUse[] }
  | { type: "mute"; track: TrackKind; muted: boolean; peer?: string }
  | { type: "signal"; to?: string; data: unknown }
  | { type: "evict"; peer: string }
  | { type: "leave" };

export interface Track {
  kind: TrackKind;
  /** The CSRC of its packets, as `getContributingSources()` shows it. */
  csrc: number;
  muted: boolean;
  /** Packets have been forwarded. */
  live: boolean;
}

export interface Member {
  peer: string;
  identity: string;
  name: string;
  role: Role;
  /** Media connection stands. */
  connected: boolean;
  /** The socket is lost and the resume grace runs. */
  away: boolean;
  tracks: Track[];
}

export interface Slot {
  /** The receiver's own m-line. */
  mid: string;
  kind: TrackKind;
  peer: string;
  csrc: number;
}

export interface Limits {
  speech_slots: number;
  program_slots: number;
  message_bytes_max: number;
  resume_grace_ms: number;
  ping_interval_ms: number;
}

export interface IceServer {
  urls: string[];
  username?: string;
  credential?: string;
}

export interface Welcome {
  type: "welcome";
  re: number;
  protocol: number;
  room: string;
  peer: string;
  role: Role;
  resumed: boolean;
  ice_servers: IceServer[];
  roster: Member[];
  resume: string;
  limits: Limits;
}

/** `code` is stable and for programs; `message` says what is wrong; `hint` what to do about it. */
export interface ProtocolError {
  code: string;
  message: string;
  hint: string;
  retry_after_ms?: number;
}

export type ServerMessage =
  | Welcome
  | { type: "answer"; re: number; sdp: string }
  | { type: "ok"; re: number }
  | ({ type: "error"; re?: number } & ProtocolError)
  | { type: "joined"; member: Member }
  | { type: "left"; peer: string; reason: string }
  | { type: "mute"; peer: string; track: TrackKind; muted: boolean; by: string }
  | { type: "slots"; slots: Slot[] }
  | { type: "speakers"; peers: string[] }
  | { type: "signal"; from: string; data: unknown }
  | { type: "moved"; reason: string; retry_after_ms?: number }
  | { type: "ice_servers"; ice_servers: IceServer[] };

const KNOWN_TYPES: ReadonlySet<string> = new Set<ServerMessage["type"]>([
  "welcome",
  "answer",
  "ok",
  "error",
  "joined",
  "left",
  "mute",
  "slots",
  "speakers",
  "signal",
  "moved",
  "ice_servers",
]);

/** A message this client knows, or null: a newer server may send types that an older client has to ignore. */
export function parseServerMessage(text: unknown): ServerMessage | null {
  if (typeof text !== "string") return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null) return null;
  const type = (value as { type?: unknown }).type;
  return typeof type === "string" && KNOWN_TYPES.has(type) ? (value as ServerMessage) : null;
}
