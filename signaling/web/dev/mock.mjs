// A signalling server for looking at the page without the real one: serves dist/ under the same policy, plays a room full of
// invented people, and lets a script break things through POST /mock/*. It carries no media: dev/loopback.js answers the
// page's offers inside the page itself.
//
//   node dev/mock.mjs [port]      then open one of the links that it prints

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";

const ROOT = new URL("../dist/", import.meta.url);
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' mediastream:; " +
  "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript", css: "text/css", svg: "image/svg+xml" };
const PEOPLE = [
  ["p2", "Anna Lindqvist", "moderator", {}],
  ["p3", "Björn", "speaker", {}],
  ["p4", "Chiara De Angelis-Montefiore", "speaker", { muted: true }],
  ["p5", "Dmitri", "listener", {}],
  ["p6", "Eun-ji Park", "speaker", { away: true }],
];

export function mintToken(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256", kid: "dev", typ: "JWT" })}.${part(claims)}.${part("not signed")}`;
}

export async function startMock(port = 0) {
  const mock = new Mock();
  const server = createServer((request, response) => void mock.serve(request, response));
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "carillon.v1" });
  server.on("upgrade", (request, socket, head) => {
    if (mock.refusing) return socket.destroy();
    sockets.handleUpgrade(request, socket, head, (ws) => mock.accept(ws, decodeURIComponent(request.url.split("/").at(-1))));
  });
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  mock.url = `http://127.0.0.1:${server.address().port}`;
  mock.close = () => {
    for (const ws of mock.sockets) ws.terminate();
    server.close();
    server.closeAllConnections();
  };
  return mock;
}

class Mock {
  sockets = new Set();
  refusing = false;
  loopback = true;

  async serve(request, response) {
    const path = new URL(request.url, "http://x").pathname;
    if (path.startsWith("/mock/")) return this.control(path.slice(6), request, response);
    const file = path === "/" || path.startsWith("/r/") ? "index.html" : path.slice(1);
    const url = file === "dev/loopback.js" ? new URL("loopback.js", import.meta.url) : new URL(file, ROOT);
    try {
      let body = await readFile(url);
      if (file === "index.html" && this.loopback) body = body.toString().replace("<script", '<script src="/dev/loopback.js"></script><script');
      response.writeHead(200, { "content-type": TYPES[file.split(".").at(-1)] ?? "application/octet-stream", "content-security-policy": POLICY });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  }

  /** drop, refuse, allow; send: broadcasts the JSON body to every page. */
  async control(name, request, response) {
    let body = "";
    for await (const chunk of request) body += chunk;
    if (name === "drop") this.drop();
    if (name === "refuse") this.refusing = true;
    if (name === "allow") this.refusing = false;
    if (name === "send") this.broadcast(JSON.parse(body));
    response.writeHead(204).end();
  }

  drop() {
    for (const ws of this.sockets) ws.terminate();
  }

  broadcast(message) {
    for (const ws of this.sockets) ws.send(JSON.stringify(message));
  }

  accept(ws, room) {
    this.sockets.add(ws);
    const state = { room, role: "speaker" };
    ws.on("close", () => this.sockets.delete(ws));
    ws.on("message", (data) => {
      for (const reply of answer(state, JSON.parse(data))) ws.send(JSON.stringify(reply));
    });
  }
}

function answer(state, message) {
  const { id } = message;
  switch (message.type) {
    case "hello":
      return hello(state, message);
    case "offer":
      return [
        { type: "answer", re: id, sdp: message.dev_answer ?? "" },
        { type: "joined", member: self(state, true) },
        { type: "slots", slots: slotsFor(message.media) },
        { type: "speakers", peers: ["p2"] },
      ];
    case "mute":
      return [{ type: "ok", re: id }, { type: "mute", peer: message.peer ?? "p1", track: message.track, muted: message.muted, by: "p1" }];
    default:
      return [{ type: "ok", re: id }];
  }
}

function hello(state, { id, token, resume, name }) {
  const claims = token === undefined ? {} : JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
  if (claims.room === "expired-on-server") {
    return [{ type: "error", re: id, code: "token_expired", message: "the token expired 3 minutes ago", hint: "ask the host for a new link" }];
  }
  Object.assign(state, { role: claims.role ?? state.role, name: claims.name ?? name ?? "You" });
  const limits = { speech_slots: 8, program_slots: 2, message_bytes_max: 65536, resume_grace_ms: 10000, ping_interval_ms: 20000 };
  const roster = [...PEOPLE.map(person), desktop(false), self(state, false)];
  const common = { protocol: 1, room: state.room, peer: "p1", role: state.role, ice_servers: [], roster, resume: "r1", limits };
  return [{ type: "welcome", re: id, resumed: resume !== undefined, ...common }];
}

function person([peer, name, role, { muted = false, away = false }], index) {
  const tracks = role === "listener" ? [] : [{ kind: "mic", csrc: 1000 + index, muted, live: true }];
  return { peer, identity: peer, name, role, connected: true, away, tracks };
}

export function desktop(away) {
  const tracks = [{ kind: "program", csrc: 2000, muted: false, live: true }];
  return { peer: "d1", identity: "desktop", name: "Desktop of lab 4", role: "publisher", connected: true, away, tracks };
}

function self(state, connected) {
  const tracks = state.role === "listener" ? [] : [{ kind: "mic", csrc: 999, muted: false, live: true }];
  return { peer: "p1", identity: "me", name: state.name, role: state.role, connected, away: false, tracks };
}

function slotsFor(media) {
  const speech = media.filter(({ use }) => use === "speech_slot");
  const program = media.filter(({ use }) => use === "program_slot");
  const speakers = PEOPLE.map(([peer, , role], index) => ({ kind: "mic", peer, csrc: 1000 + index, role })).filter(({ role }) => role !== "listener");
  const slots = speakers.slice(0, speech.length).map(({ kind, peer, csrc }, n) => ({ mid: speech[n].mid, kind, peer, csrc }));
  if (program[0] !== undefined) slots.push({ mid: program[0].mid, kind: "program", peer: "d1", csrc: 2000 });
  return slots;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await startMock(Number(process.argv[2] ?? 0));
  const exp = Math.floor(Date.now() / 1000) + 86400;
  for (const role of ["speaker", "listener", "moderator"]) {
    console.log(`${role}: ${mock.url}/r/demo#token=${mintToken({ room: "demo", sub: role, role, exp })}`);
  }
}
