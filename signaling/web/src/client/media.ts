// One RTCPeerConnection: its m-lines, its offers and what it plays. The tracks that it sends and the volumes live outside and
// outlast it, since a lost connection is replaced by a new one of the same shape.

import { prepareAnswer, prepareOffer, PROGRAM_BITRATE } from "./sdp.ts";
import type { IceServer, MediaRole, MediaUse, TrackKind } from "./protocol.ts";
import type { MediaState } from "./session.ts";

export interface MediaShape {
  /** Kinds to send; an m-line is made for each, with or without a track. */
  sends: readonly TrackKind[];
  speechSlots: number;
  programSlots: number;
}

export interface MediaSettings {
  shape: MediaShape;
  iceServers: readonly IceServer[];
  /** Through a relay or not at all. */
  relayOnly: boolean;
  /** Asked of the jitter buffer of each receiver; it still grows by itself when packets come unevenly. */
  jitterBufferTargetMs: number | null;
  /** Told of each receiver of program sound in the moment in which it is made. */
  tap: ((receiver: RTCRtpReceiver) => void) | null;
}

export interface Receiver {
  mid: string;
  kind: TrackKind;
  receiver: RTCRtpReceiver;
}

interface Line {
  use: MediaRole;
  transceiver: RTCRtpTransceiver;
}

export class MediaConnection {
  readonly pc: RTCPeerConnection;
  readonly #lines: Line[] = [];
  #answer: string | null = null;
  #musicMic = false;

  constructor(settings: MediaSettings, changed: (state: MediaState) => void) {
    this.pc = new RTCPeerConnection({
      bundlePolicy: "max-bundle",
      rtcpMuxPolicy: "require",
      iceServers: settings.iceServers.map((server) => ({ ...server })),
      iceTransportPolicy: settings.relayOnly ? "relay" : "all",
    });
    this.pc.onconnectionstatechange = () => {
      const state = this.pc.connectionState;
      if (state !== "closed") changed(state);
    };
    const { sends, speechSlots, programSlots } = settings.shape;
    for (const kind of sends) this.#add(kind, "sendonly");
    for (let n = 0; n < speechSlots; n += 1) this.#add("speech_slot", "recvonly");
    for (let n = 0; n < programSlots; n += 1) {
      const { receiver } = this.#add("program_slot", "recvonly");
      settings.tap?.(receiver);
    }
    if (settings.jitterBufferTargetMs !== null) this.#setJitterBufferTarget(settings.jitterBufferTargetMs);
  }

  /** Sets the local description; with ICE-lite on the other side the offer needs no candidates, so it is ready at once. */
  async offer(iceRestart: boolean): Promise<{ sdp: string; media: MediaUse[] }> {
    const offer = await this.pc.createOffer({ iceRestart });
    await this.pc.setLocalDescription({ type: "offer", sdp: prepareOffer(offer.sdp ?? "", this.#usesOf(offer.sdp ?? "")) });
    const media = this.#lines.map(({ use, transceiver }) => ({ mid: transceiver.mid ?? "", use }));
    return { sdp: this.pc.localDescription?.sdp ?? "", media };
  }

  async accept(answer: string): Promise<void> {
    this.#answer = answer;
    await this.pc.setRemoteDescription({ type: "answer", sdp: prepareAnswer(answer, this.#musicMids()) });
    await this.#setBitrates();
  }

  /** An offer that was refused, or whose answer went down with the socket, must not stay pending. */
  async rollBack(): Promise<void> {
    if (this.pc.signalingState === "have-local-offer") await this.pc.setLocalDescription({ type: "rollback" });
  }

  /** No negotiation: the m-line is there already. */
  async send(kind: TrackKind, track: MediaStreamTrack | null): Promise<void> {
    const line = this.#lines.find(({ use }) => use === kind);
    if (track !== null && "contentHint" in track && kind === "program") track.contentHint = "music";
    await line?.transceiver.sender.replaceTrack(track);
  }

  /**
   * Speech or music coding of the microphone. Which one a browser uses follows the answer's format parameters, so the last
   * answer is applied again with other parameters; the server hears nothing of it.
   */
  async setMusicMicrophone(on: boolean): Promise<void> {
    if (this.#musicMic === on) return;
    this.#musicMic = on;
    if (this.#answer === null || this.pc.signalingState !== "stable") return;
    const offer = await this.pc.createOffer();
    await this.pc.setLocalDescription({ type: "offer", sdp: prepareOffer(offer.sdp ?? "", this.#usesOf(offer.sdp ?? "")) });
    await this.accept(this.#answer);
  }

  receivers(): Receiver[] {
    return this.#lines.flatMap(({ use, transceiver }) => {
      const kind = SLOT_KIND[use];
      if (kind === undefined || transceiver.mid === null) return [];
      return [{ mid: transceiver.mid, kind, receiver: transceiver.receiver }];
    });
  }

  close(): void {
    this.pc.onconnectionstatechange = null;
    this.pc.close();
  }

  #add(use: MediaRole, direction: "sendonly" | "recvonly"): RTCRtpTransceiver {
    const transceiver = this.pc.addTransceiver("audio", { direction });
    preferOpus(transceiver);
    this.#lines.push({ use, transceiver });
    return transceiver;
  }

  /** Before the local description is set only the order tells which m-line is whose. */
  #usesOf(sdp: string): Map<string, MediaRole> {
    const mids = [...sdp.matchAll(/^a=mid:(.*)$/gm)].map((match) => (match[1] ?? "").trim());
    return new Map(this.#lines.map(({ use, transceiver }, index) => [transceiver.mid ?? mids[index] ?? "", use]));
  }

  #musicMids(): Set<string> {
    const music = this.#lines.filter(({ use }) => use === "program" || (use === "mic" && this.#musicMic));
    return new Set(music.map(({ transceiver }) => transceiver.mid ?? ""));
  }

  async #setBitrates(): Promise<void> {
    for (const { use, transceiver } of this.#lines) {
      if (use !== "program") continue;
      const parameters = transceiver.sender.getParameters();
      for (const encoding of parameters.encodings) encoding.maxBitrate = PROGRAM_BITRATE;
      // Firefox refuses parameters of a sender without encodings; the answer's maxaveragebitrate holds there.
      await transceiver.sender.setParameters(parameters).catch(() => undefined);
    }
  }

  #setJitterBufferTarget(ms: number): void {
    for (const { use, transceiver } of this.#lines) {
      if (SLOT_KIND[use] !== undefined && "jitterBufferTarget" in transceiver.receiver) {
        transceiver.receiver.jitterBufferTarget = ms;
      }
    }
  }
}

const SLOT_KIND: Readonly<Partial<Record<MediaRole, TrackKind>>> = { speech_slot: "mic", program_slot: "program" };

/** Opus, and RED to receive where the browser has it: a shorter offer, and nothing else can be negotiated. */
function preferOpus(transceiver: RTCRtpTransceiver): void {
  const codecs = RTCRtpReceiver.getCapabilities("audio")?.codecs ?? [];
  const named = (name: string) => codecs.filter((codec) => codec.mimeType.toLowerCase() === name);
  const wanted = [...named("audio/opus"), ...named("audio/red")];
  if (wanted.length > 0 && "setCodecPreferences" in transceiver) transceiver.setCodecPreferences(wanted);
}
