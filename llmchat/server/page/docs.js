// The documents that the server offers (`serve --docs`): which of them this chat searches.

import { call } from "./api.js";
import { app } from "./app.js";
import { el, find } from "./dom.js";

let known = [];

/** Ask the server for its documents. */
export async function loadDocs() {
  try {
    known = (await (await call("api/docs")).json()).data;
  } catch (error) {
    // Another user of this machine may chat with the server, but not search its documents.
    if (error.status !== 403 && error.status !== 404) throw error;
  }
}

/** Those of the names that the server offers. */
export const offered = (names = []) => names.filter((name) => known.some(({ id }) => id === name));

/** onchange(names): the user chose other documents. */
export function listenToDocs(onchange) {
  const menu = find("#docs-menu");
  menu.addEventListener("change", () => {
    const chosen = [...menu.querySelectorAll("input:checked")].map(({ value }) => value);
    onchange(chosen);
    drawDocs();
  });
  find("#docs-toggle").addEventListener("click", ({ currentTarget }) => {
    menu.togglePopover();
    place(menu, currentTarget);
  });
  menu.addEventListener("toggle", ({ newState }) => {
    find("#docs-toggle").setAttribute("aria-expanded", newState === "open");
    if (newState === "open") menu.querySelector("input").focus();
  });
}

function place(menu, button) {
  if (!menu.matches(":popover-open")) return;
  const from = button.getBoundingClientRect();
  const { width, height } = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(from.left, innerWidth - width - 8))}px`;
  menu.style.top = `${Math.max(8, from.top - height - 8)}px`;
}

export function drawDocs() {
  const button = find("#docs-toggle");
  const chosen = offered(app.chats.open.docs);
  button.hidden = !known.length;
  button.textContent = chosen.length ? `Documents: ${chosen.length}` : "Documents";
  button.classList.toggle("on", chosen.length > 0);
  button.title = chosen.length ? `Searched: ${chosen.join(", ")}` : "Search documents in this chat";
  find("#docs-menu").replaceChildren(
    el("p", { class: "hint" }, "Search for each question in"),
    ...known.map((index) => choice(index, chosen.includes(index.id))),
  );
}

function choice({ id, documents }, checked) {
  const count = `${documents.toLocaleString("en")} document${documents === 1 ? "" : "s"}`;
  return el(
    "label",
    {},
    el("input", { type: "checkbox", value: id, checked }),
    el("span", { class: "name" }, id),
    el("span", { class: "facts" }, count),
  );
}
