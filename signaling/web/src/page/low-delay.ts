// The switch for listening to program sound with little delay, under the programs. It is not there where the browser cannot.

import { canLowDelay } from "../client/index.ts";
import type { CarillonClient } from "../client/index.ts";
import { h, setText } from "./dom.ts";
import { lowDelayWords } from "./words.ts";

const KEY = "carillon.lowDelay";

/** As it was left last time. */
export function wantsLowDelay(): boolean {
  try {
    return localStorage.getItem(KEY) === "on";
  } catch {
    return false;
  }
}

export class LowDelaySwitch {
  readonly element: HTMLElement;
  readonly #words = h("small", { id: "low-delay-words" });
  readonly #off: () => void;

  constructor(client: CarillonClient) {
    const box = h("input", { type: "checkbox", id: "low-delay", role: "switch", onchange: () => this.#choose(client, box.checked) });
    this.element = h("label", { class: "switch low-delay", for: "low-delay", hidden: !canLowDelay() }, box, h("span", {}, h("strong", {}, "Low delay"), this.#words));
    const show = () => {
      const { lowDelay, lowDelayTracks } = client;
      const possible = canLowDelay(client.outputDevice);
      const own = lowDelayTracks.some(({ path, live }) => live && path === "own");
      box.checked = lowDelay;
      box.disabled = !possible;
      this.element.dataset.state = lowDelay ? (own ? "own" : "browser") : "off";
      setText(this.#words, possible ? lowDelayWords(lowDelay, lowDelayTracks) : "In this browser only with the default speakers.");
    };
    this.#off = client.on("low_delay", show);
    show();
  }

  stop(): void {
    this.#off();
  }

  #choose(client: CarillonClient, on: boolean): void {
    client.setLowDelay(on);
    try {
      localStorage.setItem(KEY, on ? "on" : "off");
    } catch {
      // Not remembered then.
    }
  }
}
