// Short notices above the message field. A notice with the same text replaces the older one.

import { el, find, iconButton } from "./dom.js";

const SHOWN_MS = 8000;

/** action: {label, run}; lasting: until it is dismissed. Returns a function that removes it. */
export function notice(text, { action = null, lasting = false, problem = false } = {}) {
  const place = find("#notices");
  for (const old of place.children) if (old.dataset.text === text) old.remove();
  const close = () => note.remove();
  const note = el(
    "div",
    { class: problem ? "notice problem" : "notice", "data-text": text },
    el("span", {}, text),
  );
  if (action)
    note.append(
      el("button", { type: "button", onclick: () => (close(), action.run()) }, action.label),
    );
  note.append(iconButton("close", "Dismiss", close));
  place.append(note);
  if (!lasting) setTimeout(close, SHOWN_MS);
  return close;
}

/** Announce a text to screen readers. */
export function say(text) {
  find("#said").textContent = text;
}
