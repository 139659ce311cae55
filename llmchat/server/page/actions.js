// What the buttons of messages and the menu of a conversation do.

import { app } from "./app.js";
import { focusInput } from "./composer.js";
import { download, find, pick } from "./dom.js";
import { forgetSoon } from "./files.js";
import { inspect } from "./inspect.js";
import { notice, say } from "./notices.js";
import { drawModels } from "./picker.js";
import { showProblem } from "./problems.js";
import { show } from "./screen.js";

export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

export const messageActions = {
  say,
  inspect: (message) => inspect(app.chats.open, message, app.chats.prompts.get(message.id)),
  busy: () => Boolean(app.chats.run),
  rewritten: (message, text) => app.chats.rewrite(message, text),
  remove(message) {
    const { count, undo } = app.chats.removeMessage(message);
    notice(`${counted(count, "message")} deleted.`, { action: { label: "Undo", run: undo } });
    focusInput();
  },
  edited(message, text) {
    app.chats.edited(message, text);
    app.view.toEnd();
    focusInput();
  },
  regenerate(message) {
    app.chats.regenerate(message);
    app.view.toEnd();
    focusInput();
  },
  resume(message) {
    app.chats.resume(message);
    focusInput();
  },
  again(message) {
    app.chats.again(message);
    focusInput();
  },
  choose(message, label) {
    app.chats.choose(message);
    app.view.focus(message, label);
  },
  trim(message) {
    app.chats.set({ parameters: { ...app.chats.open.parameters, truncation: "auto" } });
    app.panel.show(app.chats.open);
    messageActions.again(message);
  },
};

function fileName(title, ending) {
  return `${title.replace(/[^\p{L}\p{N} -]/gu, "").trim() || "conversation"}.${ending}`;
}

function downloadJson(name, value) {
  download(name, JSON.stringify(value, null, 1), "application/json");
}

export const conversationActions = {
  open(id) {
    if (id === app.chats.open.id) return app.drawers.close();
    history.pushState(null, "", `#${id}`);
    return show(id);
  },
  rename: (id, title) => app.chats.rename(id, title).catch(showProblem),
  pin: (id, pinned) => app.chats.pin(id, pinned).catch(showProblem),
  async search(text) {
    try {
      return await app.chats.keeper.search(text);
    } catch (error) {
      showProblem(error);
      return new Map();
    }
  },
  async save(id) {
    const file = await app.chats.exported(id);
    downloadJson(fileName(file.conversations[0].title, "json"), file);
  },
  async saveText(id) {
    const { title, text } = await app.chats.asMarkdown(id);
    download(fileName(title, "md"), text, "text/markdown");
  },
  async remove(id) {
    try {
      const removed = await app.chats.remove(id);
      if (location.hash.slice(1) === id) history.replaceState(null, "", location.pathname);
      drawModels();
      if (removed) {
        const keepFiles = forgetSoon(removed);
        const restore = () => (keepFiles(), app.chats.restore(removed));
        const undo = { label: "Undo", run: restore };
        notice(`“${removed.title || "Untitled"}” deleted.`, { action: undo });
      }
      if (!app.drawers.close()) find("#new").focus();
    } catch (error) {
      showProblem(error);
    }
  },
};

export async function exportAll() {
  downloadJson("llmchat conversations.json", await app.chats.exported());
}

export async function importFile() {
  const text = await pick("application/json,.json");
  if (text === null) return;
  try {
    const count = await app.chats.import(text);
    await app.chats.list();
    notice(`${counted(count, "conversation")} imported.`);
  } catch (error) {
    notice(`Import failed: ${error.message}.`, { problem: true });
  }
}
