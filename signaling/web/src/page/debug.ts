// `window.__carillon`: what tests and a support person at the browser's console look at. It shows no token.

import type { CarillonClient, Level, LowDelayTrack, Member, Slot } from "../client/index.ts";

export interface DebugHooks {
  readonly client: CarillonClient;
  readonly state: string;
  readonly end: string | null;
  readonly peer: string | null;
  readonly offersMade: number;
  readonly roster: Member[];
  readonly slots: Slot[];
  /** By `${peer}/${kind}`. */
  readonly levels: Record<string, Level>;
  readonly soundBlocked: boolean;
  /** Every change of state since the page was loaded, with `performance.now()`. */
  readonly history: { state: string; at: number }[];
  /** The stream that a slot plays, with who is in it. */
  streams(): { mid: string; kind: string; peer: string | null; name: string | null; stream: MediaStream | null }[];
  getStats(): Promise<Record<string, unknown>[]>;
  /** Whether low delay is on, and how each program slot is listened to then. What the browser counts beside it is not heard. */
  readonly lowDelay: { on: boolean; tracks: LowDelayTrack[] };
}

declare global {
  interface Window {
    __carillon?: DebugHooks;
  }
}

export function exposeDebugHooks(client: CarillonClient): void {
  const history: { state: string; at: number }[] = window.__carillon?.history ?? [];
  let levels: Record<string, Level> = {};
  client.on("state", ({ state }) => {
    if (history.at(-1)?.state !== state) history.push({ state, at: performance.now() });
  });
  client.on("levels", (now) => (levels = Object.fromEntries(now)));
  window.__carillon = {
    client,
    history,
    get state() {
      return client.state;
    },
    get end() {
      return client.end;
    },
    get peer() {
      return client.peer;
    },
    get offersMade() {
      return client.offersMade;
    },
    get roster() {
      return client.roster;
    },
    get slots() {
      return client.slots;
    },
    get levels() {
      return levels;
    },
    get soundBlocked() {
      return client.soundBlocked;
    },
    get lowDelay() {
      return { on: client.lowDelay, tracks: client.lowDelayTracks };
    },
    streams: () => streams(client),
    getStats: () => client.getStats(),
  };
}

function streams(client: CarillonClient): ReturnType<DebugHooks["streams"]> {
  const names = new Map(client.roster.map(({ peer, name }) => [peer, name]));
  const slots = new Map(client.slots.map((slot) => [slot.mid, slot]));
  return [...client.slotElements].map(([mid, element]) => {
    const slot = slots.get(mid);
    const stream = element.srcObject instanceof MediaStream ? element.srcObject : null;
    return { mid, kind: slot?.kind ?? "", peer: slot?.peer ?? null, name: names.get(slot?.peer ?? "") ?? null, stream };
  });
}
