// How models are listed: short names, sizes, context windows, and whether they are loaded.

import { el } from "./dom.js";

/** A name for each id: its last part, unless another id has the same one. */
export function shortNames(ids) {
  const short = ids.map((id) => id.split("/").at(-1) || id);
  return new Map(
    ids.map((id, index) => [
      id,
      short.indexOf(short[index]) === short.lastIndexOf(short[index]) ? short[index] : id,
    ]),
  );
}

export const sizeText = (bytes) =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.max(1, Math.round(bytes / 1e6))} MB`;

/** Nearly all windows are powers of two. */
export const windowText = (tokens) =>
  tokens >= 1024 ? `${Math.round(tokens / 1024)}k` : String(tokens);

/** `1.6 GB · 32k window · loaded`, without what is unknown. */
export function factsText({ size, window, state }) {
  return [
    size && sizeText(size),
    window && `${windowText(window)} window`,
    state === "loaded" && "loaded",
    state === "loading" && "loading…",
  ]
    .filter(Boolean)
    .join(" · ");
}

/** Fill a <select>. selected: an id, which is listed even if the server does not have it. */
export function drawOptions(select, models, selected, none = "no model") {
  const names = shortNames(models.map(({ id }) => id));
  const options = models.map((model) =>
    option(model.id, names.get(model.id), factsText(model), model.state),
  );
  if (!models.some(({ id }) => id === selected))
    options.unshift(option(selected, selected ? `${selected} (not available)` : none, "", ""));
  const drawn = JSON.stringify([models, selected]);
  if (select.dataset.drawn === drawn) return;
  select.dataset.drawn = drawn;
  // In browsers that can style the list, the closed field shows only the name.
  select.replaceChildren(el("button", { type: "button" }, el("selectedcontent")), ...options);
  select.value = selected;
}

function option(id, name, facts, state) {
  return el(
    "option",
    { value: id, title: id, class: state || null },
    el("span", { class: "name" }, name),
    facts && el("span", { class: "facts" }, ` ${facts}`),
  );
}
