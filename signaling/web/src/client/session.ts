// The state machine of one participation: when to open the socket, how to say hello, when to offer and of which kind, and
// what to call the whole. Pure: inputs in, effects out. No socket, no peer connection, no clock; randomness is an argument.

import { Backoff } from "./backoff.ts";
import type { ProtocolError } from "./protocol.ts";

/**
 * - `idle`: before `connect()`
 * - `connecting`: not yet in the call
 * - `in_call`: socket and media stand
 * - `reconnecting`: the socket is lost, the media connection is not known to be
 * - `lost`: the media connection is lost (and perhaps the socket too)
 * - `ended`: over, for the reason in `EndReason`; nothing more is tried
 */
export type CallState = "idle" | "connecting" | "in_call" | "reconnecting" | "lost" | "ended";

export type EndReason = "left" | "expired" | "refused" | "replaced" | "evicted";

/** `first` and `replace` make a new peer connection; `ice_restart` keeps it. */
export type OfferKind = "first" | "replace" | "ice_restart";

export type MediaState = "new" | "connecting" | "connected" | "disconnected" | "failed";

export type TimerName = "socket" | "welcome" | "media" | "offer_again";

export type Input =
  | { on: "connect" }
  | { on: "leave" }
  | { on: "socket_opened" }
  | { on: "socket_closed" }
  | { on: "welcome"; resumed: boolean; resume: string }
  | { on: "hello_refused"; error: ProtocolError }
  | { on: "answered" }
  | { on: "offer_refused"; error: ProtocolError | null }
  | { on: "media"; state: MediaState }
  | { on: "moved"; reason: string; retryAfterMs: number | undefined }
  | { on: "network_back" }
  /** The media connection is wanted anew though nothing is wrong with it. */
  | { on: "renew" }
  | { on: "timer"; name: TimerName };

export type Effect =
  | { do: "open_socket" }
  /** `goodbye`: the server need not keep the place for a resume. */
  | { do: "close_socket"; goodbye: boolean }
  | { do: "hello"; resume: string | null }
  | { do: "offer"; kind: OfferKind }
  | { do: "close_media" }
  | { do: "set_timer"; name: TimerName; ms: number }
  | { do: "cancel_timer"; name: TimerName }
  | { do: "state"; state: CallState; end: EndReason | null; error: ProtocolError | null };

export const SOCKET_BACKOFF = { firstMs: 50, maxMs: 2_000 };
export const MEDIA_BACKOFF = { firstMs: 200, maxMs: 5_000 };
/** From opening the socket to the welcome. */
export const WELCOME_MS_MAX = 8_000;
/** How long ICE may be `disconnected` before an ICE restart: a short gap of a radio link heals by itself. */
export const DISCONNECTED_MS_MAX = 2_500;
/** From the answer to a connected transport. */
export const CONNECT_MS_MAX = 8_000;
/** Refusals of an offer, in a row, that carry no `retry_after_ms` and are not known to pass. */
export const OFFER_REFUSALS_MAX = 3;

type SocketPhase = "closed" | "opening" | "hello" | "ready";

export class Session {
  readonly #socketBackoff: Backoff;
  readonly #mediaBackoff: Backoff;
  #effects: Effect[] = [];
  #socket: SocketPhase = "closed";
  #media: MediaState = "new";
  #resume: string | null = null;
  #offerInFlight: OfferKind | null = null;
  #wanted: OfferKind | null = null;
  #hasMedia = false;
  #restartTried = false;
  #refusals = 0;
  #wasInCall = false;
  /** The connection is made anew on purpose: nothing is lost unless that fails. */
  #renewing = false;
  #state: CallState = "idle";
  #end: EndReason | null = null;
  #error: ProtocolError | null = null;

  constructor(random: () => number) {
    this.#socketBackoff = new Backoff(SOCKET_BACKOFF, random);
    this.#mediaBackoff = new Backoff(MEDIA_BACKOFF, random);
  }

  get state(): CallState {
    return this.#state;
  }

  get end(): EndReason | null {
    return this.#end;
  }

  get error(): ProtocolError | null {
    return this.#error;
  }

  /** Attempts to reach the server since it was last heard. */
  get socketAttempts(): number {
    return this.#socketBackoff.attempts;
  }

  handle(input: Input): Effect[] {
    this.#effects = [];
    if (this.#state !== "ended") this.#dispatch(input);
    this.#publish();
    return this.#effects;
  }

  #dispatch(input: Input): void {
    switch (input.on) {
      case "connect":
        return this.#openSocket();
      case "leave":
        return this.#finish("left", null);
      case "socket_opened":
        this.#socket = "hello";
        return this.#push({ do: "hello", resume: this.#resume });
      case "socket_closed":
        return this.#socketClosed();
      case "welcome":
        return this.#welcomed(input.resumed, input.resume);
      case "hello_refused":
        return this.#helloRefused(input.error);
      case "answered":
        return this.#answered();
      case "offer_refused":
        return this.#offerRefused(input.error);
      case "media":
        return this.#mediaChanged(input.state);
      case "moved":
        return this.#moved(input.reason, input.retryAfterMs);
      case "network_back":
        return this.#networkBack();
      case "renew":
        return this.#renew();
      case "timer":
        return this.#timer(input.name);
    }
  }

  #openSocket(): void {
    if (this.#socket !== "closed") return;
    this.#socket = "opening";
    this.#push({ do: "cancel_timer", name: "socket" });
    this.#push({ do: "open_socket" });
    this.#push({ do: "set_timer", name: "welcome", ms: WELCOME_MS_MAX });
  }

  #socketClosed(): void {
    if (this.#socket === "closed") return;
    this.#socket = "closed";
    this.#abandonOffer();
    this.#push({ do: "cancel_timer", name: "welcome" });
    this.#push({ do: "set_timer", name: "socket", ms: this.#socketBackoff.nextMs() });
  }

  /** An offer whose answer went down with the socket is made again after the next welcome. */
  #abandonOffer(): void {
    if (this.#offerInFlight !== null) this.#want(this.#offerInFlight === "ice_restart" ? "ice_restart" : "replace");
    this.#offerInFlight = null;
    // The connection before was closed for it, and without the socket none comes soon.
    if (this.#media !== "connected") this.#renewing = false;
  }

  #welcomed(resumed: boolean, resume: string): void {
    this.#socket = "ready";
    this.#resume = resume;
    this.#error = null;
    this.#socketBackoff.reset();
    this.#push({ do: "cancel_timer", name: "welcome" });
    if (!resumed || !this.#hasMedia) this.#want(this.#hasMedia ? "replace" : "first");
    else if (this.#media === "failed" || this.#media === "disconnected") this.#want(this.#nextRepair());
    this.#offerIfPossible();
  }

  #helloRefused(error: ProtocolError): void {
    const wasResume = this.#resume !== null;
    this.#resume = null;
    this.#error = error;
    if (wasResume) {
      // The participation is over on the server: come in anew with the token, at once.
      this.#dropSocket();
      this.#error = null;
      return this.#openSocket();
    }
    if (isPassing(error)) {
      this.#dropSocket();
      const ms = Math.max(error.retry_after_ms ?? 0, this.#socketBackoff.nextMs());
      return this.#push({ do: "set_timer", name: "socket", ms });
    }
    this.#finish(error.code.includes("expired") ? "expired" : "refused", error);
  }

  #answered(): void {
    this.#offerInFlight = null;
    this.#hasMedia = true;
    this.#refusals = 0;
    this.#error = null;
    if (this.#media !== "connected") this.#push({ do: "set_timer", name: "media", ms: CONNECT_MS_MAX });
    this.#offerIfPossible();
  }

  #offerRefused(error: ProtocolError | null): void {
    const kind = this.#offerInFlight ?? "replace";
    this.#offerInFlight = null;
    this.#renewing = false;
    this.#error = error;
    this.#refusals += 1;
    if (error !== null && !isPassing(error) && this.#refusals >= OFFER_REFUSALS_MAX) return this.#finish("refused", error);
    // The connection may heal by itself while the server cannot serve it: then it must still be there.
    const keep = kind !== "ice_restart" || (error !== null && isPassing(error));
    this.#want(keep ? kind : "replace");
    const ms = Math.max(error?.retry_after_ms ?? 0, this.#mediaBackoff.nextMs());
    this.#push({ do: "set_timer", name: "offer_again", ms });
  }

  #mediaChanged(state: MediaState): void {
    this.#media = state;
    if (state === "connected" || state === "failed") this.#renewing = false;
    if (state === "connected") {
      this.#wasInCall = true;
      this.#restartTried = false;
      this.#mediaBackoff.reset();
      this.#push({ do: "cancel_timer", name: "media" });
      // A repair that was wanted but not yet sent is no longer needed.
      if (this.#wanted === "ice_restart") this.#wanted = null;
    } else if (state === "disconnected") {
      this.#push({ do: "set_timer", name: "media", ms: DISCONNECTED_MS_MAX });
    } else if (state === "failed") {
      this.#push({ do: "cancel_timer", name: "media" });
      this.#repair();
    }
  }

  #moved(reason: string, retryAfterMs: number | undefined): void {
    if (reason === "replaced") return this.#finish("replaced", null);
    if (reason === "evicted") return this.#finish("evicted", null);
    this.#media = "failed";
    this.#renewing = false;
    this.#want("replace");
    this.#push({ do: "set_timer", name: "offer_again", ms: retryAfterMs ?? 0 });
  }

  /** Without media, or with an offer under way, what is made next is new anyway or is made once more after it. */
  #renew(): void {
    if (!this.#hasMedia && this.#offerInFlight === null) return;
    this.#want("replace");
    this.#renewing ||= this.#media === "connected";
    this.#offerIfPossible();
  }

  #networkBack(): void {
    if (this.#state === "idle") return;
    // A socket from before the change of networks may be dead without knowing it; a resume costs one round trip.
    if (this.#socket !== "closed") {
      this.#abandonOffer();
      this.#dropSocket();
    }
    this.#socketBackoff.reset();
    this.#openSocket();
  }

  #timer(name: TimerName): void {
    switch (name) {
      case "socket":
        return this.#openSocket();
      case "welcome":
        this.#dropSocket();
        return this.#push({ do: "set_timer", name: "socket", ms: this.#socketBackoff.nextMs() });
      case "media":
        return this.#media === "connected" ? undefined : this.#repair();
      case "offer_again":
        return this.#offerIfPossible();
    }
  }

  /** First an ICE restart, which keeps the DTLS session; when that did not help, a new peer connection with back-off. */
  #repair(): void {
    this.#renewing = false;
    if (this.#offerInFlight !== null) return;
    const kind = this.#nextRepair();
    this.#want(kind);
    if (kind === "ice_restart") return this.#offerIfPossible();
    this.#push({ do: "set_timer", name: "offer_again", ms: this.#mediaBackoff.nextMs() });
  }

  #nextRepair(): OfferKind {
    return this.#restartTried ? "replace" : "ice_restart";
  }

  #want(kind: OfferKind): void {
    // A new connection does all that an ICE restart does.
    if (this.#wanted === null || this.#wanted === "ice_restart") this.#wanted = kind;
  }

  #offerIfPossible(): void {
    if (this.#socket !== "ready" || this.#offerInFlight !== null || this.#wanted === null) return;
    this.#push({ do: "cancel_timer", name: "offer_again" });
    this.#push({ do: "cancel_timer", name: "media" });
    this.#offerInFlight = this.#wanted;
    this.#wanted = null;
    if (this.#offerInFlight === "ice_restart") this.#restartTried = true;
    else this.#media = "new";
    this.#push({ do: "offer", kind: this.#offerInFlight });
  }

  #dropSocket(): void {
    this.#socket = "closed";
    this.#push({ do: "cancel_timer", name: "welcome" });
    this.#push({ do: "close_socket", goodbye: false });
  }

  #finish(end: EndReason, error: ProtocolError | null): void {
    this.#end = end;
    this.#error = error;
    this.#socket = "closed";
    for (const name of ["socket", "welcome", "media", "offer_again"] as const) this.#push({ do: "cancel_timer", name });
    this.#push({ do: "close_socket", goodbye: true });
    this.#push({ do: "close_media" });
  }

  #publish(): void {
    const error = this.#error;
    const state = this.#compute();
    // Every attempt to come in is told: after some of them the page says that the server cannot be reached.
    const attempts = state === "connecting" ? this.socketAttempts : 0;
    if (state === this.#state && error === this.#publishedError && attempts === this.#publishedAttempts) return;
    this.#state = state;
    this.#publishedError = error;
    this.#publishedAttempts = attempts;
    this.#push({ do: "state", state, end: this.#end, error });
  }

  #publishedError: ProtocolError | null = null;
  #publishedAttempts = 0;

  #compute(): CallState {
    if (this.#end !== null) return "ended";
    if (this.#state === "idle" && this.#socket === "closed") return "idle";
    if (!this.#wasInCall) return "connecting";
    if (this.#media !== "connected" && !this.#renewing) return "lost";
    return this.#socket === "ready" ? "in_call" : "reconnecting";
  }

  #push(effect: Effect): void {
    this.#effects.push(effect);
  }
}

/** Refusals that say when to come again, or whose cause is on the server and passes. */
function isPassing(error: ProtocolError): boolean {
  return error.retry_after_ms !== undefined || PASSING_CODES.has(error.code);
}

const PASSING_CODES: ReadonlySet<string> = new Set([
  "no_node",
  "node_unreachable",
  "busy",
  "rate_limited",
  "too_many_connections",
  "server_full",
  "room_full",
]);
