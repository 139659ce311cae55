// The message field: sending, stopping, and a draft for each conversation.

import { ApiError } from "./api.js";
import { app } from "./app.js";
import { path } from "./conversation.js";
import { find, icon } from "./dom.js";
import { draw as drawFiles, filesAreRead, takeFiles } from "./files.js";
import { presetOf } from "./picker.js";
import { draft } from "./preferences.js";
import { showProblem } from "./problems.js";

const input = find("#input");

/** Not on touch screens: the keyboard would cover half of the page. */
export function focusInput() {
  if (!matchMedia("(hover: none)").matches) input.focus();
}

const draftName = () => (app.chats.isNew ? "new" : app.chats.open.id);

export function saveDraft() {
  draft.set(draftName(), input.value);
}

export function loadDraft() {
  input.value = draft.get(draftName());
  fitInput();
  drawFiles();
}

export function clearInput() {
  input.value = "";
}

export function drawSend() {
  const button = find("#send");
  const label = app.chats.run ? "Stop" : "Send";
  if (button.getAttribute("aria-label") === label) return;
  button.setAttribute("aria-label", label);
  button.title = label;
  button.replaceChildren(icon(label.toLowerCase()));
}

async function send() {
  const { chats, view } = app;
  const text = input.value.trim();
  const { open } = chats;
  if (!text || chats.run) return;
  if (!open.model) return showProblem(new ApiError("No model is available."));
  const [read] = await Promise.all([
    filesAreRead(open.id),
    presetOf(open),
    open.compare && presetOf({ model: open.compare }),
  ]);
  // The user may have opened another conversation meanwhile, or pressed Enter twice.
  if (!read || chats.open !== open || chats.run || input.value.trim() !== text) return;
  clearInput();
  draft.set("new", "");
  draft.set(chats.open.id, "");
  fitInput();
  const first = chats.isNew;
  chats.send(text, takeFiles(open.id));
  // Each conversation has its own URL, so that the browser's back button leaves it.
  if (first) history.pushState(null, "", `#${chats.open.id}`);
  view.toEnd();
}

function fitInput() {
  if (CSS.supports("field-sizing", "content")) return;
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

function onKey(event) {
  if (event.isComposing) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    send();
  } else if (event.key === "ArrowUp" && !input.value && !app.chats.run) {
    const last = path(app.chats.open).findLast(({ role }) => role === "user");
    if (last) {
      event.preventDefault();
      app.view.edit(last);
    }
  }
}

export function listenToComposer() {
  input.addEventListener("keydown", onKey);
  input.addEventListener("input", fitInput);
  find("#composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (app.chats.run) app.chats.stop();
    else send();
  });
}
