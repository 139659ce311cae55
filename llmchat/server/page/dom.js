// Helpers for building the document. They insert text as text, and never parse HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Attributes named `on…` become listeners; false and null ones are omitted. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

/** One of the icons in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon, and `label` as its tooltip and accessible name. */
export function iconButton(name, label, onclick, attributes = {}) {
  return el(
    "button",
    { type: "button", class: "quiet", "aria-label": label, title: label, onclick, ...attributes },
    icon(name),
  );
}

export const find = (selector, root = document) => root.querySelector(selector);

/**
 * Copy text to the clipboard; returns false if the browser blocks it.
 * Pages over plain HTTP have no clipboard API, so there is a fallback.
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "hidden", "aria-hidden": "true" });
    const focused = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}

/** Let the user save a text as a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** The text of a file that the user picks; null if none is picked. */
export function pick(accept) {
  return new Promise((resolve) => {
    const input = el("input", { type: "file", accept });
    input.addEventListener("change", async () =>
      resolve(input.files.length ? await input.files[0].text() : null),
    );
    input.addEventListener("cancel", () => resolve(null));
    input.click();
  });
}
