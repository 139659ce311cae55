// The cards of an answer's tool calls. Everything that a model or a tool wrote is shown as text.

import { el } from "./dom.js";
import { render } from "./markdown.js";
import { argumentsOf } from "./rounds.js";

const SHOWN = 600;
const STATES = {
  asking: "needs your permission",
  waiting: "waits",
  running: "is running…",
  done: "",
  failed: "failed",
  refused: "was refused",
  open: "did not run",
};

/** Draw the rounds of an answer. Parts that did not change stay, so that they keep the focus. */
export function drawRounds(place, { rounds = [] }, run) {
  const parts = rounds.flatMap((round) => [
    { drawn: JSON.stringify([round.text, round.thinking]), make: () => written(round) },
    ...round.calls.map((call) => ({
      drawn: JSON.stringify([call, stateOf(call, run)]),
      make: () => card(call, run),
    })),
  ]);
  parts.forEach((part, index) => drawPart(place, part, index));
  while (place.children.length > parts.length) place.lastChild.remove();
}

function drawPart(place, { drawn, make }, index) {
  const old = place.children[index];
  if (old?.drawn === drawn) return;
  const focused = old?.contains(document.activeElement);
  const item = Object.assign(make(), { drawn });
  if (old) old.replaceWith(item);
  else place.append(item);
  if (focused) item.focus();
}

function stateOf(call, run) {
  if (call.allowed === false) return "refused";
  if (call.result !== undefined) return call.error ? "failed" : "done";
  if (run?.asking === call) return "asking";
  if (run?.running === call) return "running";
  return run ? "waiting" : "open";
}

function written({ text, thinking }) {
  const body = el("div", { class: "markdown", dir: "auto" });
  render(body, text);
  const thought =
    thinking &&
    el(
      "details",
      { class: "thinking" },
      el("summary", {}, "Thinking"),
      el("div", { class: "thought" }, thinking),
    );
  return el("div", {}, thought, text.trim() && body);
}

function card(call, run) {
  const state = stateOf(call, run);
  return el(
    "section",
    { class: `call ${state}`, role: "group", tabindex: "-1", "aria-label": `Call of ${call.name}` },
    el("p", { class: "call-head" }, el("strong", {}, call.name), ` ${STATES[state]}`),
    el("pre", { tabindex: "0", "aria-label": "Arguments" }, readable(call)),
    state === "asking" && buttons(run),
    call.result !== undefined && state !== "refused" && result(call),
  );
}

/** The whole arguments. Invisible characters, which could disguise them, are shown as escapes. */
function readable(call) {
  const value = argumentsOf(call);
  const text = value ? JSON.stringify(value, null, 2) : call.arguments;
  return text.replace(/\p{Cf}/gu, (sign) => `\\u{${sign.codePointAt(0).toString(16)}}`);
}

function buttons(run) {
  const button = (label, reply, attributes = {}) =>
    el("button", { type: "button", onclick: () => run.answer(reply), ...attributes }, label);
  return el(
    "div",
    { class: "call-buttons" },
    button("Run once", "once", { class: "primary" }),
    button("Allow in this chat", "chat"),
    button("Refuse", "no"),
  );
}

function result({ result: text, error, seconds, sources = [] }) {
  const shown = el("pre", { tabindex: "0", "aria-label": "Result" }, text.slice(0, SHOWN));
  const all = () => (shown.replaceChildren(text), more.remove(), shown.focus());
  const more = el(
    "button",
    { type: "button", onclick: all },
    `Show all ${text.length.toLocaleString("en")} characters`,
  );
  const time = seconds === undefined ? "" : ` · ${seconds.toFixed(1)} s`;
  return el(
    "details",
    { open: Boolean(error) },
    el("summary", {}, `${error ? "Error" : "Result"}${time}`),
    shown,
    text.length > SHOWN && more,
    sources.length > 0 && el("ul", {}, ...sources.map(source)),
  );
}

function source({ n, title, url }) {
  const name = `[${n}] ${title || url}`;
  // Other schemes, such as javascript:, stay text.
  const link = /^https?:\/\//i.test(url);
  const attributes = { href: url, target: "_blank", rel: "noopener noreferrer" };
  return el("li", {}, link ? el("a", attributes, name) : name);
}
