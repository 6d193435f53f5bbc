// The call itself: header with the state in words, people, program sound, controls.

import type { CarillonClient, Member } from "../client/index.ts";
import { Dock } from "./dock.ts";
import { h, icon, logo, setText } from "./dom.ts";
import { MicMeter } from "./mic-meter.ts";
import { Programs } from "./program.ts";
import { Roster } from "./roster.ts";
import { errorWords, stateHint, stateWords } from "./words.ts";

/** How long a notice such as "Anna joined" stays. */
const NOTICE_MS = 5_000;

export class CallView {
  readonly element: HTMLElement;
  readonly #client: CarillonClient;
  readonly #roster: Roster;
  readonly #programs: Programs;
  readonly #dock: Dock;
  readonly #stateText = h("span", {});
  readonly #state = h("p", { id: "state", class: "state", role: "status" }, h("span", { class: "dot", "aria-hidden": "true" }), this.#stateText);
  readonly #hintText = h("p", {});
  readonly #serverHint = h("p", { id: "server-hint", class: "said" });
  readonly #hint = h("div", { id: "state-hint", class: "banner" }, this.#hintText, this.#serverHint);
  readonly #people = h("h2", {}, "Joining");
  readonly #notice = h("p", { id: "notice-line", class: "toast", role: "status" });
  readonly #tap: HTMLElement;
  readonly #offs: (() => void)[];
  #ownMeter: MicMeter | null = null;
  #noticeTimer: ReturnType<typeof setTimeout> | undefined;
  #known: Set<string> | null = null;

  constructor(client: CarillonClient, room: string, deviceId: string) {
    this.#client = client;
    this.#roster = new Roster(client);
    this.#programs = new Programs(client);
    this.#dock = new Dock(client, deviceId, (text) => this.notify(text, true), () => void client.leave());
    this.#tap = this.#buildTap();
    this.#dock.element.prepend(this.#notice);
    this.element = this.#build(room);
    this.#offs = [
      client.on("state", () => this.#showState()),
      client.on("roster", (members) => this.#showRoster(members)),
      client.on("levels", (levels) => {
        if (client.state === "reconnecting") this.#showState();
        this.#roster.levels(levels);
        this.#programs.levels(levels);
      }),
      client.on("sending", () => this.#showSending()),
      client.on("sound_blocked", (blocked) => (this.#tap.hidden = !blocked)),
      client.on("problem", (text) => this.notify(text, true)),
      client.on("mute", ({ peer, by, muted, track }) => this.#muteNotice(peer, by, muted, track)),
    ];
    addEventListener("keydown", this.#key);
    this.#showState();
  }

  destroy(): void {
    for (const off of this.#offs) off();
    removeEventListener("keydown", this.#key);
    clearTimeout(this.#noticeTimer);
    this.#ownMeter?.stop();
    this.#dock.stop();
    this.#programs.stop();
  }

  notify(text: string, problem = false): void {
    this.#notice.classList.toggle("problem", problem);
    setText(this.#notice, text);
    clearTimeout(this.#noticeTimer);
    this.#noticeTimer = setTimeout(() => setText(this.#notice, ""), NOTICE_MS);
  }

  #build(room: string): HTMLElement {
    const header = h("header", { class: "top" }, h("div", { class: "brand" }, logo(), h("h1", {}, room)), this.#state);
    const people = h("section", { class: "people", "aria-label": "People" }, this.#people, this.#roster.element);
    return h(
      "div",
      { class: "call", id: "call" },
      header,
      h("main", { class: "stage" }, this.#hint, this.#tap, h("div", { class: "columns" }, people, this.#programs.element)),
      this.#dock.element,
    );
  }

  #buildTap(): HTMLElement {
    const button = h("button", { type: "button", id: "tap-for-sound", class: "primary", onclick: () => void this.#client.resumeSound() }, icon("sound"), "Tap for sound");
    const text = h("p", {}, "Your browser waits for a tap before it plays sound.");
    return h("div", { class: "banner tap", hidden: !this.#client.soundBlocked, id: "sound-blocked" }, text, button);
  }

  #showState(): void {
    const { state, error } = this.#client;
    setText(this.#stateText, stateWords(state, this.#client));
    this.#state.dataset.state = state;
    const hint = stateHint(state, this.#client);
    const said = error === null ? "" : `The server says: ${errorWords(error)}`;
    setText(this.#hintText, hint);
    setText(this.#serverHint, said);
    this.#hint.hidden = hint === "" && said === "";
    this.#hint.dataset.state = state;
    this.element.dataset.state = state;
    this.#programs.setLost(state === "lost");
  }

  #showRoster(members: readonly Member[]): void {
    this.#roster.update(members);
    this.#programs.update(members);
    setText(this.#people, members.length <= 1 ? "Only you so far" : `${members.length} in the call`);
    this.#announce(members);
    this.#showSending();
  }

  #announce(members: readonly Member[]): void {
    const names = new Set(members.map(({ peer }) => peer));
    const arrived = this.#known === null ? [] : members.filter(({ peer }) => this.#known?.has(peer) === false && peer !== this.#client.peer);
    this.#known = names;
    const last = arrived.at(-1);
    if (last !== undefined) this.notify(`${last.name || "Somebody"} joined`);
  }

  #showSending(): void {
    this.#dock.update();
    const bar = this.element.querySelector<HTMLElement>("#own-level");
    if (bar === null) return;
    const { microphone, muted } = this.#client;
    this.#ownMeter ??= new MicMeter(bar);
    this.#ownMeter.moveTo(bar);
    const watched = muted ? null : microphone;
    bar.hidden = microphone === null;
    if (watched === this.#watched) return;
    this.#watched = watched;
    this.#ownMeter.watch(watched);
  }

  #watched: MediaStreamTrack | null = null;

  #muteNotice(peer: string, by: string, muted: boolean, track: string): void {
    if (peer !== this.#client.peer || by === this.#client.peer) return;
    const what = track === "mic" ? "your microphone" : "your shared sound";
    this.notify(muted ? `A moderator muted ${what}` : `A moderator switched ${what} on`);
  }

  readonly #key = (event: KeyboardEvent) => {
    if (event.key === "Escape") return this.#dock.closePanel();
    const typing = event.target instanceof HTMLElement && event.target.closest("input:not([type=range]), select, textarea") !== null;
    if (typing || event.key.toLowerCase() !== "m" || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (this.#client.sendable.includes("mic")) void this.#dock.toggleMute();
  };
}
