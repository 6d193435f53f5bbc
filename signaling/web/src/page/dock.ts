// The controls at the foot of a call: mute, devices, sharing, leaving.

import { canChooseOutput, canShareTabSound, CaptureFailed } from "../client/index.ts";
import type { CarillonClient } from "../client/index.ts";
import { DeviceSelect } from "./devices.ts";
import { h, icon, setIcon, setText } from "./dom.ts";

/** The words of a button, and fewer of them for a narrow window. */
function label(long: string, short: string): HTMLElement {
  return h("span", { class: "label" }, h("span", { class: "long" }, long), h("span", { class: "short", "aria-label": long }, short));
}

function setLabel(element: HTMLElement, long: string, short: string): void {
  const [longText, shortText] = [element.querySelector(".long"), element.querySelector(".short")];
  if (longText !== null) setText(longText, long);
  if (shortText !== null) setText(shortText, short);
  shortText?.setAttribute("aria-label", long);
}

export class Dock {
  readonly element: HTMLElement;
  readonly #client: CarillonClient;
  readonly #problem: (text: string) => void;
  readonly #muteText = h("span", {}, "Mute");
  readonly #mute = h("button", { type: "button", id: "mute", class: "big", onclick: () => void this.toggleMute() }, icon("mic"), this.#muteText);
  readonly #shareText = label("Share tab sound", "Share");
  readonly #share = h("button", { type: "button", id: "share", onclick: () => void this.#toggleShare() }, icon("share"), this.#shareText);
  readonly #microphones: DeviceSelect;
  readonly #speakers: DeviceSelect;
  readonly #music = h("input", { type: "checkbox", id: "music", role: "switch", onchange: () => void this.#openMicrophone() });
  readonly #panel: HTMLElement;
  readonly #settings: HTMLButtonElement;

  constructor(client: CarillonClient, deviceId: string, problem: (text: string) => void, leave: () => void) {
    this.#client = client;
    this.#problem = problem;
    this.#microphones = new DeviceSelect("mic-select", "Microphone", "audioinput", () => void this.#openMicrophone());
    void this.#microphones.refresh().then(() => {
      if ([...this.#microphones.select.options].some(({ value }) => value === deviceId)) this.#microphones.select.value = deviceId;
    });
    this.#speakers = new DeviceSelect("speaker-select", "Speakers", "audiooutput", (id) => void this.#chooseSpeaker(id));
    this.#panel = this.#buildPanel();
    this.#settings = h(
      "button",
      { type: "button", id: "settings", "aria-expanded": "false", "aria-controls": "settings-panel", onclick: () => this.#togglePanel() },
      icon("settings"),
      label("Sound settings", "Settings"),
    );
    const maySpeak = client.sendable.includes("mic");
    const mayShare = client.sendable.includes("program") && canShareTabSound();
    this.element = h(
      "footer",
      { class: "dock" },
      this.#panel,
      h(
        "div",
        { class: "dock-row", role: "group", "aria-label": "Call controls" },
        maySpeak ? this.#mute : null,
        mayShare ? this.#share : null,
        maySpeak || canChooseOutput() ? this.#settings : null,
        h("button", { type: "button", id: "leave", class: "danger", onclick: leave }, icon("leave"), h("span", {}, "Leave")),
      ),
    );
    this.update();
  }

  update(): void {
    const { microphone, muted, sharing } = this.#client;
    const on = microphone !== null && !muted;
    setText(this.#muteText, microphone === null ? "Turn on microphone" : muted ? "Unmute" : "Mute");
    setIcon(this.#mute, on ? "mic" : "mic_off");
    this.#mute.setAttribute("aria-pressed", String(!on));
    this.#mute.dataset.on = String(on);
    this.#mute.title = "Key M";
    setLabel(this.#shareText, sharing ? "Stop sharing" : "Share tab sound", sharing ? "Stop" : "Share");
    this.#share.setAttribute("aria-pressed", String(sharing));
  }

  async toggleMute(): Promise<void> {
    if (this.#client.microphone === null) {
      await this.#client.setMuted(false);
      await this.#openMicrophone();
    } else await this.#client.setMuted(!this.#client.muted);
  }

  stop(): void {
    this.#microphones.stop();
    this.#speakers.stop();
  }

  #buildPanel(): HTMLElement {
    const maySpeak = this.#client.sendable.includes("mic");
    const music = h(
      "label",
      { class: "switch", for: "music" },
      this.#music,
      h("span", {}, h("strong", {}, "Music microphone"), h("small", {}, "Stereo, without noise and echo filters. Use headphones.")),
    );
    return h(
      "div",
      { id: "settings-panel", class: "card panel", hidden: true, role: "group", "aria-label": "Sound settings" },
      maySpeak ? this.#microphones.element : null,
      canChooseOutput() ? this.#speakers.element : null,
      maySpeak ? music : null,
    );
  }

  closePanel(): void {
    if (this.#panel.hidden) return;
    this.#togglePanel();
    this.#settings.focus();
  }

  #togglePanel(): void {
    this.#panel.hidden = !this.#panel.hidden;
    this.#settings.setAttribute("aria-expanded", String(!this.#panel.hidden));
    if (this.#panel.hidden) return;
    void this.#microphones.refresh();
    void this.#speakers.refresh();
    this.#panel.querySelector<HTMLElement>("select:enabled, input")?.focus();
  }

  async #openMicrophone(): Promise<void> {
    await this.#attempt(async () => {
      await this.#client.useMicrophone({ deviceId: this.#microphones.value, music: this.#music.checked });
      await this.#microphones.refresh();
    });
  }

  async #toggleShare(): Promise<void> {
    await this.#attempt(async () => {
      if (this.#client.sharing) await this.#client.stopSharing();
      else await this.#client.shareTabSound();
    });
  }

  async #chooseSpeaker(id: string): Promise<void> {
    await this.#attempt(() => this.#client.setOutputDevice(id));
  }

  async #attempt(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.#problem(error instanceof CaptureFailed ? error.message : "That did not work in this browser.");
    }
    this.update();
  }
}
