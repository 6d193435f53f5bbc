import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MeterBallistics, meterPosition, toDecibel } from "../src/client/levels.ts";
import { parseServerMessage } from "../src/client/protocol.ts";
import type { Member } from "../src/client/protocol.ts";
import { Room } from "../src/client/room.ts";
import { newestSource } from "../src/client/slots.ts";
import { readTokenClaims, sendableKinds } from "../src/client/token.ts";

function member(peer: string, csrc: number): Member {
  return {
    peer,
    identity: peer,
    name: peer,
    role: "speaker",
    connected: true,
    away: false,
    tracks: [{ kind: "mic", csrc, muted: false, live: true }],
  };
}

describe("slots", () => {
  it("takes the source that was played last: browsers keep old ones for ten seconds", () => {
    const sources = [
      { source: 1, timestamp: 9_000 },
      { source: 2, timestamp: 9_900 },
      { source: 3, timestamp: 4_000 },
    ];
    assert.equal(newestSource(sources, 10_000)?.source, 2);
  });

  it("takes none when the last one is old", () => {
    assert.equal(newestSource([{ source: 1, timestamp: 1_000 }], 10_000), null);
    assert.equal(newestSource([], 10_000), null);
  });

  it("believes the packets before the slots message", () => {
    const room = new Room();
    room.setRoster([member("ada", 11), member("bob", 12)]);
    room.slots.setSlots([{ mid: "2", kind: "mic", peer: "ada", csrc: 11 }]);
    assert.equal(room.slots.occupant("2", 12)?.peer, "bob");
    assert.equal(room.slots.occupant("2", null)?.peer, "ada");
  });

  it("falls back to the slots message for a source that it does not know yet", () => {
    const room = new Room();
    room.slots.setSlots([{ mid: "2", kind: "mic", peer: "ada", csrc: 11 }]);
    assert.equal(room.slots.occupant("2", 99)?.peer, "ada");
    assert.equal(room.slots.occupant("3", null), null);
  });

  it("empties a slot that a later list does not name", () => {
    const room = new Room();
    room.slots.setSlots([{ mid: "2", kind: "mic", peer: "ada", csrc: 11 }]);
    room.slots.setSlots([]);
    assert.equal(room.slots.occupant("2", null), null);
  });
});

describe("roster", () => {
  it("replaces the line of a member and forgets one that left", () => {
    const room = new Room();
    room.setRoster([member("ada", 11)]);
    room.setMember({ ...member("ada", 21), away: true });
    assert.equal(room.member("ada")?.away, true);
    assert.equal(room.slots.occupant("2", 11), null);
    assert.equal(room.removeMember("ada")?.peer, "ada");
    assert.equal(room.slots.occupant("2", 21), null);
    assert.equal(room.removeMember("ada"), undefined);
  });

  it("marks one track as muted and leaves the other", () => {
    const room = new Room();
    room.setRoster([{ ...member("ada", 1), tracks: [...member("ada", 1).tracks, { kind: "program", csrc: 2, muted: false, live: true }] }]);
    room.setMuted("ada", "program", true);
    assert.deepEqual(room.member("ada")?.tracks.map(({ muted }) => muted), [false, true]);
    room.setMuted("nobody", "mic", true);
  });
});

describe("levels", () => {
  it("run from silence to full scale", () => {
    assert.deepEqual([toDecibel(0), toDecibel(1), toDecibel(2)], [-60, 0, 0]);
    assert.deepEqual([meterPosition(-60), meterPosition(-30), meterPosition(0)], [0, 0.5, 1]);
  });

  it("rise at once and fall slowly", () => {
    const meter = new MeterBallistics();
    assert.equal(meter.push(1, 0), 0);
    assert.equal(meter.push(0, 500), -30);
    assert.equal(meter.push(0, 10_000), -60);
  });
});

describe("messages", () => {
  it("unknown types, broken JSON and binary frames are ignored", () => {
    const frames: unknown[] = ["", "{", "null", "3", "[]", '{"type":7}', '{"type":"from_the_future"}', new ArrayBuffer(4)];
    for (const frame of frames) assert.equal(parseServerMessage(frame), null);
  });

  it("unknown fields do no harm", () => {
    assert.equal(parseServerMessage('{"type":"ok","re":4,"new":1}')?.type, "ok");
  });
});

describe("token", () => {
  const token = (claims: object) => `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.c2ln`;

  it("shows its claims, names beyond ASCII too", () => {
    const claims = readTokenClaims(token({ room: "r", name: "Björn ✓", role: "speaker", exp: 5, kinds: ["mic", "video"] }));
    assert.deepEqual(claims, { room: "r", name: "Björn ✓", role: "speaker", kinds: ["mic"], expires: 5 });
  });

  it("is refused when it is none", () => {
    for (const text of ["", "abc", "a.b", "a.%%%.c", "a.bnVsbA.c", "a.b.c.d"]) assert.equal(readTokenClaims(text), null);
  });

  it("of a listener sends nothing, and kinds can only narrow", () => {
    assert.deepEqual(sendableKinds("listener", ["mic"]), []);
    assert.deepEqual(sendableKinds("speaker", undefined), ["mic", "program"]);
    assert.deepEqual(sendableKinds("publisher", ["program"]), ["program"]);
  });
});
