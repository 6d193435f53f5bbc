// What is known of the room: who is in it and who is in which slot. State only.

import type { Member, TrackKind } from "./protocol.ts";
import { SlotMap } from "./slots.ts";

export class Room {
  readonly slots = new SlotMap();
  #members = new Map<string, Member>();

  members(): Member[] {
    return [...this.#members.values()];
  }

  member(peer: string): Member | undefined {
    return this.#members.get(peer);
  }

  setRoster(roster: readonly Member[]): void {
    this.#members = new Map(roster.map((member) => [member.peer, member]));
    this.slots.setRoster(roster);
  }

  setMember(member: Member): void {
    this.#members.set(member.peer, member);
    this.slots.setRoster(this.#members.values());
  }

  removeMember(peer: string): Member | undefined {
    const member = this.#members.get(peer);
    this.#members.delete(peer);
    this.slots.setRoster(this.#members.values());
    return member;
  }

  setMuted(peer: string, kind: TrackKind, muted: boolean): void {
    const member = this.#members.get(peer);
    if (member === undefined) return;
    const tracks = member.tracks.map((track) => (track.kind === kind ? { ...track, muted } : track));
    this.#members.set(peer, { ...member, tracks });
  }
}
