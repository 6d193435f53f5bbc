// The people in the call: one card each, updated in place so that focus and sliders survive every change.

import { levelKey, meterPosition } from "../client/index.ts";
import type { CarillonClient, Level, Member } from "../client/index.ts";
import { h, icon, meter, setIcon, setMeter, setText } from "./dom.ts";
import type { IconName } from "./dom.ts";
import { initials, isSource, memberWords, roleWords } from "./words.ts";

interface Card {
  element: HTMLLIElement;
  update(member: Member): void;
  level(level: Level | undefined): void;
}

export class Roster {
  readonly element = h("ul", { id: "roster", class: "roster", "aria-label": "People in the call" });
  readonly #client: CarillonClient;
  readonly #cards = new Map<string, Card>();

  constructor(client: CarillonClient) {
    this.#client = client;
  }

  update(members: readonly Member[]): void {
    const present = new Set(members.map(({ peer }) => peer));
    for (const [peer, card] of this.#cards) {
      if (present.has(peer)) continue;
      card.element.remove();
      this.#cards.delete(peer);
    }
    for (const member of members) {
      const card = this.#cards.get(member.peer) ?? this.#add(member.peer);
      card.update(member);
    }
    this.#sort(members);
  }

  levels(levels: ReadonlyMap<string, Level>): void {
    for (const [peer, card] of this.#cards) card.level(levels.get(levelKey(peer, "mic")));
  }

  #add(peer: string): Card {
    const card = peer === this.#client.peer ? ownCard() : otherCard(this.#client, peer);
    this.#cards.set(peer, card);
    return card;
  }

  /** Oneself, who may speak, who listens, what only sends. Nodes are moved only when the order changed: moving loses the focus. */
  #sort(members: readonly Member[]): void {
    const rank = (member: Member) => {
      if (member.peer === this.#client.peer) return 0;
      if (isSource(member)) return 3;
      return member.role === "listener" ? 2 : 1;
    };
    const sorted = [...members].sort((one, other) => rank(one) - rank(other));
    const wanted = sorted.flatMap(({ peer }) => this.#cards.get(peer)?.element ?? []);
    if (wanted.some((element, index) => this.element.children[index] !== element)) this.element.replaceChildren(...wanted);
  }
}

/** The parts that every card has. */
function frame(...controls: HTMLElement[]) {
  const avatar = h("span", { class: "avatar", "aria-hidden": "true" });
  const name = h("span", { class: "name" });
  const badge = h("span", { class: "badge" });
  const words = h("span", { class: "status" }, icon("mic"), h("span", { class: "words" }));
  const level = meter();
  const who = h("div", { class: "who" }, h("div", { class: "line" }, name, badge), words);
  const element = h("li", { class: "person" }, h("div", { class: "head" }, avatar, who), level, ...controls);
  return { element, avatar, name, badge, words, level };
}

type Frame = ReturnType<typeof frame>;

function describe(parts: Frame, member: Member, speaking: boolean, you: boolean): void {
  const { element } = parts;
  const name = member.name || member.identity || "Somebody";
  const mic = member.tracks.find(({ kind }) => kind === "mic");
  setText(parts.name, you ? `${name} (you)` : name);
  parts.name.title = name;
  setText(parts.avatar, initials(name));
  parts.avatar.dataset.hue = String(hue(member.identity + name));
  const badge = isSource(member) ? "Source" : roleWords(member.role);
  setText(parts.badge, badge);
  parts.badge.hidden = badge === "";
  const words = memberWords(member, speaking);
  const text = parts.words.querySelector(".words");
  if (text !== null && text.textContent !== words) {
    setText(text, words);
    setIcon(parts.words, WORD_ICONS[words] ?? "mic");
  }
  Object.assign(element.dataset, {
    peer: member.peer,
    name,
    role: member.role,
    muted: String(mic?.muted ?? false),
    live: String(mic?.live ?? false),
    away: String(member.away),
    connected: String(member.connected),
    speaking: String(speaking),
  });
}

const WORD_ICONS: Readonly<Record<string, IconName>> = {
  Muted: "mic_off",
  Listening: "listen",
  Reconnecting: "clock",
  Connecting: "clock",
  "Sends program sound": "desktop",
};

function ownCard(): Card {
  const parts = frame();
  parts.level.id = "own-level";
  parts.element.classList.add("self");
  return {
    element: parts.element,
    update: (member) => describe(parts, member, false, true),
    level: () => undefined,
  };
}

function otherCard(client: CarillonClient, peer: string): Card {
  const slider = h("input", { type: "range", class: "volume", min: 0, max: 100, step: 5, value: 100 });
  slider.addEventListener("input", () => client.setVolume(peer, "mic", Number(slider.value) / 100));
  const volume = h("label", { class: "volume-row" }, icon("sound"), slider);
  const parts = frame(volume);
  const moderation = client.role === "moderator" ? moderationRow(client, peer) : null;
  if (moderation !== null) parts.element.append(moderation.element);
  let last: Member | null = null;
  let speaking = false;
  return {
    element: parts.element,
    update: (member) => {
      last = member;
      describe(parts, member, speaking, false);
      slider.setAttribute("aria-label", `Volume of ${member.name}`);
      const hasMic = !isSource(member) && member.tracks.some(({ kind }) => kind === "mic");
      volume.hidden = !hasMic;
      parts.level.hidden = !hasMic;
      moderation?.update(member);
    },
    level: (level) => {
      setMeter(parts.level, level === undefined ? 0 : meterPosition(level.decibel));
      const now = level?.speaking ?? false;
      if (now === speaking || last === null) return;
      speaking = now;
      describe(parts, last, speaking, false);
    },
  };
}

function moderationRow(client: CarillonClient, peer: string) {
  let muted = false;
  const mute = h("button", { type: "button", class: "quiet small", onclick: () => void client.mutePeer(peer, "mic", !muted).catch(() => undefined) });
  const remove = h("button", { type: "button", class: "quiet small danger-text", onclick: () => void client.evict(peer).catch(() => undefined) }, "Remove");
  return {
    element: h("div", { class: "moderation" }, mute, remove),
    update: (member: Member) => {
      muted = member.tracks.some(({ kind, muted: now }) => kind === "mic" && now);
      mute.hidden = isSource(member) || !member.tracks.some(({ kind }) => kind === "mic");
      setText(mute, muted ? "Allow to speak" : "Mute");
      mute.setAttribute("aria-label", muted ? `Allow to speak: ${member.name}` : `Mute ${member.name} for everyone`);
      remove.setAttribute("aria-label", `Remove ${member.name} from the call`);
    },
  };
}

/** One of eight colours, the same for a person on every page. */
function hue(text: string): number {
  let sum = 0;
  for (const char of text) sum = (sum * 31 + (char.codePointAt(0) ?? 0)) % 9973;
  return sum % 8;
}
