// The models that the server has: their names, sizes and windows, and whether they are in memory.

import { el } from "./dom.js";

/** A name for each id: its last part, where no other id has the same. */
export function shortNames(ids) {
  const short = ids.map((id) => id.split("/").at(-1) || id);
  return new Map(ids.map((id, index) => [id, short.indexOf(short[index]) === short.lastIndexOf(short[index]) ? short[index] : id]));
}

export const sizeText = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.max(1, Math.round(bytes / 1e6))} MB`);

/** Windows are powers of two, nearly always. */
export const windowText = (tokens) => (tokens >= 1024 ? `${Math.round(tokens / 1024)}k` : String(tokens));

/** `1.6 GB · 32k window · loaded`, as far as it is known. */
export function factsText({ size, window, state }) {
  return [size && sizeText(size), window && `${windowText(window)} window`, state === "loaded" && "loaded", state === "loading" && "loading…"].filter(Boolean).join(" · ");
}

/** The choices of a picker. selected: an id, which is listed also where the server does not have it. */
export function drawOptions(select, models, selected, none = "no model") {
  const names = shortNames(models.map(({ id }) => id));
  const options = models.map((model) => option(model.id, names.get(model.id), factsText(model), model.state));
  if (!models.some(({ id }) => id === selected)) options.unshift(option(selected, selected ? `${selected} (not served)` : none, "", ""));
  const drawn = JSON.stringify([models, selected]);
  if (select.dataset.drawn === drawn) return;
  select.dataset.drawn = drawn;
  // Browsers that can style the list show the name alone in the closed field.
  select.replaceChildren(el("button", { type: "button" }, el("selectedcontent")), ...options);
  select.value = selected;
}

function option(id, name, facts, state) {
  return el("option", { value: id, title: id, class: state || null }, el("span", { class: "name" }, name), facts && el("span", { class: "facts" }, ` ${facts}`));
}
