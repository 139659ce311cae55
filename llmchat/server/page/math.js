// Formulas in Markdown: `$…$`, `$$…$$`, `\(…\)` and `\[…\]`, drawn as MathML. They are tokenised
// before Markdown interprets their backslashes.

import { el } from "./dom.js";
import temml from "./vendor/temml.min.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";
// Longer and deeper formulas stay as text: drawing them could block the page.
const LONGEST = 4000;
const DEEPEST = 60;
// Attributes that refer to other elements or URLs.
const UNWANTED = ["id", "href", "xlink:href", "src"];

// Two ways to write a displayed formula, within a paragraph and as a block of its own.
const DOLLARS = /\$\$(?!\$)((?:(?!\$\$|\n[ \t]*\n)[^]){1,4000})\$\$/.source;
const BRACKETS = /\\\[((?:(?!\\\]|\n[ \t]*\n)[^]){1,4000})\\\]/.source;
const BLOCK_DOLLARS = /\$\$(?!\$)((?:(?!\$\$)[^]){1,4000})\$\$/.source;
const BLOCK_BRACKETS = /\\\[((?:(?!\\\])[^]){1,4000})\\\]/.source;
const DISPLAY = new RegExp(`^(?:${DOLLARS}|${BRACKETS})`);
const BLOCK = new RegExp(`^ {0,3}(?:${BLOCK_DOLLARS}|${BLOCK_BRACKETS})[ \\t]*(?:\\n|$)`);
const PAREN = /^\\\(((?:(?!\\\)|\n[ \t]*\n)[^]){1,4000})\\\)/;
// As in pandoc: no space inside the dollars, and no letter or digit after the second.
const DOLLAR = /^\$(?![\s$])((?:\\[^]|[^$\\`]){1,1000})(?<!\s)\$(?![\w$])/;
// A formula without its end, in a text that is still growing.
const UNFINISHED = /^ {0,3}(?:\$\$(?!\$)|\\\[)(?:(?!\n[ \t]*\n)[^]){0,4000}$/;

/** `$5 and 6$` is money: it starts with a number, has words, and no mathematical symbol. */
const isMoney = (tex) =>
  /^\d/.test(tex) && /(?:^|\s)[A-Za-z]{2,}/.test(tex) && !/[\\^_={}]/.test(tex);

function inline(source) {
  const display = DISPLAY.exec(source);
  if (display) return { raw: display[0], tex: display[1] ?? display[2], display: true };
  const match = PAREN.exec(source) ?? DOLLAR.exec(source);
  if (match && !(source[0] === "$" && isMoney(match[1])))
    return { raw: match[0], tex: match[1], display: false };
}

function block(source) {
  const match = BLOCK.exec(source);
  if (match) return { raw: match[0], tex: match[1] ?? match[2], display: true };
  const open = UNFINISHED.exec(source);
  if (open) return { raw: open[0], tex: null };
}

/** The index at which a formula may begin. A dollar within a word (`US$5`) begins none. */
function start(source) {
  for (const { index, 0: found } of source.matchAll(/\$+|\\[([]/g))
    if (found[0] === "\\" || !/[\w$]/.test(source[index - 1] ?? " ")) return index;
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const drawn = ({ raw, tex, display }) => {
  const kind = tex === null ? "math-open" : display ? "math-display" : "math-inline";
  return `<span class="${kind}">${escaped(tex === null ? raw : raw.trim())}</span>`;
};

/** Extensions for `marked`. They render placeholders, which `drawMath` fills. */
export const mathExtensions = [
  {
    name: "math",
    level: "inline",
    start,
    tokenizer: (source) =>
      /^(?:\$|\\[([])/.test(source) ? typed("math", inline(source)) : undefined,
    renderer: drawn,
  },
  {
    name: "mathBlock",
    level: "block",
    start: (source) => (/\n {0,3}(?:\$\$|\\\[)/.exec(source)?.index ?? -2) + 1 || undefined,
    tokenizer: (source) => typed("mathBlock", block(source)),
    renderer: (token) => `<p>${drawn(token)}</p>`,
  },
];

function typed(type, token) {
  return token && { type, ...token };
}

/** Fill the extensions' placeholders. A formula that cannot be parsed stays as text. */
export function drawMath(element) {
  for (const place of element.querySelectorAll("span.math-inline, span.math-display")) {
    const source = place.textContent;
    const tex = source.replace(/^(?:\$\$?|\\[([])([^]*?)(?:\$\$?|\\[)\]])$/, "$1");
    const formula = mathml(tex, place.className === "math-display");
    if (!formula) continue;
    place.replaceChildren(formula);
    place.title = tex.trim();
  }
}

/** A formula as an element, or null. */
function mathml(tex, displayMode) {
  if (tex.length > LONGEST) return null;
  const place = el("span");
  try {
    temml.render(tex, place, {
      displayMode,
      throwOnError: true,
      trust: false,
      maxExpand: 200,
      maxSize: [20, 300],
      wrap: "none",
    });
  } catch {
    return null;
  }
  const formula = place.firstElementChild;
  return formula && isHarmless(formula) ? formula : null;
}

/**
 * Whether an element consists of MathML, not nested too deep; removes URLs, ids and listeners.
 * Temml does the same for untrusted input; this check does not rely on it.
 */
function isHarmless(element, depth = 0) {
  if (element.namespaceURI !== MATHML || depth > DEEPEST) return false;
  for (const name of element.getAttributeNames())
    if (UNWANTED.includes(name) || name.startsWith("on")) element.removeAttribute(name);
  return [...element.children].every((child) => isHarmless(child, depth + 1));
}
