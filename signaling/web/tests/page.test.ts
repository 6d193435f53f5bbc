import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Member } from "../src/client/protocol.ts";
import { readLink } from "../src/page/link.ts";
import type { Circumstances } from "../src/page/words.ts";
import { errorWords, initials, isSource, lowDelayWords, mayComeAgain, memberWords, programState, programWords, stateHint, stateWords } from "../src/page/words.ts";

const TOKEN = `e30.${Buffer.from(JSON.stringify({ room: "den", role: "speaker", exp: 2_000 })).toString("base64url")}.c2ln`;

function desktop(changes: Partial<Member> = {}): Member {
  const tracks = [{ kind: "program" as const, csrc: 1, muted: false, live: true }];
  return { peer: "d", identity: "d", name: "Desktop", role: "publisher", connected: true, away: false, tracks, ...changes };
}

describe("link", () => {
  it("carries room and token", () => {
    const link = readLink("/r/den", `#token=${TOKEN}`, 1_000_000);
    assert.deepEqual([link.kind, link.room], ["ready", "den"]);
  });

  it("takes the room from the token at the root", () => {
    assert.equal(readLink("/", `#token=${TOKEN}`, 0).room, "den");
  });

  it("without a token, with a damaged or an expired one is told apart", () => {
    assert.equal(readLink("/r/den", "", 0).kind, "no_token");
    assert.equal(readLink("/r/den", "#token=abc", 0).kind, "bad_token");
    assert.equal(readLink("/r/den", `#token=${TOKEN}`, 2_000_000).kind, "expired");
  });

  it("joins by itself only when it says so", () => {
    const autoJoin = (hash: string) => {
      const link = readLink("/r/den", hash, 0);
      return link.kind === "ready" ? link.autoJoin : undefined;
    };
    assert.equal(autoJoin(`#token=${TOKEN}`), null);
    assert.equal(autoJoin(`#token=${TOKEN}&join=listen`), "listen");
    assert.equal(autoJoin(`#token=${TOKEN}&join=anything`), null);
  });

  it("asks for a relay only where the link says relay=1", () => {
    const relayOnly = (hash: string) => {
      const link = readLink("/r/demo", hash, 0);
      return link.kind === "ready" && link.relayOnly;
    };
    assert.deepEqual(["", "&relay=0", "&relay=1"].map((more) => relayOnly(`#token=${TOKEN}${more}`)), [false, false, true]);
  });

  it("survives a path that is not well encoded", () => {
    assert.equal(readLink("/r/%E0%A4%A", "", 0).room, "%E0%A4%A");
  });
});

function now(changes: Partial<Circumstances> = {}): Circumstances {
  return { attempts: 0, offersMade: 1, soundFlows: false, ...changes };
}

describe("words", () => {
  it("offer to come again where that can help", () => {
    assert.deepEqual([mayComeAgain("left", undefined), mayComeAgain("evicted", undefined), mayComeAgain("refused", "room_full")], [true, true, true]);
    assert.deepEqual([mayComeAgain("expired", undefined), mayComeAgain("refused", "token_wrong_room")], [false, false]);
  });

  it("say each state", () => {
    assert.equal(stateWords("reconnecting", now({ soundFlows: true })), "Reconnecting: sound goes on");
    assert.equal(stateWords("lost", now()), "Lost connection: trying again");
    assert.notEqual(stateWords("connecting", now()), stateWords("connecting", now({ attempts: 9 })));
    assert.match(stateHint("connecting", now({ attempts: 9 })), /does not answer/);
  });

  it("promise sound only while somebody is heard", () => {
    const said = (flows: boolean) => `${stateWords("reconnecting", now({ soundFlows: flows }))} ${stateHint("reconnecting", now({ soundFlows: flows }))}`;
    assert.match(said(true), /sound goes on.*still hear/);
    assert.doesNotMatch(said(false), /goes on|still hear/);
  });

  it("tell when the desktop is away, gone or unreachable from here", () => {
    assert.equal(programState(desktop(), true, false), "playing");
    assert.equal(programState(desktop({ away: true }), false, false), "reconnecting");
    assert.equal(programState(desktop({ away: true }), true, false), "playing");
    assert.equal(programState(desktop({ connected: false }), true, false), "reconnecting");
    assert.equal(programState(desktop(), true, true), "reconnecting");
    assert.equal(programState(undefined, false, false), "ended");
    assert.equal(programWords("reconnecting", true), "Desktop sound reconnecting…");
  });

  it("know a desktop by what it sends, whatever its role", () => {
    const mic = { kind: "mic" as const, csrc: 2, muted: false, live: false };
    assert.equal(isSource(desktop({ role: "speaker" })), true);
    assert.equal(isSource(desktop({ tracks: [mic, ...desktop().tracks] })), true);
    assert.equal(isSource(desktop({ role: "speaker", tracks: [mic, ...desktop().tracks] })), false);
    assert.equal(isSource(desktop({ tracks: [] })), false);
  });

  it("put being away before everything else about a person", () => {
    const muted = desktop({ role: "speaker", tracks: [{ kind: "mic", csrc: 1, muted: true, live: true }] });
    assert.equal(memberWords(muted, true), "Muted");
    assert.equal(memberWords({ ...muted, away: true }, true), "Reconnecting");
  });

  it("make sentences of the server's phrases", () => {
    assert.equal(errorWords({ message: "no media node is there", hint: "try again." }), "No media node is there. Try again.");
    assert.equal(errorWords({ message: "no", hint: "" }), "No.");
  });

  it("shorten names of any script", () => {
    assert.deepEqual(["Ada Lovelace", "björn", "  ", "李 小龙", "😀 x"].map(initials), ["AL", "B", "?", "李小", "😀X"]);
  });
});

describe("low delay", () => {
  it("says which way is taken, whatever the slots that nobody uses do", () => {
    const own = { path: "own" as const, why: null, live: true };
    const browser = (why: "waiting" | "loss" | "output" | "broken", live = true) => ({ path: "browser" as const, why, live });
    assert.match(lowDelayWords(true, [own, browser("waiting")]), /little delay/);
    assert.match(lowDelayWords(true, [browser("waiting")]), /starting/);
    assert.match(lowDelayWords(true, []), /waiting for program sound/);
    assert.match(lowDelayWords(true, [browser("loss"), own]), /little delay/);
    assert.match(lowDelayWords(true, [browser("loss"), { ...own, live: false }]), /uneven/);
    assert.match(lowDelayWords(true, [browser("output")]), /too busy/);
    assert.match(lowDelayWords(true, [browser("broken")]), /could not decode/);
    for (const why of ["loss", "broken"] as const) assert.match(lowDelayWords(true, [browser(why, false)]), /waiting/);
    assert.doesNotMatch(lowDelayWords(false, []), /On/);
  });
});
