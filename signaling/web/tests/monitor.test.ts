import assert from "node:assert/strict";
import { describe, it, mock } from "node:test";
import type { MediaConnection } from "../src/client/media.ts";
import { SlotMonitor } from "../src/client/monitor.ts";
import type { Playback } from "../src/client/playback.ts";
import { Room } from "../src/client/room.ts";
import { SOURCE_AGE_MS_MAX } from "../src/client/slots.ts";

const READING_MS = 100;

describe("monitor", () => {
  it("knows whether anybody is heard", () => {
    mock.timers.enable({ apis: ["setInterval"] });
    const now = performance.timeOrigin + performance.now();
    let heardAt: number | null = null;
    const receiver = {
      track: {},
      getContributingSources: () => [],
      getSynchronizationSources: () => (heardAt === null ? [] : [{ source: 1, timestamp: heardAt, audioLevel: 0.1 }]),
    };
    const media = { receivers: () => [{ mid: "1", kind: "mic", receiver }] } as unknown as MediaConnection;
    const playback = { attach: () => undefined, setVolume: () => undefined } as unknown as Playback;
    const monitor = new SlotMonitor(new Room(), playback, () => null, () => undefined);
    const flows = (timestamp: number | null) => {
      heardAt = timestamp;
      mock.timers.tick(READING_MS);
      return monitor.soundFlows;
    };
    try {
      monitor.attach(media);
      assert.equal(flows(null), false);
      // Ahead of the clock, so that a slow machine does not make it old.
      assert.equal(flows(now + 60_000), true);
      assert.equal(flows(now - SOURCE_AGE_MS_MAX - 1), false);
      assert.equal(flows(now + 60_000), true);
      monitor.detach();
      assert.equal(monitor.soundFlows, false);
    } finally {
      mock.timers.reset();
    }
  });
});
