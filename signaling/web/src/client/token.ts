// Reads what a join link and its token say. Nothing is verified here: the server does that. The page only uses the claims
// to show the right card before joining.

import type { Role, TrackKind } from "./protocol.ts";

export interface TokenClaims {
  room: string | undefined;
  name: string | undefined;
  role: Role | undefined;
  kinds: TrackKind[] | undefined;
  /** Seconds since 1970. */
  expires: number | undefined;
}

const ROLES: ReadonlySet<string> = new Set<Role>(["listener", "speaker", "publisher", "moderator"]);

/** Null when the text is not a JWT at all. */
export function readTokenClaims(token: string): TokenClaims | null {
  const parts = token.split(".");
  if (parts.length !== 3) return null;
  const claims = decodeJson(parts[1] ?? "");
  if (claims === null) return null;
  const { room, name, role, exp, kinds } = claims;
  return {
    room: typeof room === "string" ? room : undefined,
    name: typeof name === "string" ? name : undefined,
    role: typeof role === "string" && ROLES.has(role) ? (role as Role) : undefined,
    kinds: Array.isArray(kinds) ? kinds.filter((kind): kind is TrackKind => kind === "mic" || kind === "program") : undefined,
    expires: typeof exp === "number" && Number.isFinite(exp) ? exp : undefined,
  };
}

/** What this role (and the token's own `kinds`, which can only narrow it) may send. */
export function sendableKinds(role: Role | undefined, kinds: readonly TrackKind[] | undefined): TrackKind[] {
  if (role === "listener") return [];
  const all: TrackKind[] = ["mic", "program"];
  return kinds === undefined ? all : all.filter((kind) => kinds.includes(kind));
}

function decodeJson(base64url: string): Record<string, unknown> | null {
  try {
    const binary = atob(base64url.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
