// Short notes above the message field. One of each kind at a time.

import { el, find, iconButton } from "./dom.js";

const SHOWN_MS = 8000;

/** action: {label, run}. lasting: until the user closes it. Returns a function that takes it away. */
export function notice(text, { action = null, lasting = false, problem = false } = {}) {
  const place = find("#notices");
  for (const old of place.children) if (old.dataset.text === text) old.remove();
  const close = () => note.remove();
  const note = el("div", { class: problem ? "notice problem" : "notice", "data-text": text }, el("span", {}, text));
  if (action) note.append(el("button", { type: "button", onclick: () => (close(), action.run()) }, action.label));
  note.append(iconButton("close", "Close this note", close));
  place.append(note);
  if (!lasting) setTimeout(close, SHOWN_MS);
  return close;
}

/** For those who do not see the page. */
export function say(text) {
  find("#said").textContent = text;
}
