// Maths in Markdown: `$…$`, `$$…$$`, `\(…\)` and `\[…\]` are tokenised before Markdown sees their backslashes, and drawn as MathML.

import { el } from "./dom.js";
import temml from "./vendor/temml.min.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";
// Longer and deeper formulas are shown as they were written: they could hold up the page.
const LONGEST = 4000;
const DEEPEST = 60;
// What refers to another place of the page, or names one.
const UNWANTED = ["id", "href", "xlink:href", "src"];

const DISPLAY = /^(?:\$\$(?!\$)((?:(?!\$\$|\n[ \t]*\n)[^]){1,4000})\$\$|\\\[((?:(?!\\\]|\n[ \t]*\n)[^]){1,4000})\\\])/;
const PAREN = /^\\\(((?:(?!\\\)|\n[ \t]*\n)[^]){1,4000})\\\)/;
// As in pandoc: no space inside the dollars, and no letter or digit after the second.
const DOLLAR = /^\$(?![\s$])((?:\\[^]|[^$\\`]){1,1000})(?<!\s)\$(?![\w$])/;
const BLOCK = /^ {0,3}(?:\$\$(?!\$)((?:(?!\$\$)[^]){1,4000})\$\$|\\\[((?:(?!\\\])[^]){1,4000})\\\])[ \t]*(?:\n|$)/;
// The end of a text that is still being written.
const UNFINISHED = /^ {0,3}(?:\$\$(?!\$)|\\\[)(?:(?!\n[ \t]*\n)[^]){0,4000}$/;

/** "5 and 6" in `$5 and 6$` is money: it begins with a number, has words and no sign of maths. */
const isMoney = (tex) => /^\d/.test(tex) && /(?:^|\s)[A-Za-z]{2,}/.test(tex) && !/[\\^_={}]/.test(tex);

function inline(source) {
  const display = DISPLAY.exec(source);
  if (display) return { raw: display[0], tex: display[1] ?? display[2], display: true };
  const match = PAREN.exec(source) ?? DOLLAR.exec(source);
  if (match && !(source[0] === "$" && isMoney(match[1]))) return { raw: match[0], tex: match[1], display: false };
}

function block(source) {
  const match = BLOCK.exec(source);
  if (match) return { raw: match[0], tex: match[1] ?? match[2], display: true };
  const open = UNFINISHED.exec(source);
  if (open) return { raw: open[0], tex: null };
}

/** Where maths may begin: a dollar within a word (`US$5`) does not. */
function start(source) {
  for (const { index, 0: found } of source.matchAll(/\$+|\\[([]/g)) if (found[0] === "\\" || !/[\w$]/.test(source[index - 1] ?? " ")) return index;
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const drawn = ({ raw, tex, display }) => {
  const kind = tex === null ? "math-open" : display ? "math-display" : "math-inline";
  return `<span class="${kind}">${escaped(tex === null ? raw : raw.trim())}</span>`;
};

/** For `marked`. What they render is a place that `drawMath` fills. */
export const mathExtensions = [
  {
    name: "math", level: "inline", start,
    tokenizer: (source) => (/^(?:\$|\\[([])/.test(source) ? typed("math", inline(source)) : undefined),
    renderer: drawn,
  },
  {
    name: "mathBlock", level: "block",
    start: (source) => (/\n {0,3}(?:\$\$|\\\[)/.exec(source)?.index ?? -2) + 1 || undefined,
    tokenizer: (source) => typed("mathBlock", block(source)),
    renderer: (token) => `<p>${drawn(token)}</p>`,
  },
];

function typed(type, token) {
  return token && { type, ...token };
}

/** Put formulas in the places that the extensions left. What cannot be read as a formula stays as it was written. */
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
    temml.render(tex, place, { displayMode, throwOnError: true, trust: false, maxExpand: 200, maxSize: [20, 300], wrap: "none" });
  } catch {
    return null;
  }
  const formula = place.firstElementChild;
  return formula && isHarmless(formula) ? formula : null;
}

/** Only MathML, without addresses and names, and not too deep. Temml makes nothing else of untrusted input; this does not rely on it. */
function isHarmless(element, depth = 0) {
  if (element.namespaceURI !== MATHML || depth > DEEPEST) return false;
  for (const name of element.getAttributeNames()) if (UNWANTED.includes(name) || name.startsWith("on")) element.removeAttribute(name);
  return [...element.children].every((child) => isHarmless(child, depth + 1));
}
