// System prompts to choose from: the page's presets, and those that the user saved in this browser.

import { titleOf } from "./conversation.js";
import { el, find } from "./dom.js";

const NAME = "llmchat.system-texts";
const MAX_SAVED = 50;
const COMMON = {
  Concise: "Answer in as few words as the question allows. No preamble, no summary.",
  Teacher:
    "Explain step by step, for a beginner. Give one example for each idea, and end with a " +
    "question that checks understanding.",
  "Code reviewer":
    "Review the code. List bugs first, then unclear names and missing tests. Quote the line that " +
    "each remark is about.",
  Translator:
    "Translate each message into English. Keep its tone and formatting. Answer with the " +
    "translation only.",
  Editor:
    "Correct the spelling, grammar and style of each message without changing its meaning. " +
    "Answer with the corrected text only.",
};

function own() {
  try {
    const kept = JSON.parse(localStorage.getItem(NAME));
    return Array.isArray(kept) ? kept.filter((text) => typeof text === "string") : [];
  } catch {
    return [];
  }
}

function keep(texts) {
  try {
    localStorage.setItem(NAME, JSON.stringify(texts.slice(0, MAX_SAVED)));
  } catch {
    // Storage is full or blocked: the prompt is not saved.
  }
}

/** Connects the menu above the field with the system prompt. */
export class SystemTexts {
  constructor(field) {
    Object.assign(this, {
      field,
      select: find("#system-choice"),
      save: find("#system-save"),
      remove: find("#system-remove"),
    });
    this.select.addEventListener("change", () => {
      field.value = this.select.value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    });
    // Choosing from the menu is not a change of settings in itself.
    this.select.addEventListener("input", (event) => event.stopPropagation());
    field.addEventListener("input", () => this.draw());
    this.save.addEventListener("click", () => (keep([field.value, ...own()]), this.draw()));
    this.remove.addEventListener(
      "click",
      () => (keep(own().filter((text) => text !== field.value)), this.draw()),
    );
    this.draw();
  }

  draw() {
    const text = this.field.value;
    const kept = own();
    const common = Object.entries(COMMON).map(([name, value]) => el("option", { value }, name));
    const mine = kept.map((value) => el("option", { value }, titleOf(value)));
    this.select.replaceChildren(
      el("option", { value: "" }, "None"),
      ...(mine.length ? [el("optgroup", { label: "Yours" }, ...mine)] : []),
      el("optgroup", { label: "Presets" }, ...common),
    );
    const known = kept.includes(text) || Object.values(COMMON).includes(text);
    if (text && !known) this.select.append(el("option", { value: text, hidden: true }, "Custom"));
    this.select.value = text;
    this.save.hidden = !text.trim() || known;
    this.remove.hidden = !kept.includes(text);
  }
}
