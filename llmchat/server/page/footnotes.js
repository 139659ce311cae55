// Footnotes: `[^name]` in the text, `[^name]: the note` in a line of its own.

import { el } from "./dom.js";

const NOTE = /^\[\^([^\]\s]{1,60})\]:[ \t]*([^\n]*(?:\n(?!\[\^)[ \t]*[^\s][^\n]*)*)(?:\n|$)/;

/** For `marked`. What they render is a place that `drawFootnotes` fills. */
export const footnoteExtensions = [
  {
    name: "footnote", level: "block", childTokens: ["tokens"],
    start: (source) => (/\n\[\^[^\]\s]+\]:/.exec(source)?.index ?? -2) + 1 || undefined,
    tokenizer(source) {
      const match = NOTE.exec(source);
      if (!match) return undefined;
      const token = { type: "footnote", raw: match[0], label: match[1], tokens: [] };
      this.lexer.inline(match[2], token.tokens);
      return token;
    },
    renderer(token) {
      return `<p class="footnote"><span class="footnote-label">${escaped(token.label)}</span> ${this.parser.parseInline(token.tokens)}</p>`;
    },
  },
  {
    name: "footnoteReference", level: "inline",
    start: (source) => source.indexOf("[^"),
    tokenizer(source) {
      const match = /^\[\^([^\]\s]{1,60})\]/.exec(source);
      return match ? { type: "footnoteReference", raw: match[0], label: match[1] } : undefined;
    },
    renderer: ({ label }) => `<span class="footnote-reference">${escaped(label)}</span>`,
  },
];

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** The names of the notes among the blocks of a text, in order. */
export const footnoteLabels = (tokens) => [...new Set(tokens.filter(({ type }) => type === "footnote").map(({ label }) => label))];

/** References and notes get numbers, and lead to each other. A reference without a note stays as it was written. */
export function drawFootnotes(element, labels) {
  for (const place of element.querySelectorAll(".footnote-reference")) {
    const label = place.textContent;
    const number = labels.indexOf(label) + 1;
    if (!number) place.replaceWith(`[^${label}]`);
    else place.replaceChildren(el("sup", {}, jump(`Footnote ${number}`, number, `.footnote-label [data-note="${number}"]`)));
  }
  for (const place of element.querySelectorAll(".footnote-label")) {
    const number = labels.indexOf(place.textContent) + 1;
    place.replaceChildren(jump(`Back to the text of footnote ${number}`, number, `.footnote-reference [data-note="${number}"]`));
  }
}

/** Not a link with a fragment: the address of the page names the conversation. */
function jump(name, number, target) {
  const onclick = ({ currentTarget }) => currentTarget.closest(".markdown").querySelector(target)?.focus();
  return el("button", { type: "button", class: "footnote-jump", "aria-label": name, title: name, "data-note": number, onclick }, String(number));
}
