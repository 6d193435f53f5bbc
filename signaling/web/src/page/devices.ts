// A labelled list of sound devices that keeps itself up to date when devices come and go.

import { listDevices } from "../client/index.ts";
import { h } from "./dom.ts";

export class DeviceSelect {
  readonly element: HTMLLabelElement;
  readonly select: HTMLSelectElement;
  readonly #kind: "audioinput" | "audiooutput";
  readonly #refresh = () => void this.refresh();

  constructor(id: string, label: string, kind: "audioinput" | "audiooutput", chosen: (deviceId: string) => void) {
    this.#kind = kind;
    this.select = h("select", { id, onchange: () => chosen(this.select.value) });
    this.element = h("label", { class: "field", for: id }, h("span", {}, label), this.select);
    navigator.mediaDevices?.addEventListener?.("devicechange", this.#refresh);
    void this.refresh();
  }

  get value(): string {
    return this.select.value;
  }

  async refresh(): Promise<void> {
    const devices = await listDevices(this.#kind).catch(() => []);
    const previous = this.select.value;
    // Browsers list the default once more under its own name; "Default" stands for it here.
    const named = devices.filter(({ deviceId }) => deviceId !== "default" && deviceId !== "communications");
    const options = named.map(({ deviceId, label }) => h("option", { value: deviceId }, label));
    this.select.replaceChildren(h("option", { value: "" }, "Default device"), ...options);
    this.select.value = named.some(({ deviceId }) => deviceId === previous) ? previous : "";
    this.select.disabled = named.length === 0;
  }

  stop(): void {
    navigator.mediaDevices?.removeEventListener?.("devicechange", this.#refresh);
  }
}
