// Reads a join link: /r/{room}#token=<jwt>, with optional `name`, `join` (`mic` or `listen`: join without asking) and
// `relay=1` (through a relay or not at all). The token stays in the fragment, which browsers send to no server. Pure.

import { readTokenClaims } from "../client/token.ts";
import type { TokenClaims } from "../client/token.ts";

export type Link =
  | { kind: "ready"; room: string; token: string; claims: TokenClaims; name: string; autoJoin: "mic" | "listen" | null; relayOnly: boolean }
  | { kind: "no_token" | "bad_token" | "expired"; room: string | null };

export function readLink(pathname: string, hash: string, nowMs: number): Link {
  const inPath = /^\/r\/([^/]+)\/?$/.exec(pathname)?.[1];
  const room = inPath === undefined ? null : decodePart(inPath);
  const fragment = new URLSearchParams(hash.replace(/^#/, ""));
  const token = fragment.get("token");
  if (token === null || token === "") return { kind: "no_token", room };
  const claims = readTokenClaims(token);
  const target = room ?? claims?.room;
  if (claims === null || target === undefined) return { kind: "bad_token", room };
  if (claims.expires !== undefined && claims.expires * 1_000 <= nowMs) return { kind: "expired", room: target };
  const join = fragment.get("join");
  return {
    kind: "ready",
    room: target,
    token,
    claims,
    name: (claims.name ?? fragment.get("name") ?? "").slice(0, 64),
    autoJoin: join === "mic" || join === "listen" ? join : null,
    relayOnly: fragment.get("relay") === "1",
  };
}

function decodePart(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
