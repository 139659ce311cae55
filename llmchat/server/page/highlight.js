// Syntax highlighting. The library produces HTML; the few tags it uses are turned into elements
// here, because the page's policy forbids inserting HTML.

import { el } from "./dom.js";
import library from "./vendor/highlight.min.js";

// Longer code would take more than a frame to highlight.
const LONGEST = 60_000;
const TAG = /<span class="([^"]*)">|<\/span>|([^<]+)/g;
const ENTITY = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };
const plain = (text) => text.replace(/&(?:amp|lt|gt|quot|#x27);/g, (entity) => ENTITY[entity]);

/** Code as nodes, without colours if the language is unknown. */
export function highlighted(code, language) {
  if (!library.getLanguage(language) || code.length > LONGEST) return [code];
  const root = el("span");
  let at = root;
  for (const [tag, name, text] of library
    .highlight(code, { language, ignoreIllegals: true })
    .value.matchAll(TAG)) {
    if (text !== undefined) at.append(plain(text));
    else if (tag === "</span>") at = at.parentNode;
    else at = at.appendChild(el("span", { class: name }));
  }
  return root.textContent === code ? [...root.childNodes] : [code];
}
