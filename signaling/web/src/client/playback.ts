// Plays each slot through its own <audio> element: volume per person, output device, and the browser's refusal to play
// before the user has touched the page.

import type { TrackKind } from "./protocol.ts";

interface Player {
  kind: TrackKind;
  element: HTMLAudioElement;
}

export class Playback {
  readonly #players = new Map<string, Player>();
  readonly #blockedChanged: (blocked: boolean) => void;
  #sink = "";
  #blocked = false;

  constructor(blockedChanged: (blocked: boolean) => void) {
    this.#blockedChanged = blockedChanged;
  }

  /** Some player was refused and waits for `resume()`. */
  get blocked(): boolean {
    return this.#blocked;
  }

  get outputDevice(): string {
    return this.#sink;
  }

  elements(): ReadonlyMap<string, HTMLAudioElement> {
    return new Map([...this.#players].map(([mid, { element }]) => [mid, element]));
  }

  /** Attaches the receivers of a new connection; elements of the old one are reused, so a permission to play is kept. */
  attach(mid: string, kind: TrackKind, track: MediaStreamTrack): void {
    const player = this.#players.get(mid) ?? { kind, element: new Audio() };
    player.kind = kind;
    this.#players.set(mid, player);
    const current = player.element.srcObject;
    if (current instanceof MediaStream && current.getTracks().includes(track)) return;
    // A stream of its own for each slot: tracks of one stream would be synchronised to the slowest.
    player.element.srcObject = new MediaStream([track]);
    if (this.#sink !== "") void this.#applySink(player.element);
    void this.#play(player.element);
  }

  setVolume(mid: string, volume: number): void {
    const element = this.#players.get(mid)?.element;
    if (element !== undefined && element.volume !== volume) element.volume = volume;
  }

  /** To be called from a click or key: plays what was refused. */
  async resume(): Promise<void> {
    this.#setBlocked(false);
    await Promise.all([...this.#players.values()].map(({ element }) => this.#play(element)));
  }

  async setOutputDevice(deviceId: string): Promise<void> {
    this.#sink = deviceId;
    await Promise.all([...this.#players.values()].map(({ element }) => this.#applySink(element)));
  }

  stop(): void {
    for (const { element } of this.#players.values()) {
      element.pause();
      element.srcObject = null;
    }
    this.#players.clear();
    this.#setBlocked(false);
  }

  async #play(element: HTMLAudioElement): Promise<void> {
    if (!element.paused) return;
    try {
      await element.play();
    } catch (error) {
      // AbortError: the source was replaced meanwhile, and playing it was asked for again then.
      if (error instanceof DOMException && error.name === "NotAllowedError") this.#setBlocked(true);
    }
  }

  async #applySink(element: HTMLAudioElement): Promise<void> {
    if ("setSinkId" in element) await element.setSinkId(this.#sink);
  }

  #setBlocked(blocked: boolean): void {
    if (this.#blocked === blocked) return;
    this.#blocked = blocked;
    this.#blockedChanged(blocked);
  }
}
