// The whole page: draws the open conversation, and opens others.

import { app, modelOf } from "./app.js";
import { drawSend, focusInput, loadDraft, saveDraft } from "./composer.js";
import { contextOf, drawContext } from "./context.js";
import { find } from "./dom.js";
import { drawModels, watchLoading } from "./picker.js";
import { showProblem } from "./problems.js";

const loading = watchLoading();

export function draw() {
  const { chats, sidebar, view } = app;
  const { open } = chats;
  view.show(open);
  find("#welcome").hidden = !chats.isNew;
  find("#title").textContent = open.title || "New chat";
  document.title = open.title ? `${open.title} · llmchat` : "llmchat";
  const heads = chats.heads.filter(({ id }) => id !== open.id);
  if (!chats.isNew)
    heads.push({ id: open.id, title: open.title, updated: open.changed, pinned: open.pinned });
  sidebar.show(heads, open.id, chats.busy);
  drawSend();
  drawContext(contextOf(open, modelOf(open)));
  if (chats.runs.size) loading.start();
  if (!chats.isNew && location.hash.slice(1) !== open.id)
    history.replaceState(null, "", `#${open.id}`);
}

/** Open the conversation with this id, or a new one. */
export async function show(id) {
  saveDraft();
  try {
    if (!(await app.chats.show(id))) history.replaceState(null, "", location.pathname);
  } catch (error) {
    return showProblem(error);
  }
  loadDraft();
  drawModels();
  app.drawers.close();
  focusInput();
}

export function newChat() {
  if (location.hash) history.pushState(null, "", location.pathname);
  return show("");
}
