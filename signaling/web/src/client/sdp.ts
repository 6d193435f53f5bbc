// Changes to Opus format parameters in a session description. It touches `a=fmtp` lines of Opus only; everything else
// goes through byte for byte. Format parameters are the wishes of whoever *receives* (RFC 7587 section 6.1), so stereo
// must be in the listener's own offer, and what a browser sends follows the answer.

import type { MediaRole } from "./protocol.ts";

/** A null value takes the parameter out. */
export type OpusParameters = Readonly<Record<string, string | null>>;

/** Bit/s that a program track asks for and is sent with: transparent for stereo music in Opus. */
export const PROGRAM_BITRATE = 128_000;

const STEREO: OpusParameters = { stereo: "1", "sprop-stereo": "1", maxaveragebitrate: String(PROGRAM_BITRATE) };

/** A voice comes in mono, or in stereo from a music microphone; without this that would be played in mono. */
const VOICES: OpusParameters = { useinbandfec: "1", stereo: "1", "sprop-stereo": null };

/** Firefox asks for stereo everywhere; speech is mono, and the answer's stereo would make the sender spend twice the rate. */
const SPEECH: OpusParameters = { useinbandfec: "1", stereo: null, "sprop-stereo": null };

/** Own offer, before `setLocalDescription`. `uses` names the m-lines by mid. */
export function prepareOffer(sdp: string, uses: ReadonlyMap<string, MediaRole>): string {
  return mapOpus(sdp, (mid) => {
    switch (uses.get(mid)) {
      case "program":
      case "program_slot":
        return STEREO;
      case "speech_slot":
        return VOICES;
      case "mic":
        return SPEECH;
      case undefined:
        return null;
    }
  });
}

/**
 * The server's answer, before `setRemoteDescription`. `music` names the mids whose sender must encode stereo music. In-band
 * FEC is switched off for them: it makes the encoder leave its music mode (measured: ViSQOL 3.92 falls to 3.19 at 10 % loss).
 */
export function prepareAnswer(sdp: string, music: ReadonlySet<string>): string {
  return mapOpus(sdp, (mid) => (music.has(mid) ? { ...STEREO, useinbandfec: "0", usedtx: null } : null));
}

/** Mids of the m-lines, in order. */
export function readMids(sdp: string): string[] {
  return splitSections(sdp)
    .slice(1)
    .map((section) => midOf(section) ?? "");
}

function mapOpus(sdp: string, parametersFor: (mid: string) => OpusParameters | null): string {
  return splitSections(sdp)
    .map((section, index) => {
      const mid = index === 0 ? undefined : midOf(section);
      const parameters = mid === undefined ? null : parametersFor(mid);
      return parameters === null ? section : withOpusParameters(section, parameters);
    })
    .map((section) => section.join("\r\n"))
    .join("\r\n");
}

/** The first section is the session part; each further one starts with its `m=` line. */
function splitSections(sdp: string): string[][] {
  const sections: string[][] = [[]];
  for (const line of sdp.split(/\r?\n/)) {
    if (line.startsWith("m=")) sections.push([]);
    sections.at(-1)?.push(line);
  }
  return sections;
}

function midOf(section: readonly string[]): string | undefined {
  return section.find((line) => line.startsWith("a=mid:"))?.slice("a=mid:".length).trim();
}

function withOpusParameters(section: readonly string[], wanted: OpusParameters): string[] {
  const rtpmapAt = section.findIndex((line) => OPUS_RTPMAP.test(line));
  const payloadType = OPUS_RTPMAP.exec(section[rtpmapAt] ?? "")?.[1];
  if (payloadType === undefined) return [...section];
  const prefix = `a=fmtp:${payloadType} `;
  const fmtpAt = section.findIndex((line) => line.startsWith(prefix));
  const lines = [...section];
  if (fmtpAt >= 0) {
    lines[fmtpAt] = prefix + mergeParameters((section[fmtpAt] ?? "").slice(prefix.length), wanted);
  } else {
    lines.splice(rtpmapAt + 1, 0, prefix + mergeParameters("", wanted));
  }
  return lines;
}

const OPUS_RTPMAP = /^a=rtpmap:(\d+) opus\/48000/i;

function mergeParameters(text: string, wanted: OpusParameters): string {
  const parameters = new Map<string, string>();
  for (const part of text.split(";")) {
    const [name = "", value = ""] = part.split("=", 2);
    if (name.trim() !== "") parameters.set(name.trim(), value.trim());
  }
  for (const [name, value] of Object.entries(wanted)) {
    if (value === null) parameters.delete(name);
    else parameters.set(name, value);
  }
  return [...parameters].map(([name, value]) => `${name}=${value}`).join(";");
}
