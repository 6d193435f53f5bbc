import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { MediaRole } from "../src/client/protocol.ts";
import { prepareAnswer, prepareOffer, readMids } from "../src/client/sdp.ts";

const CHROMIUM = [
  "v=0",
  "o=- 1 2 IN IP4 127.0.0.1",
  "s=-",
  "a=group:BUNDLE 0 1 2",
  "m=audio 9 UDP/TLS/RTP/SAVPF 111 63",
  "a=mid:0",
  "a=sendonly",
  "a=rtpmap:111 opus/48000/2",
  "a=fmtp:111 minptime=10;useinbandfec=1",
  "a=rtpmap:63 red/48000/2",
  "a=fmtp:63 111/111",
  "m=audio 9 UDP/TLS/RTP/SAVPF 111 63",
  "a=mid:1",
  "a=recvonly",
  "a=rtpmap:111 opus/48000/2",
  "a=fmtp:111 minptime=10;useinbandfec=1",
  "m=audio 9 UDP/TLS/RTP/SAVPF 109",
  "a=mid:2",
  "a=recvonly",
  "a=rtpmap:109 opus/48000/2",
  "",
].join("\r\n");

const USES = new Map<string, MediaRole>([
  ["0", "mic"],
  ["1", "speech_slot"],
  ["2", "program_slot"],
]);

function section(sdp: string, mid: string): string[] {
  const found = sdp.split(/\r\n(?=m=)/).find((text) => text.includes(`a=mid:${mid}\r\n`));
  assert.ok(found !== undefined);
  return found.split("\r\n");
}

describe("offer", () => {
  it("asks for stereo in program slots, even where the browser wrote no format parameters", () => {
    const lines = section(prepareOffer(CHROMIUM, USES), "2");
    const at = lines.indexOf("a=fmtp:109 stereo=1;sprop-stereo=1;maxaveragebitrate=128000");
    assert.equal(lines[at - 1], "a=rtpmap:109 opus/48000/2");
  });

  it("leaves the own microphone as the browser wrote it", () => {
    const before = section(CHROMIUM, "0");
    assert.deepEqual(section(prepareOffer(CHROMIUM, USES), "0"), before);
  });

  it("takes voices in stereo, which a music microphone sends", () => {
    const opus = section(prepareOffer(CHROMIUM, USES), "1").filter((line) => line.startsWith("a=fmtp:111 "));
    assert.deepEqual(opus, ["a=fmtp:111 minptime=10;useinbandfec=1;stereo=1"]);
  });

  it("takes the stereo that Firefox writes everywhere out of speech", () => {
    const firefox = CHROMIUM.replace("minptime=10;useinbandfec=1", "maxplaybackrate=48000;stereo=1;useinbandfec=1");
    assert.ok(section(prepareOffer(firefox, USES), "0").includes("a=fmtp:111 maxplaybackrate=48000;useinbandfec=1"));
  });

  it("does not touch the parameters of RED", () => {
    assert.ok(section(prepareOffer(CHROMIUM, new Map([["0", "program"]])), "0").includes("a=fmtp:63 111/111"));
  });

  it("gives back byte for byte what it has no use for", () => {
    assert.equal(prepareOffer(CHROMIUM, new Map()), CHROMIUM);
    const video = CHROMIUM.replaceAll("opus", "VP8");
    assert.equal(prepareOffer(video, USES), video);
  });

  it("is the same when prepared twice", () => {
    const once = prepareOffer(CHROMIUM, USES);
    assert.equal(prepareOffer(once, USES), once);
  });

  it("survives text that is no session description", () => {
    for (const text of ["", "\r\n", "m=", "a=mid:0", "m=audio\r\na=mid:0\r\na=rtpmap:x opus/48000"]) prepareOffer(text, USES);
  });
});

describe("answer", () => {
  it("makes the sender of music encode stereo without in-band FEC", () => {
    const lines = section(prepareAnswer(CHROMIUM, new Set(["0"])), "0");
    assert.ok(lines.includes("a=fmtp:111 minptime=10;useinbandfec=0;stereo=1;sprop-stereo=1;maxaveragebitrate=128000"));
  });

  it("leaves the other m-lines alone", () => {
    const prepared = prepareAnswer(CHROMIUM, new Set(["0"]));
    for (const mid of ["1", "2"]) assert.deepEqual(section(prepared, mid), section(CHROMIUM, mid));
  });
});

it("mids are read in the order of the m-lines", () => {
  assert.deepEqual(readMids(CHROMIUM), ["0", "1", "2"]);
});
