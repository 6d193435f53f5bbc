// Plays each slot through its own <audio> element: volume per person, output device, and the browser's refusal to play
// before the user has touched the page.

import type { TrackKind } from "./protocol.ts";

interface Player {
  kind: TrackKind;
  element: HTMLAudioElement;
  volume: number;
  /** Less than 1 while something else plays the slot, or begins to. */
  share: number;
  fade: ReturnType<typeof setInterval> | undefined;
}

const FADE_STEP_MS = 10;

export class Playback {
  readonly #players = new Map<string, Player>();
  readonly #blockedChanged: (blocked: boolean) => void;
  readonly #volumeSet: (mid: string, volume: number) => void;
  #sink = "";
  #blocked = false;

  constructor(blockedChanged: (blocked: boolean) => void, volumeSet: (mid: string, volume: number) => void) {
    this.#blockedChanged = blockedChanged;
    this.#volumeSet = volumeSet;
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
    const player = this.#players.get(mid) ?? { kind, element: new Audio(), volume: 1, share: 1, fade: undefined };
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
    const player = this.#players.get(mid);
    if (player === undefined) return;
    player.volume = volume;
    applyVolume(player);
    this.#volumeSet(mid, volume);
  }

  /** Goes to this share of the volume, within so long. */
  setShare(mid: string, share: number, ms: number): void {
    const player = this.#players.get(mid);
    if (player === undefined) return;
    clearInterval(player.fade);
    const step = ((share - player.share) * FADE_STEP_MS) / ms;
    player.fade = setInterval(() => {
      const left = share - player.share;
      player.share = Math.abs(left) <= Math.abs(step) ? share : player.share + step;
      applyVolume(player);
      if (player.share === share) clearInterval(player.fade);
    }, FADE_STEP_MS);
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
    for (const { element, fade } of this.#players.values()) {
      clearInterval(fade);
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

function applyVolume({ element, volume, share }: Player): void {
  const wanted = volume * share;
  if (element.volume !== wanted) element.volume = wanted;
}
