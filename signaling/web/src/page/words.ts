// What the page says: states, roles and endings in plain words. Pure.

import type { Member, ProtocolError, Role, TrackKind } from "../client/protocol.ts";
import type { LowDelayTrack } from "../client/low-delay/low-delay.ts";
import type { CallState, EndReason } from "../client/session.ts";

/** Attempts after which "Connecting" would be a lie. */
const ATTEMPTS_UNTIL_UNREACHABLE = 4;
/** The first offer and its ICE restart have failed then. */
const OFFERS_UNTIL_BLOCKED = 3;

/** What the words of a state depend on. */
export interface Circumstances {
  /** Attempts to reach the server since it was last heard. */
  attempts: number;
  offersMade: number;
  /** Somebody was heard a moment ago. Only then may the page promise that sound goes on. */
  soundFlows: boolean;
}

export function stateWords(state: CallState, { attempts, soundFlows }: Circumstances): string {
  switch (state) {
    case "idle":
      return "Not connected";
    case "connecting":
      return attempts < ATTEMPTS_UNTIL_UNREACHABLE ? "Connecting" : "Cannot reach the server: trying again";
    case "in_call":
      return "In the call";
    case "reconnecting":
      return soundFlows ? "Reconnecting: sound goes on" : "Reconnecting";
    case "lost":
      return "Lost connection: trying again";
    case "ended":
      return "Disconnected";
  }
}

/** What a state means for the user; empty when there is nothing to explain. */
export function stateHint(state: CallState, { attempts, offersMade, soundFlows }: Circumstances): string {
  switch (state) {
    case "reconnecting":
      if (!soundFlows) return "The line to the server is interrupted, and nobody is heard right now. Stay here: the page keeps trying.";
      return "The line to the server is interrupted. You still hear and are heard; names and mute marks may be late.";
    case "lost":
      return "No sound gets through right now. Stay here: the call comes back by itself as soon as the network does.";
    case "connecting":
      if (attempts >= ATTEMPTS_UNTIL_UNREACHABLE) return "The server does not answer. Stay here: the page keeps trying.";
      return offersMade < OFFERS_UNTIL_BLOCKED ? "" : "The server answers, but no sound connection comes up. A firewall may block UDP between you and the media node.";
    case "idle":
    case "in_call":
    case "ended":
      return "";
  }
}

/** The server writes phrases; a page shows sentences. */
export function errorWords({ message, hint }: Pick<ProtocolError, "message" | "hint">): string {
  return [message, hint].filter((text) => text !== "").map(sentence).join(" ");
}

function sentence(text: string): string {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(start) ? start : `${start}.`;
}

export interface Ending {
  title: string;
  text: string;
}

/** A link that the server refused once it will refuse again. */
export function mayComeAgain(end: EndReason, code: string | undefined): boolean {
  return end !== "expired" && !(end === "refused" && code?.startsWith("token_") === true);
}

export function endingWords(end: EndReason | "no_token" | "bad_token"): Ending {
  switch (end) {
    case "left":
      return { title: "You left the call", text: "Join again at any time with the same link." };
    case "expired":
      return { title: "This link has expired", text: "Ask the person who sent it to you for a new one." };
    case "refused":
      return { title: "The server did not let you in", text: "" };
    case "replaced":
      return { title: "The call goes on in another window", text: "This place in the call was taken over elsewhere." };
    case "evicted":
      return { title: "A moderator removed you from the call", text: "" };
    case "no_token":
      return { title: "Open your invitation link", text: "This page joins a call by a personal link. The address here carries no invitation." };
    case "bad_token":
      return { title: "This link is damaged", text: "Part of it seems to be missing. Copy the whole link and open it again." };
  }
}

export function roleWords(role: Role): string {
  switch (role) {
    case "listener":
      return "Listener";
    case "speaker":
      return "";
    case "publisher":
      return "Source";
    case "moderator":
      return "Moderator";
  }
}

/** A desktop or another machine that is there to be heard, not to talk: it has program sound and no microphone in use. */
export function isSource(member: Pick<Member, "role" | "tracks">): boolean {
  const mic = member.tracks.find(({ kind }) => kind === "mic");
  const program = member.tracks.some(({ kind }) => kind === "program");
  return program && (mic === undefined || (member.role === "publisher" && !mic.live));
}

/** What a roster line says under the name. */
export function memberWords(member: Member, speaking: boolean): string {
  const mic = member.tracks.find((track) => track.kind === "mic");
  if (member.away) return "Reconnecting";
  if (!member.connected) return "Connecting";
  if (mic?.muted) return "Muted";
  if (speaking) return "Speaking";
  if (mic?.live) return "Microphone on";
  return isSource(member) ? "Sends program sound" : "Listening";
}

/** `name` is the publishing member's. */
export function programTitle(member: Pick<Member, "name" | "role" | "tracks">): string {
  return isSource(member) ? member.name || "Desktop sound" : `Shared by ${member.name || "a participant"}`;
}

export type ProgramState = "playing" | "quiet" | "muted" | "reconnecting" | "ended";

/** `lost`: the listener's own media connection is. */
export function programState(member: Member | undefined, heard: boolean, lost: boolean): ProgramState {
  const track = member?.tracks.find(({ kind }: { kind: TrackKind }) => kind === "program");
  if (member === undefined || track === undefined) return "ended";
  // Without its socket a sender may still be heard: signalling may just have been started again.
  if (lost || !member.connected || (member.away && !heard)) return "reconnecting";
  if (track.muted) return "muted";
  return heard ? "playing" : "quiet";
}

export function programWords(state: ProgramState, isDesktop: boolean): string {
  const what = isDesktop ? "Desktop sound" : "Shared sound";
  switch (state) {
    case "playing":
      return "Playing";
    case "quiet":
      return "Connected, quiet right now";
    case "muted":
      return "Muted by its sender";
    case "reconnecting":
      return `${what} reconnecting…`;
    case "ended":
      return `${what} has stopped`;
  }
}

/** What the switch for low delay says under its name; slots to which nobody sends do not count. What is said for long fits
 * one line of a telephone, so that the cards below stay where they are. */
export function lowDelayWords(on: boolean, tracks: readonly Pick<LowDelayTrack, "path" | "why" | "live">[]): string {
  if (!on) return "Less delay; a 0.2 s gap at switching.";
  const live = tracks.filter((track) => track.live);
  if (live.some(({ path }) => path === "own")) return "On, with little delay.";
  const whys = new Set(live.map(({ why }) => why));
  if (whys.has("broken")) return "This browser could not decode the sound: playing with the usual delay.";
  if (whys.has("output")) return "This device is too busy right now: playing with the usual delay.";
  if (whys.has("loss") || whys.has("delay")) return "The network is too uneven right now: playing with the usual delay.";
  return live.length > 0 ? "On: starting." : "On: waiting for program sound.";
}

/** Up to two letters for the round mark beside a name. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/).filter((word) => word !== "");
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  return letters.map((word) => [...(word ?? "?")][0]?.toUpperCase() ?? "?").join("");
}
