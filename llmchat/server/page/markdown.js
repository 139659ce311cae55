// Renders Markdown from a model. Model output is untrusted: HTML is shown as text, apart from a few
// tags without attributes, and the result is sanitised.

import { Marked } from "./vendor/marked.esm.js";
import "./vendor/purify.min.js";
import { copy, el } from "./dom.js";
import { drawFootnotes, footnoteExtensions, footnoteLabels } from "./footnotes.js";
import { highlighted } from "./highlight.js";
import { drawMath, mathExtensions } from "./math.js";

const { DOMPurify } = globalThis;

// The HTML tags that models use in Markdown. They are only accepted without attributes.
const HTML_TAGS = "br|sub|sup|kbd|mark|b|i|u|s|em|strong|del|ins";
const KNOWN_TAG = new RegExp(`<(/?)(${HTML_TAGS})\\s*/?>|<`, "gi");
const MARKDOWN_TAGS =
  "p hr code pre blockquote ul ol li h1 h2 h3 h4 h5 h6 table thead tbody tr th td a input span";
const SANITISED = {
  ALLOWED_TAGS: [...HTML_TAGS.split("|"), ...MARKDOWN_TAGS.split(" ")],
  ALLOWED_ATTR: ["href", "title", "align", "class", "type", "checked", "disabled", "start"],
  // Checked for every attribute except those that cannot hold a URL.
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ADD_URI_SAFE_ATTR: ["align", "checked", "disabled", "start", "type"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
// The classes that the page's own renderers produce; all others are removed.
const OWN_CLASS =
  /^(?:language-[\w+#.-]+|math-(?:open|inline|display)|footnote(?:-label|-reference)?)$/;

const marked = new Marked({
  gfm: true,
  breaks: true,
  extensions: [...mathExtensions, ...footnoteExtensions],
  renderer: {
    html({ text, block }) {
      const plain = text.replace(KNOWN_TAG, (_, slash, tag) => (tag ? `<${slash}${tag}>` : "&lt;"));
      return block ? `<p>${plain.trim().replaceAll("\n", "<br>")}</p>` : plain;
    },
    // Loading an image would reveal to its server that this answer is read: it becomes a link.
    image({ href, text }) {
      const label = text || href;
      return this.link({
        href,
        title: null,
        tokens: [{ type: "text", raw: label, text: label, escaped: false }],
      });
    },
  },
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.localName === "a") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  } else if (node.localName === "input") {
    if (node.type !== "checkbox") node.remove();
    node.setAttribute("disabled", "");
  }
  if (node.hasAttribute("class") && !OWN_CLASS.test(node.className)) node.removeAttribute("class");
});

/**
 * Show `text` in `place`. When called again, only blocks that changed are redrawn, so that the
 * selection in finished ones stays.
 */
export function render(place, text) {
  const tokens = marked.lexer(text);
  const labels = footnoteLabels(tokens);
  // A link or footnote that is defined below can change blocks above.
  const links = JSON.stringify([tokens.links, labels]);
  const shown = place.links === links ? place.blocks : [];
  const blocks = tokens.filter((token) => token.type !== "space" && token.type !== "def");
  place.blocks = blocks.map((token, index) => {
    const old = shown[index];
    if (old?.token.raw === token.raw) return old;
    if (old && growCode(old, token)) return { token, element: old.element };
    const element = el(
      "div",
      { class: "block" },
      DOMPurify.sanitize(marked.parser(Object.assign([token], { links: tokens.links })), SANITISED),
    );
    dress(element, labels);
    if (place.children[index]) place.children[index].replaceWith(element);
    else place.append(element);
    return { token, element };
  });
  while (place.children.length > blocks.length) place.lastChild.remove();
  place.links = links;
}

/** Redraw grown code in its element, so that the scroll position and the button stay. */
function growCode({ token: old, element }, token) {
  if (old.type !== "code" || token.type !== "code" || old.lang !== token.lang) return false;
  const code = element.querySelector("code");
  code.replaceChildren(...highlighted(`${token.text}\n`, languageOf(code)));
  return true;
}

const languageOf = (code) => code.className.replace("language-", "");

/** Add formulas, footnotes, highlighting and buttons. */
function dress(element, labels) {
  drawMath(element);
  drawFootnotes(element, labels);
  for (const pre of element.querySelectorAll("pre")) dressCode(pre);
  for (const box of element.querySelectorAll("li input"))
    box.setAttribute("aria-label", box.closest("li").textContent.trim().split("\n")[0] || "Task");
  for (const table of element.querySelectorAll("table")) dressTable(table);
}

/** Add the language, highlighting and a copy button to a code block. */
function dressCode(pre) {
  const code = pre.querySelector("code") ?? pre;
  const language = languageOf(code);
  code.replaceChildren(...highlighted(code.textContent, language));
  const button = el(
    "button",
    { type: "button", class: "quiet copy-code", "aria-label": "Copy code" },
    "Copy",
  );
  button.addEventListener("click", async () => {
    button.textContent = (await copy(code.textContent.replace(/\n$/, "")))
      ? "Copied"
      : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  const frame = el(
    "div",
    { class: "code" },
    el("div", { class: "code-head" }, el("span", {}, language), button),
  );
  pre.replaceWith(frame);
  pre.tabIndex = 0;
  frame.append(pre);
}

/** Make wide tables scrollable. */
function dressTable(table) {
  const frame = el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table" });
  table.replaceWith(frame);
  frame.append(table);
}
