// One WebSocket at a time: opens it, numbers the requests and matches what comes back. It knows nothing of rooms or media
// and never reconnects by itself: `Session` decides that.

import { parseServerMessage, SUBPROTOCOL } from "./protocol.ts";
import type { ClientRequest, ProtocolError, ServerMessage } from "./protocol.ts";

/** A request without a reply for so long means a dead socket. */
export const REPLY_MS_MAX = 8_000;
/** Requests awaiting their reply; far more than a page ever has, so a stuck caller cannot grow the map. */
const PENDING_MAX = 64;

export type Reply = Extract<ServerMessage, { re: number }>;

/** The server said no, or the socket went before it said anything (`error` is null then). */
export class RequestFailed extends Error {
  readonly error: ProtocolError | null;

  constructor(error: ProtocolError | null) {
    super(error === null ? "the connection was lost before the reply" : error.message);
    this.name = "RequestFailed";
    this.error = error;
  }
}

export interface SignallingHandlers {
  opened(): void;
  /** `code` of the server's close, undefined when the socket was just gone. */
  closed(code: number | undefined): void;
  /** Everything that is not the reply to a request. */
  message(message: ServerMessage): void;
}

interface Pending {
  resolve(reply: ServerMessage): void;
  reject(error: RequestFailed): void;
  timer: ReturnType<typeof setTimeout>;
}

export class Signalling {
  readonly #url: string;
  readonly #handlers: SignallingHandlers;
  readonly #pending = new Map<number, Pending>();
  #socket: WebSocket | null = null;
  #nextId = 1;

  constructor(url: string, handlers: SignallingHandlers) {
    this.#url = url;
    this.#handlers = handlers;
  }

  open(): void {
    this.close(false);
    const socket = new WebSocket(this.#url, [SUBPROTOCOL]);
    this.#socket = socket;
    // Each handler asks whether its socket is still the one in use: events of a replaced socket come late.
    socket.onopen = () => {
      if (this.#socket === socket) this.#handlers.opened();
    };
    socket.onclose = (event) => {
      if (this.#socket === socket) this.#lost(event.code);
    };
    socket.onmessage = (event) => {
      if (this.#socket === socket) this.#received(event.data);
    };
  }

  /** Without an event: whoever closes knows. The server takes code 1000 for leaving, anything else for a lost socket. */
  close(goodbye: boolean): void {
    const socket = this.#socket;
    this.#socket = null;
    this.#failPending();
    if (goodbye) socket?.close(1000);
    else socket?.close();
  }

  request(request: ClientRequest): Promise<ServerMessage> {
    const socket = this.#socket;
    if (socket === null || socket.readyState !== WebSocket.OPEN || this.#pending.size >= PENDING_MAX) {
      return Promise.reject(new RequestFailed(null));
    }
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#timedOut(socket), REPLY_MS_MAX);
      this.#pending.set(id, { resolve, reject, timer });
      socket.send(JSON.stringify({ ...request, id }));
    });
  }

  #received(data: unknown): void {
    const message = parseServerMessage(data);
    if (message === null) return;
    const re = "re" in message ? message.re : undefined;
    if (re === undefined) return this.#handlers.message(message);
    const pending = this.#pending.get(re);
    if (pending === undefined) return;
    this.#pending.delete(re);
    clearTimeout(pending.timer);
    if (message.type === "error") {
      const { code, message: text, hint, retry_after_ms } = message;
      pending.reject(new RequestFailed({ code, message: text, hint, ...(retry_after_ms === undefined ? {} : { retry_after_ms }) }));
    } else {
      pending.resolve(message);
    }
  }

  #timedOut(socket: WebSocket): void {
    if (this.#socket !== socket) return;
    socket.close();
    this.#lost(undefined);
  }

  #lost(code: number | undefined): void {
    this.#socket = null;
    this.#failPending();
    this.#handlers.closed(code);
  }

  #failPending(): void {
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject, timer } of pending) {
      clearTimeout(timer);
      reject(new RequestFailed(null));
    }
  }
}
