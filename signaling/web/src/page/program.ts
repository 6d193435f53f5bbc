// Program sound: one card for each desktop or shared tab, with its own volume. A card stays for a while after its sender
// went, since "the desktop sound has stopped" is what a listener needs to read then.

import { levelKey, meterPosition } from "../client/index.ts";
import type { CarillonClient, Level, Member } from "../client/index.ts";
import { h, icon, meter, setMeter, setText } from "./dom.ts";
import { LowDelaySwitch } from "./low-delay.ts";
import { isSource, programState, programTitle, programWords } from "./words.ts";

/** How long a card of a sender that went is kept, unless another one comes. */
const ENDED_CARD_MS = 30_000;
/** Above this the card says "Playing"; programs may be quieter than speech. */
const HEARD_DB = -58;

interface Card {
  element: HTMLElement;
  meter: HTMLElement;
  volume: HTMLElement;
  title: HTMLElement;
  words: HTMLElement;
  member: Member;
  heard: boolean;
  gone: ReturnType<typeof setTimeout> | null;
}

export class Programs {
  readonly element = h("section", { id: "programs", class: "programs", "aria-label": "Program sound" });
  readonly #client: CarillonClient;
  readonly #cards = new Map<string, Card>();
  #lost = false;
  readonly #lowDelay: LowDelaySwitch;
  readonly #empty = h("p", { class: "empty" }, "No desktop or tab is being shared.");

  constructor(client: CarillonClient) {
    this.#client = client;
    this.#lowDelay = new LowDelaySwitch(client);
    this.element.append(h("h2", {}, "Program sound"), this.#empty, this.#lowDelay.element);
  }

  stop(): void {
    this.#lowDelay.stop();
  }

  update(members: readonly Member[]): void {
    const senders = new Map(members.filter((member) => sendsProgram(member, this.#client.peer)).map((member) => [member.peer, member]));
    for (const [peer, member] of senders) {
      const card = this.#cards.get(peer) ?? this.#add(peer, member);
      card.member = member;
      this.#describe(card, member);
    }
    for (const [peer, card] of this.#cards) if (!senders.has(peer)) this.#ended(peer, card);
    if (senders.size > 0) this.#dropReplaced(senders);
    this.#empty.hidden = this.#cards.size > 0;
  }

  /** Own media connection is lost: whatever the sender does, nothing is heard. */
  setLost(lost: boolean): void {
    if (lost === this.#lost) return;
    this.#lost = lost;
    for (const card of this.#cards.values()) if (card.gone === null) this.#describe(card, card.member);
  }

  levels(levels: ReadonlyMap<string, Level>): void {
    for (const [peer, card] of this.#cards) {
      const level = levels.get(levelKey(peer, "program"));
      setMeter(card.meter, level === undefined ? 0 : meterPosition(level.decibel));
      const heard = level !== undefined && level.decibel > HEARD_DB;
      if (heard === card.heard || card.gone !== null) continue;
      card.heard = heard;
      this.#describe(card, card.member);
    }
  }

  #add(peer: string, member: Member): Card {
    const desktop = isSource(member);
    const title = h("h3", {});
    const words = h("p", { class: "status", role: "status" });
    const level = meter();
    const slider = h("input", { type: "range", class: "volume", min: 0, max: 100, step: 5, value: Math.round(this.#client.volume(peer, "program") * 100) });
    slider.addEventListener("input", () => this.#client.setVolume(peer, "program", Number(slider.value) / 100));
    slider.setAttribute("aria-label", `Volume of ${programTitle(member)}`);
    const head = h("div", { class: "head" }, h("span", { class: "program-mark", "aria-hidden": "true" }, icon(desktop ? "desktop" : "share")), h("div", { class: "who" }, title, words));
    const volume = h("label", { class: "volume-row" }, icon("sound"), slider);
    const element = h("article", { class: "program" }, head, level, volume);
    const card: Card = { element, volume, meter: level, title, words, member, heard: false, gone: null };
    this.#cards.set(peer, card);
    this.element.insertBefore(element, this.#lowDelay.element);
    return card;
  }

  #describe(card: Card, member: Member | undefined): void {
    if (member !== undefined && card.gone !== null) {
      clearTimeout(card.gone);
      card.gone = null;
    }
    const state = programState(member, card.heard, this.#lost);
    card.volume.hidden = state === "ended";
    setText(card.title, programTitle(card.member));
    setText(card.words, programWords(state, isSource(card.member)));
    Object.assign(card.element.dataset, { peer: card.member.peer, name: card.member.name, state });
  }

  #ended(peer: string, card: Card): void {
    if (card.gone !== null) return;
    card.heard = false;
    setMeter(card.meter, 0);
    this.#describe(card, undefined);
    card.gone = setTimeout(() => {
      this.#remove(peer, card);
      this.#empty.hidden = this.#cards.size > 0;
    }, ENDED_CARD_MS);
  }

  /** A sender that came back has a new peer id: its old card would tell of an end that is over. */
  #dropReplaced(senders: ReadonlyMap<string, Member>): void {
    const identities = new Set([...senders.values()].map(({ identity }) => identity));
    for (const [peer, card] of this.#cards) {
      if (card.gone !== null && identities.has(card.member.identity)) this.#remove(peer, card);
    }
  }

  #remove(peer: string, card: Card): void {
    if (card.gone !== null) clearTimeout(card.gone);
    card.element.remove();
    this.#cards.delete(peer);
  }
}

/** A participant may have an m-line for program sound and never use it; a source is there for nothing else. */
function sendsProgram(member: Member, own: string | null): boolean {
  if (member.peer === own) return false;
  const track = member.tracks.find(({ kind }) => kind === "program");
  return track !== undefined && (isSource(member) || (track.live && !track.muted));
}
