// Colours for code. The library writes HTML, which the page does not take: its few tags are read here, and become elements.

import { el } from "./dom.js";
import library from "./vendor/highlight.min.js";

// More than this takes longer than a frame.
const LONGEST = 60_000;
const TAG = /<span class="([^"]*)">|<\/span>|([^<]+)/g;
const ENTITY = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };
const plain = (text) => text.replace(/&(?:amp|lt|gt|quot|#x27);/g, (entity) => ENTITY[entity]);

/** Code as nodes; without colours where the language is not known. */
export function highlighted(code, language) {
  if (!library.getLanguage(language) || code.length > LONGEST) return [code];
  const root = el("span");
  let at = root;
  for (const [tag, name, text] of library.highlight(code, { language, ignoreIllegals: true }).value.matchAll(TAG)) {
    if (text !== undefined) at.append(plain(text));
    else if (tag === "</span>") at = at.parentNode;
    else at = at.appendChild(el("span", { class: name }));
  }
  return root.textContent === code ? [...root.childNodes] : [code];
}
