// Who is in which receiver. Two sources agree in the end and differ for moments: the `slots` message on the socket, and the
// CSRC of the packets being played. The packets win while they are fresh. Pure.

import type { Member, Slot, TrackKind } from "./protocol.ts";

/** As `RTCRtpContributingSource`. */
export interface ContributingSource {
  source: number;
  timestamp: number;
  audioLevel?: number | undefined;
}

export interface Occupant {
  peer: string;
  kind: TrackKind;
  csrc: number;
}

/** Browsers keep old entries for ten seconds; what was last played longer ago than this says nothing about now. */
export const SOURCE_AGE_MS_MAX = 1_000;

/** The entry that was played last, if that was lately. `now` is on the same clock as the timestamps. */
export function newestSource<S extends ContributingSource>(sources: readonly S[], now: number): S | null {
  let newest: S | null = null;
  for (const source of sources) {
    if (newest === null || source.timestamp > newest.timestamp) newest = source;
  }
  return newest !== null && now - newest.timestamp <= SOURCE_AGE_MS_MAX ? newest : null;
}

/** Which participant each CSRC of the room stands for. */
export class SlotMap {
  #slots = new Map<string, Occupant>();
  #byCsrc = new Map<number, Occupant>();

  setSlots(slots: readonly Slot[]): void {
    this.#slots = new Map(slots.map(({ mid, kind, peer, csrc }) => [mid, { kind, peer, csrc }]));
  }

  setRoster(roster: Iterable<Member>): void {
    this.#byCsrc = new Map();
    for (const member of roster) {
      for (const track of member.tracks) {
        this.#byCsrc.set(track.csrc, { peer: member.peer, kind: track.kind, csrc: track.csrc });
      }
    }
  }

  /** `playing` is the CSRC of the newest packet, null when nothing plays or it is not known. */
  occupant(mid: string, playing: number | null): Occupant | null {
    const heard = playing === null ? undefined : this.#byCsrc.get(playing);
    return heard ?? this.#slots.get(mid) ?? null;
  }

  list(): Slot[] {
    return [...this.#slots].map(([mid, occupant]) => ({ mid, ...occupant }));
  }
}
