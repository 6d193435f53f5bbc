// Watches what the receivers play: who is in which slot by the packets' CSRC, how loud, and so which volume belongs to which
// audio element. Ten readings a second; no sound passes through it.

import { MeterBallistics, SPEAKING_DB } from "./levels.ts";
import type { MediaConnection, Receiver } from "./media.ts";
import type { Playback } from "./playback.ts";
import type { TrackKind } from "./protocol.ts";
import type { Room } from "./room.ts";
import { newestSource } from "./slots.ts";
import type { Occupant } from "./slots.ts";

const READ_EVERY_MS = 100;
/** Statistics cost more than the sources; they are asked only when the sources carry no level. */
const STATS_EVERY_READS = 3;

export interface Level {
  peer: string;
  kind: TrackKind;
  /** -60 to 0. */
  decibel: number;
  speaking: boolean;
}

export class SlotMonitor {
  readonly #room: Room;
  readonly #playback: Playback;
  readonly #ownLevel: (mid: string) => number | null;
  readonly #report: (levels: ReadonlyMap<string, Level>) => void;
  readonly #volumes = new Map<string, number>();
  readonly #meters = new Map<string, MeterBallistics>();
  readonly #statsLevels = new Map<string, number>();
  #media: MediaConnection | null = null;
  #timer: ReturnType<typeof setInterval> | undefined;
  #reads = 0;
  #needsStats = false;
  #soundFlows = false;

  /** `ownLevel`: of a slot that the browser's receiver does not play; null of others. */
  constructor(room: Room, playback: Playback, ownLevel: (mid: string) => number | null, report: (levels: ReadonlyMap<string, Level>) => void) {
    this.#room = room;
    this.#playback = playback;
    this.#ownLevel = ownLevel;
    this.#report = report;
  }

  /** Whether anything was heard within the last second. In a silent room nothing is. */
  get soundFlows(): boolean {
    return this.#soundFlows;
  }

  attach(media: MediaConnection): void {
    this.#media = media;
    for (const { mid, kind, receiver } of media.receivers()) this.#playback.attach(mid, kind, receiver.track);
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#read(), READ_EVERY_MS);
  }

  detach(): void {
    clearInterval(this.#timer);
    this.#media = null;
    this.#soundFlows = false;
  }

  volume(peer: string, kind: TrackKind): number {
    return this.#volumes.get(levelKey(peer, kind)) ?? 1;
  }

  setVolume(peer: string, kind: TrackKind, volume: number): void {
    this.#volumes.set(levelKey(peer, kind), Math.max(0, Math.min(1, volume)));
    this.refresh();
  }

  forget(peer: string): void {
    for (const kind of ["mic", "program"] as const) this.#volumes.delete(levelKey(peer, kind));
  }

  /** Puts each person's volume on the element that plays them now. */
  refresh(): void {
    const now = sourceClock();
    for (const receiver of this.#media?.receivers() ?? []) this.#applyVolume(receiver.mid, this.#occupant(receiver, now));
  }

  #read(): void {
    const media = this.#media;
    if (media === null) return;
    this.#reads += 1;
    if (this.#needsStats && this.#reads % STATS_EVERY_READS === 0) void this.#readStats(media);
    this.#needsStats = false;
    const now = sourceClock();
    const levels = new Map<string, Level>();
    this.#soundFlows = media.receivers().some(({ receiver }) => newestSource(receiver.getSynchronizationSources(), now) !== null);
    for (const receiver of media.receivers()) {
      const occupant = this.#occupant(receiver, now);
      this.#applyVolume(receiver.mid, occupant);
      if (occupant === null) continue;
      const key = levelKey(occupant.peer, occupant.kind);
      const meter = this.#meters.get(key) ?? new MeterBallistics();
      this.#meters.set(key, meter);
      const decibel = meter.push(this.#levelOf(receiver, now), now);
      levels.set(key, { peer: occupant.peer, kind: occupant.kind, decibel, speaking: decibel > SPEAKING_DB });
    }
    // Meters of people who went are dropped, so that a long call with many guests keeps no more than the present ones.
    for (const key of this.#meters.keys()) if (!levels.has(key)) this.#meters.delete(key);
    this.#report(levels);
  }

  #occupant({ mid, receiver }: Receiver, now: number): Occupant | null {
    const playing = newestSource(receiver.getContributingSources(), now);
    return this.#room.slots.occupant(mid, playing?.source ?? null);
  }

  #applyVolume(mid: string, occupant: Occupant | null): void {
    if (occupant !== null) this.#playback.setVolume(mid, this.volume(occupant.peer, occupant.kind));
  }

  /** Linear, 0 to 1; 0 when nothing arrived lately. */
  #levelOf({ mid, receiver }: Receiver, now: number): number {
    const own = this.#ownLevel(mid);
    if (own !== null) return own;
    const source = newestSource(receiver.getSynchronizationSources(), now);
    if (source === null) return 0;
    if (source.audioLevel !== undefined && source.audioLevel !== null) return source.audioLevel;
    this.#needsStats = true;
    return this.#statsLevels.get(mid) ?? 0;
  }

  async #readStats(media: MediaConnection): Promise<void> {
    const report = await media.pc.getStats();
    report.forEach((entry: { type: string; mid?: string; audioLevel?: number }) => {
      if (entry.type === "inbound-rtp" && entry.mid !== undefined) this.#statsLevels.set(entry.mid, entry.audioLevel ?? 0);
    });
  }
}

export function levelKey(peer: string, kind: TrackKind): string {
  return `${peer}/${kind}`;
}

/** The clock of `RTCRtpContributingSource.timestamp`. */
function sourceClock(): number {
  return performance.timeOrigin + performance.now();
}
