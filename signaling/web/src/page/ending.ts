// The page when there is no call: no link, an old link, or a call that is over.

import type { EndReason, ProtocolError } from "../client/index.ts";
import { h, icon } from "./dom.ts";
import type { IconName } from "./dom.ts";
import { endingWords, errorWords } from "./words.ts";

const MARKS: Readonly<Record<EndReason | "no_token" | "bad_token", IconName>> = {
  left: "door",
  expired: "clock",
  refused: "link_off",
  replaced: "share",
  evicted: "door",
  no_token: "link_off",
  bad_token: "link_off",
};

export function endingView(reason: EndReason | "no_token" | "bad_token", error: ProtocolError | null, again: (() => void) | null): HTMLElement {
  const { title, text } = endingWords(reason);
  const said = error === null ? null : h("p", { class: "said", id: "server-hint" }, errorWords(error));
  const button = again === null ? null : h("button", { type: "button", id: "rejoin", class: "primary", onclick: again }, "Join again");
  return h(
    "section",
    { class: "card notice", id: "notice", "data-reason": reason, "data-code": error?.code, role: "alert" },
    h("span", { class: "notice-mark", "aria-hidden": "true" }, icon(MARKS[reason])),
    h("h1", {}, title),
    text === "" ? null : h("p", {}, text),
    said,
    button === null ? null : h("div", { class: "actions" }, button),
  );
}
