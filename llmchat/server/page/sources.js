// The files of a message, and the numbered sources of an answer: passages of documents and files.
//
// file: {id, name, characters}
// source: {n, source, title, text, start, end, score}

import { el } from "./dom.js";

const CITED = /\[(\d{1,4})\]/g;
const NO_TEXT = "code, pre, a, button, math, .footnote";

/** The names of the files of a message. */
export function drawFiles(place, files = []) {
  place.replaceChildren(
    ...files.map(({ name }) =>
      el("li", { class: "file" }, el("span", { class: "file-name", title: name }, name)),
    ),
  );
  place.hidden = !files.length;
}

/** The sources of an answer; each opens to show its passage. Unchanged ones stay open. */
export function drawSources(place, { sources = [], searched = [] }) {
  const drawn = JSON.stringify([sources, searched]);
  if (place.drawn === drawn) return;
  place.drawn = drawn;
  place.hidden = !sources.length;
  const names = searched.join(", ");
  place.replaceChildren(
    el("h3", {}, "Sources"),
    el("p", { class: "hint", hidden: !names }, `Too long for the window, so searched: ${names}.`),
    el("ol", {}, ...sources.map(item)),
  );
}

function item(source) {
  const { n, title, text } = source;
  return el(
    "li",
    {},
    el(
      "details",
      { "data-source": n },
      el("summary", { title }, el("span", { class: "number" }, `[${n}]`), " ", nameOf(source)),
      el("p", { class: "passage", dir: "auto", tabindex: "0", "aria-label": "Passage" }, text),
    ),
  );
}

/** The name of a document without its folders, and its heading. */
function nameOf({ source, title }) {
  const name = source.split("/").at(-1) || source;
  return title.startsWith(source) ? name + title.slice(source.length) : title;
}

/** Make the numbers of sources in an answer buttons that open them. */
export function linkCitations(body, sources = []) {
  const known = new Set(sources.map(({ n }) => n));
  if (!known.size) return;
  const texts = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = texts.nextNode(); node; node = texts.nextNode())
    if (node.data.includes("[") && !node.parentElement.closest(NO_TEXT)) found.push(node);
  for (const node of found) replaceCitations(node, known);
}

function replaceCitations(node, known) {
  const parts = [];
  let end = 0;
  for (const match of node.data.matchAll(CITED)) {
    const n = Number(match[1]);
    if (!known.has(n)) continue;
    parts.push(node.data.slice(end, match.index), citation(n));
    end = match.index + match[0].length;
  }
  if (parts.length) node.replaceWith(...parts, node.data.slice(end));
}

function citation(n) {
  const label = `Open source ${n}`;
  const onclick = ({ currentTarget }) => open(currentTarget, n);
  const attributes = { type: "button", class: "cite", "aria-label": label, title: label };
  return el("button", { ...attributes, onclick }, `[${n}]`);
}

function open(button, n) {
  const details = button.closest(".message").querySelector(`details[data-source="${n}"]`);
  if (!details) return;
  details.open = true;
  details.scrollIntoView({ block: "nearest" });
  details.querySelector("summary").focus();
}

/** Sources as Markdown, for export. */
export function markdownOfSources({ sources = [] }) {
  return sources.length ? [sources.map(({ n, title }) => `[${n}] ${title}`).join("  \n")] : [];
}

/** Files as Markdown, for export. */
export function markdownOfFiles({ files = [] }) {
  return files.length ? [files.map(({ name }) => `*${name}*`).join(", ")] : [];
}

/** The valid ones of the files of a stored or imported message. */
export function checkedFiles(files) {
  return Array.isArray(files)
    ? files
        .filter((file) => typeof file?.id === "string" && typeof file.name === "string")
        .map(({ id, name, characters }) => ({ id, name, characters: Number(characters) || 0 }))
    : [];
}

/** The valid ones of the sources of a stored or imported answer. */
export function checkedSources(sources) {
  if (!Array.isArray(sources)) return [];
  return sources.filter(isSource).map(({ n, source, title, text, start, end, score }) => ({
    n,
    source,
    title,
    text,
    start: Number(start) || 0,
    end: Number(end) || 0,
    score: Number(score) || 0,
  }));
}

const isSource = (one) =>
  typeof one?.n === "number" &&
  ["source", "title", "text"].every((name) => typeof one[name] === "string");
