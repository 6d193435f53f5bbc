// The page: reads the link, asks how to join, shows the call, says how it ended. One screen at a time in #app.

import "./styles.css";
import { CaptureFailed, CarillonClient } from "../client/index.ts";
import worker from "../client/low-delay/worker.ts?worker&url";
import worklet from "../client/low-delay/worklet.ts?worker&url";
import type { EndReason } from "../client/index.ts";
import { CallView } from "./call.ts";
import { exposeDebugHooks } from "./debug.ts";
import { h, logo } from "./dom.ts";
import { endingView } from "./ending.ts";
import { readLink } from "./link.ts";
import type { Link } from "./link.ts";
import { PreJoin } from "./prejoin.ts";
import type { JoinChoice } from "./prejoin.ts";
import { wantsLowDelay } from "./low-delay.ts";
import { mayComeAgain } from "./words.ts";

type ReadyLink = Extract<Link, { kind: "ready" }>;

const app = document.querySelector<HTMLElement>("#app") ?? document.body;
let call: { client: CarillonClient; view: CallView } | null = null;

start();
addEventListener("hashchange", () => start());
// A page out of the back-forward cache has neither socket nor media.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

function start(): void {
  closeCall();
  const link = readLink(location.pathname, location.hash, Date.now());
  document.title = link.room === null ? "Carillon" : `${link.room} · Carillon`;
  if (link.kind !== "ready") return showPlain(endingView(link.kind, null, null));
  if (link.autoJoin !== null) return void joinAtOnce(link, link.autoJoin === "mic");
  showJoin(link);
}

function showJoin(link: ReadyLink): void {
  const card = new PreJoin(link, (choice) => join(link, choice));
  showPlain(card.element);
}

/** For links that say `join=`: a kiosk, an embedded player. The microphone is only used if the browser gives it without a click. */
async function joinAtOnce(link: ReadyLink, withMicrophone: boolean): Promise<void> {
  const { client, view } = join(link, { name: link.name, track: null, deviceId: "" });
  if (!withMicrophone || !client.sendable.includes("mic")) return;
  await client.useMicrophone().catch((error: unknown) => {
    view.notify(error instanceof CaptureFailed ? error.message : "The microphone could not be opened.", true);
  });
}

function join(link: ReadyLink, choice: JoinChoice): { client: CarillonClient; view: CallView } {
  const named = choice.name === "" ? {} : { name: choice.name };
  const lowDelay = { lowDelay: wantsLowDelay(), lowDelayScripts: { worker, worklet } };
  const client = new CarillonClient({ room: link.room, token: link.token, relayOnly: link.relayOnly, ...lowDelay, ...named });
  exposeDebugHooks(client);
  const view = new CallView(client, link.room, choice.deviceId);
  call = { client, view };
  client.on("state", ({ state, end }) => {
    if (state === "ended" && end !== null) ended(link, client, end);
  });
  app.replaceChildren(view.element);
  if (choice.track !== null) void client.sendMicrophone(choice.track);
  client.connect();
  return call;
}

function ended(link: ReadyLink, client: CarillonClient, end: EndReason): void {
  if (call?.client !== client) return;
  closeCall();
  const again = mayComeAgain(end, client.error?.code) ? () => showJoin(link) : null;
  showPlain(endingView(end, client.error, again));
}

function closeCall(): void {
  const ending = call;
  call = null;
  ending?.view.destroy();
  void ending?.client.leave();
}

function showPlain(card: HTMLElement): void {
  app.replaceChildren(h("div", { class: "plain" }, h("header", { class: "brand" }, logo(), h("span", {}, "Carillon")), h("main", {}, card)));
}
