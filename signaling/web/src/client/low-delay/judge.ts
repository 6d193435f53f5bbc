// Decides for one track which way of listening it takes: our own, or the browser's, whose jitter buffer copes with more. Pure;
// time is an argument.

/** What the playout tells ten times a second, as differences to the time before. */
export interface Account {
  /** Samples that came, and samples that were put in for lost or late ones. */
  received: number;
  concealed: number;
  /** Samples of silence that the output played because the audio thread was late. */
  underrun: number;
  /** Milliseconds, as it is now. */
  held: number;
  /** That came from the network, whatever became of them. */
  packets: number;
}

/** Why the browser plays: nothing has come yet, too much is missing in what came or in what the output played, too much is
 * held, our way is broken. */
export type BrowserReason = "waiting" | "loss" | "output" | "delay" | "broken";

export type Path = { by: "own" } | { by: "browser"; why: BrowserReason };

/** Over so long is judged what is missing. */
const WINDOW_MS = 5_000;
/** What the browser's concealment, which stretches sound, hides better than our fades; its output has a longer buffer, too. */
const MISSING_SHARE_MAX = 0.03;
/** In the window; so much may be missing at a start or for one stall. */
const MISSING_MIN = 48_000 * 0.15;
/** More than this all the time is no low delay any more. */
const HELD_MS_MAX = 90;
const HELD_ACCOUNTS = 20;
/** So long no sound, though packets came at least twice: one may have been counted late, at the beginning of a pause. */
const NOTHING_ACCOUNTS = 20;
const NOTHING_PACKETS = 2;
/** Nothing was missing in so many accounts: the playout has found, unheard, what it must hold. */
const CALM_ACCOUNTS = 10;
/** The playout tells something while the output runs; it may be late on a busy machine. */
const SILENT_MS_MAX = 3_000;
/** The first rest; each further one is twice as long. */
const REST_MS_MIN = 30_000;
const REST_MS_MAX = 300_000;
/** After so long without trouble, rests are short again. */
const GOOD_MS = 120_000;

export class Judge {
  #path: Path = { by: "browser", why: "waiting" };
  #accounts: { at: number; account: Account }[] = [];
  #restUntil = 0;
  #restMs = REST_MS_MIN;
  #since = 0;

  get path(): Path {
    return this.#path;
  }

  account(account: Account, now: number): Path {
    this.#accounts.push({ at: now, account });
    this.#accounts = this.#accounts.filter(({ at }) => at > now - WINDOW_MS);
    if (this.#path.by === "own") {
      const trouble = this.#trouble();
      if (trouble !== null) this.#rest(trouble, now);
      else if (now - this.#since > GOOD_MS) this.#restMs = REST_MS_MIN;
    } else if (now >= this.#restUntil && account.held <= HELD_MS_MAX && this.#calm() && this.#missing() === null) {
      this.#path = { by: "own" };
      this.#since = now;
      this.#accounts = [];
    }
    return this.#path;
  }

  /** To be asked now and then: a playout that says nothing does not run. */
  tick(now: number): Path {
    const last = this.#accounts.at(-1)?.at ?? this.#since;
    if (this.#path.by === "own" && now - last > SILENT_MS_MAX) this.#path = { by: "browser", why: "waiting" };
    return this.#path;
  }

  /** Said again while it rests for that already, it makes the rest no longer. */
  broken(now: number): Path {
    const resting = this.#path.by === "browser" && this.#path.why === "broken" && now < this.#restUntil;
    if (!resting) this.#rest("broken", now);
    return this.#path;
  }

  #calm(): boolean {
    const recent = this.#accounts.slice(-CALM_ACCOUNTS);
    const received = recent.some(({ account }) => account.received > 0);
    return recent.length === CALM_ACCOUNTS && received && recent.every(({ account }) => account.concealed === 0);
  }

  #trouble(): BrowserReason | null {
    const missing = this.#missing();
    if (missing !== null) return missing;
    const nothing = this.#accounts.slice(-NOTHING_ACCOUNTS).filter(({ account }) => account.received === 0);
    const came = nothing.filter(({ account }) => account.packets > 0).length;
    if (nothing.length === NOTHING_ACCOUNTS && came >= NOTHING_PACKETS) return "broken";
    const recent = this.#accounts.slice(-HELD_ACCOUNTS).filter(({ account }) => account.received > 0);
    if (recent.length < HELD_ACCOUNTS || recent.some(({ account }) => account.held <= HELD_MS_MAX)) return null;
    // What comes while the output stands still is held.
    return this.#sum("underrun") > this.#sum("concealed") ? "output" : "delay";
  }

  #missing(): BrowserReason | null {
    const [concealed, underrun] = [this.#sum("concealed"), this.#sum("underrun")];
    const missing = concealed + underrun;
    if (missing <= MISSING_MIN || missing <= MISSING_SHARE_MAX * (this.#sum("received") + missing)) return null;
    // An output that catches up after it stood still asks for more than has come.
    return concealed > 2 * underrun ? "loss" : "output";
  }

  #sum(of: keyof Account): number {
    return this.#accounts.reduce((total, one) => total + one.account[of], 0);
  }

  #rest(why: BrowserReason, now: number): void {
    this.#path = { by: "browser", why };
    this.#restUntil = now + this.#restMs;
    this.#restMs = Math.min(REST_MS_MAX, 2 * this.#restMs);
  }
}
