// The card before joining: name, microphone with a level preview, and how to join. What it offers follows the token's role.

import { CaptureFailed, openMicrophone, sendableKinds } from "../client/index.ts";
import { DeviceSelect } from "./devices.ts";
import { h, icon, meter, setText } from "./dom.ts";
import type { IconName } from "./dom.ts";
import type { Link } from "./link.ts";
import { MicMeter } from "./mic-meter.ts";
import { roleWords } from "./words.ts";

export interface JoinChoice {
  name: string;
  /** Null: listen only. */
  track: MediaStreamTrack | null;
  deviceId: string;
}

export class PreJoin {
  readonly element: HTMLElement;
  readonly #link: Extract<Link, { kind: "ready" }>;
  readonly #done: (choice: JoinChoice) => void;
  readonly #name: HTMLInputElement;
  readonly #problem = h("p", { class: "problem", role: "alert", id: "prejoin-problem" });
  readonly #level = meter();
  readonly #meter = new MicMeter(this.#level);
  readonly #devices: DeviceSelect;
  readonly #test = h("button", { type: "button", id: "mic-test", class: "quiet", onclick: () => void this.#preview() }, icon("mic"), "Test the microphone");
  #track: MediaStreamTrack | null = null;

  constructor(link: Extract<Link, { kind: "ready" }>, done: (choice: JoinChoice) => void) {
    this.#link = link;
    this.#done = done;
    const fixedName = link.claims.name !== undefined;
    this.#name = h("input", {
      id: "name",
      type: "text",
      maxlength: 64,
      autocomplete: "name",
      placeholder: "How others see you",
      value: link.name || rememberedName(),
      readonly: fixedName,
    });
    this.#devices = new DeviceSelect("mic-select", "Microphone", "audioinput", () => void this.#preview());
    this.element = this.#build();
    if (this.#maySpeak) void this.#previewIfAllowed();
  }

  get #maySpeak(): boolean {
    return sendableKinds(this.#link.claims.role, this.#link.claims.kinds).includes("mic");
  }

  get #sendsOnly(): boolean {
    return this.#link.claims.role === "publisher";
  }

  #build(): HTMLElement {
    const role = this.#link.claims.role;
    const badge = role === undefined ? "" : roleWords(role);
    const form = h(
      "form",
      { class: "card join", id: "join-card", "aria-labelledby": "join-title", onsubmit: (event) => this.#submit(event) },
      h("p", { class: "eyebrow" }, "You are invited to"),
      h("h1", { id: "join-title" }, this.#link.room, badge === "" ? null : h("span", { class: "badge" }, badge)),
      h("label", { class: "field", for: "name" }, h("span", {}, "Your name"), this.#name, this.#nameNote()),
      this.#note(),
      this.#maySpeak ? this.#microphoneFields() : null,
      this.#problem,
      this.#buttons(),
    );
    return form;
  }

  #nameNote(): HTMLElement | null {
    return this.#name.readOnly ? h("small", {}, "Your invitation sets this name.") : null;
  }

  #note(): HTMLElement | null {
    const note = (name: IconName, text: string) => h("p", { class: "note" }, icon(name), text);
    if (this.#sendsOnly) return note("share", "This link sends sound into the call. You will not hear the others.");
    return this.#maySpeak ? null : note("listen", "This link lets you listen. Your microphone stays off.");
  }

  #microphoneFields(): HTMLElement {
    return h("div", { class: "stack" }, this.#devices.element, h("div", { class: "preview" }, this.#test, this.#level));
  }

  #buttons(): HTMLElement {
    if (!this.#maySpeak) {
      return h("div", { class: "actions" }, h("button", { type: "submit", id: "join-listen", class: "primary" }, this.#sendsOnly ? "Join" : "Join and listen"));
    }
    return h(
      "div",
      { class: "actions" },
      h("button", { type: "submit", id: "join-mic", class: "primary" }, icon("mic"), "Join with microphone"),
      h("button", { type: "button", id: "join-listen", onclick: () => this.#finish(false) }, icon(this.#sendsOnly ? "share" : "listen"), this.#sendsOnly ? "Join to share a tab" : "Join to listen only"),
    );
  }

  async #submit(event: Event): Promise<void> {
    event.preventDefault();
    if (!this.#maySpeak) return this.#finish(false);
    if (this.#track === null && !(await this.#preview())) return;
    this.#finish(true);
  }

  #finish(withMicrophone: boolean): void {
    const name = this.#name.value.trim();
    if (!this.#name.readOnly) rememberName(name);
    this.#meter.stop();
    this.#devices.stop();
    if (!withMicrophone) this.#track?.stop();
    this.#done({ name, track: withMicrophone ? this.#track : null, deviceId: this.#devices.value });
  }

  /** Without asking: only when the permission was given before. */
  async #previewIfAllowed(): Promise<void> {
    const permission = await navigator.permissions?.query({ name: "microphone" as PermissionName }).catch(() => null);
    if (permission?.state === "granted" && this.element.isConnected) await this.#preview();
  }

  async #preview(): Promise<boolean> {
    this.#track?.stop();
    setText(this.#problem, "");
    try {
      this.#track = await openMicrophone({ deviceId: this.#devices.value });
    } catch (error) {
      this.#track = null;
      this.#meter.watch(null);
      setText(this.#problem, error instanceof CaptureFailed ? error.message : "The microphone could not be opened.");
      return false;
    }
    this.#test.hidden = true;
    this.#meter.watch(this.#track);
    await this.#devices.refresh();
    return true;
  }
}

const NAME_KEY = "carillon.name";

function rememberedName(): string {
  try {
    return localStorage.getItem(NAME_KEY) ?? "";
  } catch {
    return "";
  }
}

function rememberName(name: string): void {
  try {
    localStorage.setItem(NAME_KEY, name);
  } catch {
    // Storage may be switched off; then the name is asked again next time.
  }
}
