import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Backoff } from "../src/client/backoff.ts";
import type { ProtocolError } from "../src/client/protocol.ts";
import { DISCONNECTED_MS_MAX, Session } from "../src/client/session.ts";
import type { Effect, Input } from "../src/client/session.ts";

const EXPIRED: ProtocolError = { code: "token_expired", message: "token has expired", hint: "ask for a new token" };
const NO_NODE: ProtocolError = { code: "no_node", message: "no media node", hint: "try again", retry_after_ms: 1_000 };
const RESUME_EXPIRED: ProtocolError = { code: "resume_expired", message: "over", hint: "say hello with a token" };
const BAD_SDP: ProtocolError = { code: "sdp_malformed", message: "bad", hint: "send it as it is" };

class Driver {
  readonly session = new Session(() => 1);
  effects: Effect[] = [];

  on(...inputs: Input[]): Effect[] {
    this.effects = inputs.flatMap((input) => this.session.handle(input));
    return this.effects;
  }

  /** What was done, without timers and states. */
  get done(): string[] {
    return this.effects.flatMap((effect) => {
      if (effect.do === "offer") return [`offer ${effect.kind}`];
      if (effect.do === "hello") return [effect.resume === null ? "hello token" : `hello ${effect.resume}`];
      return effect.do === "set_timer" || effect.do === "cancel_timer" || effect.do === "state" ? [] : [effect.do];
    });
  }

  timer(name: string): number | undefined {
    return this.effects.flatMap((effect) => (effect.do === "set_timer" && effect.name === name ? [effect.ms] : [])).at(-1);
  }

  static inCall(): Driver {
    const driver = new Driver();
    driver.on({ on: "connect" }, { on: "socket_opened" }, { on: "welcome", resumed: false, resume: "r1" });
    driver.on({ on: "answered" }, { on: "media", state: "connecting" }, { on: "media", state: "connected" });
    assert.equal(driver.session.state, "in_call");
    return driver;
  }
}

describe("a connection made anew on purpose", () => {
  it("is no loss, until it fails", () => {
    const driver = Driver.inCall();
    driver.on({ on: "renew" });
    assert.deepEqual(driver.done, ["offer replace"]);
    driver.on({ on: "answered" }, { on: "media", state: "connecting" });
    assert.equal(driver.session.state, "in_call");
    driver.on({ on: "media", state: "connected" });
    assert.equal(driver.session.state, "in_call");
    driver.on({ on: "renew" }, { on: "answered" }, { on: "media", state: "failed" });
    assert.equal(driver.session.state, "lost");
  });

  it("is no loss when it is asked for twice", () => {
    const driver = Driver.inCall();
    driver.on({ on: "renew" }, { on: "renew" });
    assert.equal(driver.session.state, "in_call");
    driver.on({ on: "answered" }, { on: "answered" }, { on: "media", state: "connected" });
    assert.equal(driver.session.state, "in_call");
  });

  it("is a loss when the server goes away meanwhile: the connection before is closed already", () => {
    const lines: Input[] = [{ on: "socket_closed" }, { on: "network_back" }, { on: "moved", reason: "node_lost", retryAfterMs: 300 }];
    const progress: Input[][] = [[], [{ on: "answered" }, { on: "media", state: "connecting" }]];
    for (const line of lines) {
      for (const before of progress) {
        const driver = Driver.inCall();
        driver.on({ on: "renew" }, ...before, line);
        assert.equal(driver.session.state, "lost", `${line.on} after ${before.length}`);
      }
    }
    // Asked for without a socket it has closed nothing yet.
    const driver = Driver.inCall();
    driver.on({ on: "socket_closed" }, { on: "renew" });
    assert.equal(driver.session.state, "reconnecting");
  });

  it("before the first one nothing is needed, and while one is made another one follows", () => {
    const driver = new Driver();
    driver.on({ on: "renew" }, { on: "connect" }, { on: "socket_opened" }, { on: "renew" });
    assert.deepEqual(driver.done, ["open_socket", "hello token"]);
    driver.on({ on: "welcome", resumed: false, resume: "r1" }, { on: "renew" });
    assert.deepEqual(driver.done, ["offer first"]);
    driver.on({ on: "answered" });
    assert.deepEqual(driver.done, ["offer replace"]);
  });
});

describe("joining", () => {
  it("says hello with the token, then makes one offer", () => {
    const driver = new Driver();
    driver.on({ on: "connect" });
    assert.deepEqual(driver.done, ["open_socket"]);
    driver.on({ on: "socket_opened" });
    assert.deepEqual(driver.done, ["hello token"]);
    driver.on({ on: "welcome", resumed: false, resume: "r1" });
    assert.deepEqual(driver.done, ["offer first"]);
    assert.equal(driver.session.state, "connecting");
  });

  it("is in the call when media stands", () => {
    assert.equal(Driver.inCall().session.state, "in_call");
  });

  it("tells of each attempt, so that the page can say that nobody answers", () => {
    const driver = new Driver();
    driver.on({ on: "connect" });
    const told: number[] = [];
    for (let n = 0; n < 5; n += 1) {
      const effects = driver.on({ on: "socket_closed" }, { on: "timer", name: "socket" });
      if (effects.some((effect) => effect.do === "state" && effect.state === "connecting")) told.push(driver.session.socketAttempts);
    }
    assert.deepEqual(told, [1, 2, 3, 4, 5]);
  });

  it("ends when the token has expired, with the server's words", () => {
    const driver = new Driver();
    driver.on({ on: "connect" }, { on: "socket_opened" }, { on: "hello_refused", error: EXPIRED });
    assert.deepEqual([driver.session.state, driver.session.end, driver.session.error], ["ended", "expired", EXPIRED]);
    driver.on({ on: "socket_closed" }, { on: "timer", name: "socket" }, { on: "network_back" });
    assert.deepEqual(driver.effects, []);
  });

  it("ends as refused for any other fault of the token", () => {
    const driver = new Driver();
    driver.on({ on: "connect" }, { on: "socket_opened" }, { on: "hello_refused", error: { ...EXPIRED, code: "token_wrong_room" } });
    assert.equal(driver.session.end, "refused");
  });

  it("waits as long as the server says when the room is full", () => {
    const driver = new Driver();
    driver.on({ on: "connect" }, { on: "socket_opened" });
    driver.on({ on: "hello_refused", error: { ...NO_NODE, code: "room_full", retry_after_ms: 5_000 } });
    assert.equal(driver.timer("socket"), 5_000);
    assert.equal(driver.session.state, "connecting");
  });

  it("offers again when no media node was there", () => {
    const driver = new Driver();
    driver.on({ on: "connect" }, { on: "socket_opened" }, { on: "welcome", resumed: false, resume: "r1" });
    driver.on({ on: "offer_refused", error: NO_NODE });
    assert.equal(driver.timer("offer_again"), 1_000);
    driver.on({ on: "timer", name: "offer_again" });
    assert.deepEqual(driver.done, ["offer first"]);
  });

  it("gives up on an offer that the server will never take", () => {
    const driver = new Driver();
    driver.on({ on: "connect" }, { on: "socket_opened" }, { on: "welcome", resumed: false, resume: "r1" });
    for (let n = 0; n < 3; n += 1) driver.on({ on: "offer_refused", error: BAD_SDP }, { on: "timer", name: "offer_again" });
    assert.deepEqual([driver.session.state, driver.session.end], ["ended", "refused"]);
  });
});

describe("lost socket", () => {
  it("lets sound go on and resumes without an offer", () => {
    const driver = Driver.inCall();
    driver.on({ on: "socket_closed" });
    assert.equal(driver.session.state, "reconnecting");
    assert.deepEqual(driver.done, []);
    driver.on({ on: "timer", name: "socket" }, { on: "socket_opened" });
    assert.deepEqual(driver.done, ["open_socket", "hello r1"]);
    driver.on({ on: "welcome", resumed: true, resume: "r2" });
    assert.deepEqual(driver.done, []);
    assert.equal(driver.session.state, "in_call");
  });

  it("tries for ever, from 50 ms doubling to 2 s", () => {
    const driver = Driver.inCall();
    const delays: (number | undefined)[] = [];
    for (let n = 0; n < 100; n += 1) {
      driver.on({ on: "socket_closed" });
      delays.push(driver.timer("socket"));
      driver.on({ on: "timer", name: "socket" });
    }
    assert.deepEqual(delays.slice(0, 8), [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
    assert.equal(delays.at(-1), 2_000);
  });

  it("begins with short delays again after a welcome", () => {
    const driver = Driver.inCall();
    for (let n = 0; n < 5; n += 1) driver.on({ on: "socket_closed" }, { on: "timer", name: "socket" });
    driver.on({ on: "socket_opened" }, { on: "welcome", resumed: true, resume: "r2" }, { on: "socket_closed" });
    assert.equal(driver.timer("socket"), 50);
  });

  it("comes in anew with the token when the resume is refused", () => {
    const driver = Driver.inCall();
    driver.on({ on: "socket_closed" }, { on: "timer", name: "socket" }, { on: "socket_opened" });
    driver.on({ on: "hello_refused", error: RESUME_EXPIRED });
    assert.deepEqual(driver.done, ["close_socket", "open_socket"]);
    driver.on({ on: "socket_opened" });
    assert.deepEqual(driver.done, ["hello token"]);
    driver.on({ on: "welcome", resumed: false, resume: "r9" });
    assert.deepEqual(driver.done, ["offer replace"]);
  });

  it("gives up on a server that accepts the socket and says nothing", () => {
    const driver = new Driver();
    driver.on({ on: "connect" }, { on: "socket_opened" }, { on: "timer", name: "welcome" });
    assert.deepEqual(driver.done, ["open_socket", "hello token", "close_socket"]);
    assert.ok(driver.timer("socket") !== undefined);
  });

  it("does not wait for its timer when the network is back", () => {
    const driver = Driver.inCall();
    driver.on({ on: "socket_closed" }, { on: "network_back" });
    assert.deepEqual(driver.done, ["open_socket"]);
  });

  it("does not trust a socket from before the network changed", () => {
    const driver = Driver.inCall();
    driver.on({ on: "network_back" });
    assert.deepEqual(driver.done, ["close_socket", "open_socket"]);
    assert.ok(driver.effects.some((effect) => effect.do === "close_socket" && !effect.goodbye));
  });

  it("makes an offer again whose answer went down with the socket", () => {
    const driver = new Driver();
    driver.on({ on: "connect" }, { on: "socket_opened" }, { on: "welcome", resumed: false, resume: "r1" }, { on: "socket_closed" });
    driver.on({ on: "timer", name: "socket" }, { on: "socket_opened" }, { on: "welcome", resumed: true, resume: "r2" });
    assert.equal(driver.done.at(-1)?.startsWith("offer"), true);
  });
});

describe("lost media", () => {
  it("gives a short gap time to heal", () => {
    const driver = Driver.inCall();
    driver.on({ on: "media", state: "disconnected" });
    assert.equal(driver.session.state, "lost");
    assert.equal(driver.timer("media"), DISCONNECTED_MS_MAX);
    driver.on({ on: "media", state: "connected" });
    assert.deepEqual([driver.session.state, driver.done], ["in_call", []]);
  });

  it("restarts ICE first and makes a new connection when that did not help", () => {
    const driver = Driver.inCall();
    driver.on({ on: "media", state: "disconnected" }, { on: "timer", name: "media" });
    assert.deepEqual(driver.done, ["offer ice_restart"]);
    driver.on({ on: "answered" }, { on: "media", state: "failed" }, { on: "timer", name: "offer_again" });
    assert.deepEqual(driver.done, ["offer replace"]);
    driver.on({ on: "answered" }, { on: "media", state: "connected" });
    assert.equal(driver.session.state, "in_call");
  });

  it("makes new connections with growing pauses as long as none comes up", () => {
    const driver = Driver.inCall();
    driver.on({ on: "media", state: "failed" }, { on: "answered" });
    const pauses: (number | undefined)[] = [];
    for (let n = 0; n < 6; n += 1) {
      driver.on({ on: "timer", name: "media" });
      pauses.push(driver.timer("offer_again"));
      driver.on({ on: "timer", name: "offer_again" }, { on: "answered" });
    }
    assert.deepEqual(pauses, [200, 400, 800, 1_600, 3_200, 5_000]);
  });

  it("keeps the old connection while the server cannot restart ICE, for it may heal by itself", () => {
    const driver = Driver.inCall();
    driver.on({ on: "media", state: "failed" }, { on: "offer_refused", error: NO_NODE }, { on: "timer", name: "offer_again" });
    assert.deepEqual(driver.done, ["offer ice_restart", "offer ice_restart"]);
    driver.on({ on: "media", state: "connected" }, { on: "answered" });
    assert.deepEqual([driver.session.state, driver.done], ["in_call", []]);
  });

  it("waits for the socket when both are lost", () => {
    const driver = Driver.inCall();
    driver.on({ on: "socket_closed" }, { on: "media", state: "failed" });
    assert.deepEqual(driver.done, []);
    driver.on({ on: "timer", name: "socket" }, { on: "socket_opened" }, { on: "welcome", resumed: true, resume: "r2" });
    assert.equal(driver.done.at(-1), "offer ice_restart");
  });

  it("makes a new connection after the time that the server names when its node was lost", () => {
    const driver = Driver.inCall();
    driver.on({ on: "moved", reason: "node_lost", retryAfterMs: 300 });
    assert.deepEqual([driver.session.state, driver.timer("offer_again")], ["lost", 300]);
    driver.on({ on: "timer", name: "offer_again" });
    assert.deepEqual(driver.done, ["offer replace"]);
  });
});

describe("endings", () => {
  for (const reason of ["replaced", "evicted"] as const) {
    it(`does not come back after it was ${reason}`, () => {
      const driver = Driver.inCall();
      driver.on({ on: "moved", reason, retryAfterMs: undefined });
      assert.deepEqual([driver.session.state, driver.session.end], ["ended", reason]);
      assert.deepEqual(driver.done, ["close_socket", "close_media"]);
    });
  }

  it("leaves for good", () => {
    const driver = Driver.inCall();
    driver.on({ on: "leave" });
    assert.equal(driver.session.end, "left");
    assert.deepEqual(driver.on({ on: "connect" }, { on: "media", state: "failed" }), []);
  });
});

it("never has two offers in flight and never sends without a socket, whatever happens in whatever order", () => {
  const inputs: Input[] = [
    { on: "socket_opened" },
    { on: "socket_closed" },
    { on: "welcome", resumed: false, resume: "a" },
    { on: "welcome", resumed: true, resume: "b" },
    { on: "hello_refused", error: RESUME_EXPIRED },
    { on: "answered" },
    { on: "offer_refused", error: NO_NODE },
    ...(["connecting", "connected", "disconnected", "failed"] as const).map((state): Input => ({ on: "media", state })),
    { on: "moved", reason: "node_lost", retryAfterMs: 1 },
    ...(["socket", "welcome", "media", "offer_again"] as const).map((name): Input => ({ on: "timer", name })),
    { on: "network_back" },
  ];
  const random = seeded(7);
  for (let round = 0; round < 300; round += 1) playRandomly(inputs, random);
});

function playRandomly(inputs: readonly Input[], random: () => number): void {
  const session = new Session(random);
  let socket: "closed" | "opening" | "open" | "ready" = "closed";
  let offers = 0;
  const apply = (input: Input) => {
    if (input.on === "socket_opened") socket = "open";
    if (input.on === "socket_closed") [socket, offers] = ["closed", 0];
    if (input.on === "welcome") socket = "ready";
    if (input.on === "answered" || input.on === "offer_refused") offers -= 1;
    for (const effect of session.handle(input)) {
      if (effect.do === "open_socket") socket = "opening";
      if (effect.do === "close_socket") [socket, offers] = ["closed", 0];
      if (effect.do !== "offer") continue;
      assert.equal(socket, "ready");
      offers += 1;
      assert.equal(offers, 1);
    }
  };
  apply({ on: "connect" });
  for (let step = 0; step < 200; step += 1) {
    const input = inputs[Math.floor(random() * inputs.length)];
    if (input !== undefined && possible(input, socket, offers)) apply(input);
  }
}

/** What a socket and a server can really do in this order. */
function possible(input: Input, socket: string, offers: number): boolean {
  switch (input.on) {
    case "socket_opened":
      return socket === "opening";
    case "socket_closed":
      return socket !== "closed";
    case "welcome":
    case "hello_refused":
      return socket === "open";
    case "answered":
    case "offer_refused":
      return offers > 0;
    case "moved":
      return socket === "ready";
    case "timer":
      return input.name !== "welcome" || socket === "opening" || socket === "open";
    default:
      return true;
  }
}

describe("back-off", () => {
  it("stays between half of the step and the step", () => {
    const random = seeded(3);
    const backoff = new Backoff({ firstMs: 50, maxMs: 2_000 }, random);
    for (let n = 0; n < 2_000; n += 1) {
      const step = Math.min(2_000, 50 * 2 ** n);
      const ms = backoff.nextMs();
      assert.ok(ms >= Math.floor(step / 2) && ms <= step, `${ms} after ${n}`);
    }
  });
});

/** mulberry32 */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
