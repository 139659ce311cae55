// Footnotes in Markdown: `[^name]` in the text, and a line `[^name]: the note`.

import { el } from "./dom.js";

const NOTE = /^\[\^([^\]\s]{1,60})\]:[ \t]*([^\n]*(?:\n(?!\[\^)[ \t]*[^\s][^\n]*)*)(?:\n|$)/;

/** Extensions for `marked`. They render placeholders, which `drawFootnotes` fills. */
export const footnoteExtensions = [
  {
    name: "footnote",
    level: "block",
    childTokens: ["tokens"],
    start: (source) => (/\n\[\^[^\]\s]+\]:/.exec(source)?.index ?? -2) + 1 || undefined,
    tokenizer(source) {
      const match = NOTE.exec(source);
      if (!match) return undefined;
      const token = { type: "footnote", raw: match[0], label: match[1], tokens: [] };
      this.lexer.inline(match[2], token.tokens);
      return token;
    },
    renderer(token) {
      const label = `<span class="footnote-label">${escaped(token.label)}</span>`;
      return `<p class="footnote">${label} ${this.parser.parseInline(token.tokens)}</p>`;
    },
  },
  {
    name: "footnoteReference",
    level: "inline",
    start: (source) => source.indexOf("[^"),
    tokenizer(source) {
      const match = /^\[\^([^\]\s]{1,60})\]/.exec(source);
      return match ? { type: "footnoteReference", raw: match[0], label: match[1] } : undefined;
    },
    renderer: ({ label }) => `<span class="footnote-reference">${escaped(label)}</span>`,
  },
];

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** The names of the footnotes among a text's blocks, in order. */
export const footnoteLabels = (tokens) => [
  ...new Set(tokens.filter(({ type }) => type === "footnote").map(({ label }) => label)),
];

/** Number the references and notes, and link them. A reference without a note stays as text. */
export function drawFootnotes(element, labels) {
  for (const place of element.querySelectorAll(".footnote-reference")) {
    const label = place.textContent;
    const number = labels.indexOf(label) + 1;
    if (!number) place.replaceWith(`[^${label}]`);
    else
      place.replaceChildren(
        el(
          "sup",
          {},
          jump(`Footnote ${number}`, number, `.footnote-label [data-note="${number}"]`),
        ),
      );
  }
  for (const place of element.querySelectorAll(".footnote-label")) {
    const number = labels.indexOf(place.textContent) + 1;
    place.replaceChildren(
      jump(
        `Back to the text of footnote ${number}`,
        number,
        `.footnote-reference [data-note="${number}"]`,
      ),
    );
  }
}

/** A button, not a link: the fragment of the page's URL is the id of the conversation. */
function jump(name, number, target) {
  const onclick = ({ currentTarget }) =>
    currentTarget.closest(".markdown").querySelector(target)?.focus();
  return el(
    "button",
    {
      type: "button",
      class: "footnote-jump",
      "aria-label": name,
      title: name,
      "data-note": number,
      onclick,
    },
    String(number),
  );
}
