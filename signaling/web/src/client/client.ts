// A participation in a room: drives `Session` (what to do when) with a socket and a peer connection, and keeps what a user
// interface shows. It renders nothing and holds no protocol logic of its own.

import { openMicrophone, openTabSound } from "./capture.ts";
import type { MicrophoneChoice } from "./capture.ts";
import { Emitter } from "./emitter.ts";
import { MediaConnection } from "./media.ts";
import { SlotMonitor } from "./monitor.ts";
import { canLowDelay, CROSS_FADE_MS, LowDelay } from "./low-delay/low-delay.ts";
import type { LowDelayTrack } from "./low-delay/low-delay.ts";
import type { ClientEvents, ClientOptions } from "./options.ts";
import { Playback } from "./playback.ts";
import { PROTOCOL_VERSION } from "./protocol.ts";
import type { IceServer, Limits, Member, ProtocolError, Role, ServerMessage, Slot, TrackKind, Welcome } from "./protocol.ts";
import { Room } from "./room.ts";
import { Session } from "./session.ts";
import type { CallState, Effect, EndReason, Input, OfferKind, TimerName } from "./session.ts";
import { RequestFailed, Signalling } from "./signalling.ts";
import { readTokenClaims, sendableKinds } from "./token.ts";

const DEFAULTS = { speechSlots: 8, programSlots: 2, relayOnly: false, jitterBufferTargetMs: 1, lowDelay: false };
/** How long `leave()` waits for the server's word before it closes anyway. */
const LEAVE_MS_MAX = 500;
/** Closes that are final, in case the `moved` message before them was lost. */
const CLOSE_REASONS: Readonly<Record<number, string>> = { 4000: "replaced", 4001: "evicted" };

export class CarillonClient extends Emitter<ClientEvents> {
  readonly #options: Required<Omit<ClientOptions, "name" | "server" | "lowDelayScripts">> & { name: string | undefined };
  readonly #session = new Session(Math.random);
  readonly #signalling: Signalling;
  readonly #playback = new Playback(
    (blocked) => this.emit("sound_blocked", blocked),
    (mid, volume) => this.#lowDelay.setVolume(mid, volume),
  );
  readonly #room = new Room();
  readonly #monitor = new SlotMonitor(
    this.#room,
    this.#playback,
    (mid) => this.#lowDelay.level(mid),
    (levels) => this.emit("levels", levels),
  );
  readonly #timers = new Map<TimerName, ReturnType<typeof setTimeout>>();
  readonly #tracks = new Map<TrackKind, MediaStreamTrack>();
  readonly #lowDelay: LowDelay;
  #media: MediaConnection | null = null;
  #welcome: Welcome | null = null;
  #iceServers: IceServer[] = [];
  #offersMade = 0;
  #muted = false;
  #music = false;
  readonly #networkBack = () => this.#handle({ on: "network_back" });
  readonly #pageHide = () => void this.leave();

  constructor(options: ClientOptions) {
    super();
    this.#options = { ...DEFAULTS, ...options, name: options.name };
    this.#options.lowDelay &&= canLowDelay();
    this.#lowDelay = new LowDelay(options.lowDelayScripts, {
      share: (mid, share) => this.#playback.setShare(mid, share, CROSS_FADE_MS),
      changed: () => this.#emitLowDelay(),
      failed: () => this.setLowDelay(false),
    });
    const server = options.server ?? location.origin.replace(/^http/, "ws");
    const url = `${server}/v1/rooms/${encodeURIComponent(options.room)}`;
    this.#signalling = new Signalling(url, {
      opened: () => this.#handle({ on: "socket_opened" }),
      closed: (code) => this.#socketClosed(code),
      message: (message) => this.#received(message),
    });
  }

  get state(): CallState {
    return this.#session.state;
  }

  get end(): EndReason | null {
    return this.#session.end;
  }

  get error(): ProtocolError | null {
    return this.#session.error;
  }

  /** Attempts to reach the server since it was last heard. */
  get attempts(): number {
    return this.#session.socketAttempts;
  }

  /** Own peer id, null before the welcome. */
  get peer(): string | null {
    return this.#welcome?.peer ?? null;
  }

  get role(): Role | null {
    return this.#welcome?.role ?? null;
  }

  get limits(): Limits | null {
    return this.#welcome?.limits ?? null;
  }

  /** Whether sound of anybody came in within the last second; goes with `levels`. */
  get soundFlows(): boolean {
    return this.#monitor.soundFlows;
  }

  get roster(): Member[] {
    return this.#room.members();
  }

  get slots(): Slot[] {
    return this.#room.slots.list();
  }

  /** Offers sent to the server so far; 1 as long as nothing went wrong, whoever joins or leaves. */
  get offersMade(): number {
    return this.#offersMade;
  }

  get muted(): boolean {
    return this.#muted;
  }

  get sharing(): boolean {
    return this.#tracks.has("program");
  }

  get microphone(): MediaStreamTrack | null {
    return this.#tracks.get("mic") ?? null;
  }

  get soundBlocked(): boolean {
    return this.#playback.blocked;
  }

  get outputDevice(): string {
    return this.#playback.outputDevice;
  }

  /** Kinds that role and token allow to send. */
  get sendable(): TrackKind[] {
    const claims = readTokenClaims(this.#options.token);
    return sendableKinds(this.role ?? claims?.role, claims?.kinds);
  }

  get lowDelay(): boolean {
    return this.#options.lowDelay;
  }

  /** How each program slot is listened to, while low delay is on. */
  get lowDelayTracks(): LowDelayTrack[] {
    return this.#lowDelay.tracks();
  }

  /** The peer connection in use, for statistics; do not change it. */
  get peerConnection(): RTCPeerConnection | null {
    return this.#media?.pc ?? null;
  }

  /** What plays in each slot, by mid: for own audio processing, recording or tests. */
  get slotElements(): ReadonlyMap<string, HTMLAudioElement> {
    return this.#playback.elements();
  }

  connect(): void {
    addEventListener("online", this.#networkBack);
    addEventListener("pagehide", this.#pageHide);
    this.#handle({ on: "connect" });
  }

  /** Ends the participation for good; a client is used once. */
  async leave(): Promise<void> {
    if (this.state === "ended") return;
    const told = this.#signalling.request({ type: "leave" }).catch(() => undefined);
    this.#closeMedia();
    await Promise.race([told, new Promise((resolve) => setTimeout(resolve, LEAVE_MS_MAX))]);
    this.#handle({ on: "leave" });
  }

  /** Opens a microphone and sends it in place of what was sent before; no negotiation. */
  async useMicrophone(choice: MicrophoneChoice = {}): Promise<MediaStreamTrack> {
    const track = await openMicrophone(choice);
    await this.sendMicrophone(track, choice.music ?? false);
    return track;
  }

  /** As `useMicrophone` with a track of the caller's own making. Null switches the microphone off. */
  async sendMicrophone(track: MediaStreamTrack | null, music = false): Promise<void> {
    this.#music = music;
    if (track !== null) track.enabled = !this.#muted;
    await this.#replace("mic", track, () => {
      this.emit("problem", "The microphone was disconnected.");
      void this.sendMicrophone(null);
    });
    await this.#media?.setMusicMicrophone(music);
  }

  async setMuted(muted: boolean): Promise<void> {
    this.#applyMuted(muted);
    await this.#tell("mic", muted);
  }

  /** Must be called from a click or key. Sends the sound of a tab as program sound. */
  async shareTabSound(): Promise<void> {
    await this.shareProgram(await openTabSound());
  }

  /** As `shareTabSound` with a track of the caller's own making. */
  async shareProgram(track: MediaStreamTrack): Promise<void> {
    await this.#replace("program", track, () => void this.stopSharing());
    await this.#tell("program", false);
  }

  async stopSharing(): Promise<void> {
    if (!this.sharing) return;
    await this.#replace("program", null);
    await this.#tell("program", true);
  }

  /** 0 to 1, for what `peer` sends of this kind; remembered while the page lives. */
  setVolume(peer: string, kind: TrackKind, volume: number): void {
    this.#monitor.setVolume(peer, kind, volume);
  }

  volume(peer: string, kind: TrackKind): number {
    return this.#monitor.volume(peer, kind);
  }

  async setOutputDevice(deviceId: string): Promise<void> {
    const done = Promise.all([this.#playback.setOutputDevice(deviceId), this.#lowDelay.setOutputDevice(deviceId)]);
    // Whether it can be had may depend on the device.
    this.#emitLowDelay();
    await done;
  }

  /** To be called from a click or key when `soundBlocked`. */
  async resumeSound(): Promise<void> {
    await Promise.all([this.#playback.resume(), this.#lowDelay.resume()]);
  }

  /** From a click or key. The media connection is made anew for it, which is heard as a short gap. */
  setLowDelay(on: boolean): void {
    const wanted = on && canLowDelay(this.outputDevice);
    if (wanted === this.lowDelay) return;
    this.#options.lowDelay = wanted;
    if (!wanted) this.#lowDelay.stop();
    this.#emitLowDelay();
    this.#handle({ on: "renew" });
  }

  /** Moderators only. */
  async mutePeer(peer: string, track: TrackKind, muted: boolean): Promise<void> {
    await this.#signalling.request({ type: "mute", peer, track, muted });
  }

  /** Moderators only. */
  async evict(peer: string): Promise<void> {
    await this.#signalling.request({ type: "evict", peer });
  }

  /** Application data, to one peer or to all others. */
  async signal(data: unknown, to?: string): Promise<void> {
    await this.#signalling.request(to === undefined ? { type: "signal", data } : { type: "signal", data, to });
  }

  async getStats(): Promise<Record<string, unknown>[]> {
    const report = await this.#media?.pc.getStats();
    const entries: Record<string, unknown>[] = [];
    report?.forEach((entry: Record<string, unknown>) => entries.push(entry));
    return entries;
  }

  #handle(input: Input): void {
    for (const effect of this.#session.handle(input)) this.#run(effect);
  }

  #run(effect: Effect): void {
    switch (effect.do) {
      case "open_socket":
        return this.#signalling.open();
      case "close_socket":
        return this.#signalling.close(effect.goodbye);
      case "hello":
        return void this.#hello(effect.resume);
      case "offer":
        return void this.#offer(effect.kind);
      case "close_media":
        return this.#ended();
      case "set_timer":
        return this.#setTimer(effect.name, effect.ms);
      case "cancel_timer":
        return this.#setTimer(effect.name, null);
      case "state":
        return this.emit("state", { state: effect.state, end: effect.end, error: effect.error });
    }
  }

  #setTimer(name: TimerName, ms: number | null): void {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
    if (ms === null) return;
    this.#timers.set(name, setTimeout(() => this.#handle({ on: "timer", name }), ms));
  }

  async #hello(resume: string | null): Promise<void> {
    const { token, name } = this.#options;
    const credential = resume === null ? { token, ...(name === undefined ? {} : { name }) } : { resume };
    try {
      const reply = await this.#signalling.request({ type: "hello", protocol: PROTOCOL_VERSION, ...credential });
      if (reply.type !== "welcome") return;
      this.#welcome = reply;
      this.#iceServers = reply.ice_servers;
      this.#room.setRoster(reply.roster);
      if (!reply.resumed) this.#room.slots.setSlots([]);
      this.emit("roster", this.roster);
      this.#handle({ on: "welcome", resumed: reply.resumed, resume: reply.resume });
    } catch (failure) {
      const error = failure instanceof RequestFailed ? failure.error : null;
      if (error !== null) this.#handle({ on: "hello_refused", error });
    }
  }

  async #offer(kind: OfferKind): Promise<void> {
    let media = this.#media;
    try {
      if (kind !== "ice_restart" || media === null) media = await this.#newMedia();
      else await media.rollBack();
      const offer = await media.offer(kind === "ice_restart");
      this.#offersMade += 1;
      const reply = await this.#signalling.request({ type: "offer", ...offer });
      if (reply.type !== "answer" || media !== this.#media) return;
      await media.accept(reply.sdp);
      this.#monitor.attach(media);
      // It may have been switched off since the offer; another connection follows then.
      if (this.lowDelay) void this.#lowDelay.attach(media.receivers());
      this.#handle({ on: "answered" });
      if (kind !== "ice_restart" && this.#muted) await this.#tell("mic", true);
    } catch (failure) {
      // Without an error of the server the socket went down: the session knows by `closed` already.
      if (failure instanceof RequestFailed && failure.error === null) return;
      if (media !== null && media !== this.#media) return;
      await media?.rollBack().catch(() => undefined);
      this.#handle({ on: "offer_refused", error: failure instanceof RequestFailed ? failure.error : browserError(failure) });
    }
  }

  async #newMedia(): Promise<MediaConnection> {
    this.#media?.close();
    const { speechSlots, programSlots, relayOnly, jitterBufferTargetMs } = this.#options;
    const receives = this.role !== "publisher";
    const shape = {
      sends: this.sendable,
      // M-lines beyond what the room has would stay silent.
      speechSlots: receives ? Math.min(speechSlots, this.limits?.speech_slots ?? speechSlots) : 0,
      programSlots: receives ? Math.min(programSlots, this.limits?.program_slots ?? programSlots) : 0,
    };
    const tap = this.lowDelay ? (receiver: RTCRtpReceiver) => this.#lowDelay.tap(receiver) : null;
    const settings = { shape, iceServers: this.#iceServers, relayOnly, jitterBufferTargetMs, tap };
    const media: MediaConnection = new MediaConnection(settings, (state) => {
      if (this.#media === media) this.#handle({ on: "media", state });
    });
    this.#media = media;
    for (const [kind, track] of this.#tracks) await media.send(kind, track);
    await media.setMusicMicrophone(this.#music);
    return media;
  }

  #socketClosed(code: number | undefined): void {
    const reason = code === undefined ? undefined : CLOSE_REASONS[code];
    if (reason === undefined) this.#handle({ on: "socket_closed" });
    else this.#handle({ on: "moved", reason, retryAfterMs: undefined });
  }

  #received(message: ServerMessage): void {
    switch (message.type) {
      case "joined":
        this.#room.setMember(message.member);
        return this.#rosterChanged();
      case "left":
        return this.#memberLeft(message.peer, message.reason);
      case "mute":
        return this.#trackMuted(message.peer, message.track, message.muted, message.by);
      case "slots":
        this.#room.slots.setSlots(message.slots);
        this.#monitor.refresh();
        return this.emit("slots", message.slots);
      case "speakers":
        return this.emit("speakers", message.peers);
      case "signal":
        return this.emit("signal", { from: message.from, data: message.data });
      case "moved":
        return this.#handle({ on: "moved", reason: message.reason, retryAfterMs: message.retry_after_ms });
      case "ice_servers":
        return this.#newIceServers(message.ice_servers);
      case "error":
        return this.emit("problem", `${message.message}: ${message.hint}`);
      case "welcome":
      case "answer":
      case "ok":
        return;
    }
  }

  #rosterChanged(): void {
    this.#monitor.refresh();
    this.emit("roster", this.roster);
  }

  #memberLeft(peer: string, reason: string): void {
    const member = this.#room.removeMember(peer);
    if (member === undefined) return;
    this.#monitor.forget(peer);
    this.emit("left", { member, reason });
    this.#rosterChanged();
  }

  #trackMuted(peer: string, track: TrackKind, muted: boolean, by: string): void {
    this.#room.setMuted(peer, track, muted);
    if (peer === this.peer && by !== this.peer) {
      if (track === "mic") this.#applyMuted(muted);
      else if (muted) void this.#replace("program", null);
    }
    this.emit("mute", { peer, track, muted, by });
    this.#rosterChanged();
  }

  #newIceServers(servers: IceServer[]): void {
    this.#iceServers = servers;
    this.#media?.pc.setConfiguration({ ...this.#media.pc.getConfiguration(), iceServers: servers.map((server) => ({ ...server })) });
  }

  #applyMuted(muted: boolean): void {
    this.#muted = muted;
    const track = this.#tracks.get("mic");
    if (track !== undefined) track.enabled = !muted;
    this.#emitSending();
  }

  /** Tells the room about an own track; while there is no socket or no media yet, `#offer` catches up. */
  async #tell(track: TrackKind, muted: boolean): Promise<void> {
    if (this.#welcome === null || this.#media === null || !this.sendable.includes(track)) return;
    if (this.peer !== null) this.#room.setMuted(this.peer, track, muted);
    this.emit("roster", this.roster);
    await this.#signalling.request({ type: "mute", track, muted }).catch((failure: unknown) => {
      if (failure instanceof RequestFailed && failure.error !== null) this.emit("problem", failure.error.hint);
    });
  }

  async #replace(kind: TrackKind, track: MediaStreamTrack | null, ended?: () => void): Promise<void> {
    const previous = this.#tracks.get(kind);
    if (track === null) this.#tracks.delete(kind);
    else this.#tracks.set(kind, track);
    if (track !== null && ended !== undefined) {
      track.addEventListener("ended", () => {
        if (this.#tracks.get(kind) === track) ended();
      });
    }
    await this.#media?.send(kind, track);
    if (previous !== track) previous?.stop();
    this.#emitSending();
  }

  #emitLowDelay(): void {
    this.emit("low_delay", { on: this.lowDelay, tracks: this.lowDelayTracks });
  }

  #emitSending(): void {
    this.emit("sending", { microphone: this.#tracks.has("mic"), muted: this.#muted, sharing: this.sharing });
  }

  #closeMedia(): void {
    this.#monitor.detach();
    this.#lowDelay.end();
    this.#playback.stop();
    this.#media?.close();
    this.#media = null;
    for (const track of this.#tracks.values()) track.stop();
    this.#tracks.clear();
  }

  #ended(): void {
    removeEventListener("online", this.#networkBack);
    removeEventListener("pagehide", this.#pageHide);
    this.#closeMedia();
    this.#room.setRoster([]);
  }
}

function browserError(failure: unknown): ProtocolError {
  const message = failure instanceof Error ? failure.message : String(failure);
  return { code: "browser", message, hint: "The browser could not make or take the media description. Reload the page." };
}
