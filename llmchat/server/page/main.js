// Puts the page together: the parts are in files of their own.

import * as api from "./api.js";
import { Chats } from "./chats.js";
import { contextOf, contextText, drawContext } from "./context.js";
import { path } from "./conversation.js";
import { download, el, find, icon, pick } from "./dom.js";
import { Drawers } from "./drawers.js";
import { inspect } from "./inspect.js";
import { Keeper } from "./keeper.js";
import { LoadingWatch } from "./loading.js";
import { drawOptions, shortNames } from "./models.js";
import { notice, say } from "./notices.js";
import { Panel } from "./panel.js";
import * as preferences from "./preferences.js";
import { Sidebar } from "./sidebar.js";
import { signIn, signOut } from "./signin.js";
import { BrowserStore, PageStore, ServerStore } from "./stores.js";
import { View } from "./view.js";

const THEMES = ["auto", "light", "dark"];
// A growing answer is stored this often, in milliseconds.
const DELAY = { browser: 400, server: 4000 };

const input = find("#input");
const drawers = new Drawers();
const channel = new BroadcastChannel("llmchat");
let models = [];
let chats = null;
let view = null;
let sidebar = null;
let panel = null;

/** A problem of the server's, where it belongs: a missing key brings the card that asks for one. */
function tell(error) {
  if (error.status === 401) return signIn().then(() => location.reload());
  return notice(error.message, { problem: true, lasting: true, action: { label: "Try again", run: () => location.reload() } });
}

async function openStore(history) {
  if (history) return { store: new ServerStore(), where: "Conversations are kept on the server.", delay: DELAY.server };
  try {
    return { store: await BrowserStore.open(), where: "Conversations are kept in this browser.", delay: DELAY.browser };
  } catch (error) {
    notice(`This browser does not keep conversations (${error.message}); they end with the page.`, { problem: true, lasting: true });
    return { store: new PageStore(), where: "Conversations are not kept.", delay: DELAY.browser };
  }
}

const modelOf = (conversation) => models.find(({ id }) => id === conversation.model);

/** What the conversation's model does by itself; asked for once. */
async function presetOf({ model: id }) {
  const model = models.find((one) => one.id === id);
  if (model && !model.preset) model.preset = await api.preset(id);
  return model?.preset ?? { sampling: {}, system: "" };
}

/** The settings of a new conversation: those of the last one, where they still make sense. */
function defaults() {
  const last = preferences.load();
  const model = models.find(({ id }) => id === last.model) ?? models[0];
  const adapter = model?.adapters.includes(last.adapter) ? last.adapter : "";
  return { model: model?.id ?? "", adapter, strength: adapter ? (last.strength ?? 1) : 1, parameters: last.parameters ?? {} };
}

function remember() {
  const { model, adapter, strength, parameters } = chats.open;
  preferences.save({ model, adapter, strength, parameters });
}

function draw() {
  const { open } = chats;
  view.show(open);
  find("#welcome").hidden = !chats.isNew;
  find("#title").textContent = open.title || "New chat";
  document.title = open.title ? `${open.title} · llmchat` : "llmchat";
  const heads = chats.heads.filter(({ id }) => id !== open.id);
  if (!chats.isNew) heads.push({ id: open.id, title: open.title, updated: open.changed, pinned: open.pinned });
  sidebar.show(heads, open.id, chats.busy);
  drawSend();
  drawContext(contextOf(open, modelOf(open)));
  if (chats.runs.size) loading.start();
  if (!chats.isNew && location.hash.slice(1) !== open.id) history.replaceState(null, "", `#${open.id}`);
}

/** The second model, whose answers stand beside those of the first. */
function drawCompare() {
  const { compare } = chats.open;
  find("#compare").hidden = !compare;
  find("#compare-toggle").hidden = models.length < 2 && !compare;
  find("#compare-toggle").setAttribute("aria-pressed", Boolean(compare));
  if (compare) drawOptions(find("#compare"), models, compare);
}

function compareWith(id) {
  chats.set({ compare: id });
  drawCompare();
}

/** Which models are in memory now. */
async function refreshFacts() {
  const told = await api.facts();
  models = models.map((model) => ({ ...model, ...told.get(model.id) }));
  drawOptions(find("#model"), models, chats.open.model);
  drawCompare();
}

const modelNames = () => shortNames(models.map(({ id }) => id));

/** While an answer has not begun, its model may be being loaded: show how far that is. */
const loading = new LoadingWatch({
  waiting: () => [...chats.runs.values()].filter(({ timing }) => !timing),
  refresh: refreshFacts,
  model: (id) => ({ ...models.find((one) => one.id === id), name: modelNames().get(id) }),
  ondraw: (run) => chats.open === run.conversation && view.grow(run.message),
});

function drawSend() {
  const button = find("#send");
  const label = chats.run ? "Stop" : "Send";
  if (button.getAttribute("aria-label") === label) return;
  button.setAttribute("aria-label", label);
  button.title = label;
  button.replaceChildren(icon(label.toLowerCase()));
}

function drawModels() {
  const { open } = chats;
  const model = modelOf(open);
  drawOptions(find("#model"), models, open.model);
  drawContext(contextOf(open, model));
  drawCompare();
  const adapters = new Set([...(model?.adapters ?? []), ...(open.adapter ? [open.adapter] : [])]);
  find("#adapter").hidden = !adapters.size;
  find("#adapter").replaceChildren(el("option", { value: "" }, "no adapter"), ...[...adapters].map((name) => el("option", { value: name }, name)));
  find("#adapter").value = open.adapter;
  panel.show(open);
  presetOf(open).then((preset) => chats.open.model === open.model && panel.showPreset(preset));
}

async function show(id) {
  preferences.draft.set(chats.isNew ? "new" : chats.open.id, input.value);
  try {
    if (!(await chats.show(id))) history.replaceState(null, "", location.pathname);
  } catch (error) {
    return tell(error);
  }
  input.value = preferences.draft.get(chats.isNew ? "new" : chats.open.id);
  fitInput();
  drawModels();
  drawers.close();
  focusInput();
}

/** Not on a touch screen: its keyboard would cover half of the page. */
function focusInput() {
  if (!matchMedia("(hover: none)").matches) input.focus();
}

function newChat() {
  if (location.hash) history.pushState(null, "", location.pathname);
  return show("");
}

async function send() {
  const text = input.value.trim();
  const { open } = chats;
  if (!text || chats.run) return;
  if (!open.model) return tell(new api.ApiError("There is no model to ask."));
  await Promise.all([presetOf(open), open.compare && presetOf({ model: open.compare })]);
  // Meanwhile the user may have gone elsewhere, or pressed Enter twice.
  if (chats.open !== open || chats.run || input.value.trim() !== text) return;
  input.value = "";
  preferences.draft.set("new", "");
  preferences.draft.set(chats.open.id, "");
  fitInput();
  const first = chats.isNew;
  chats.send(text);
  // Each conversation has an address, so that the way back leads out of it.
  if (first) history.pushState(null, "", `#${chats.open.id}`);
  view.toEnd();
}

function fitInput() {
  if (CSS.supports("field-sizing", "content")) return;
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

const actions = {
  say,
  inspect: (message) => inspect(chats.open, message, chats.prompts.get(message.id)),
  busy: () => Boolean(chats.run),
  rewritten: (message, text) => chats.rewrite(message, text),
  remove: (message) => {
    const { count, undo } = chats.removeMessage(message);
    notice(`${count} message${count === 1 ? " is" : "s are"} deleted.`, { action: { label: "Undo", run: undo } });
    focusInput();
  },
  edited: (message, text) => (chats.edited(message, text), view.toEnd(), focusInput()),
  regenerate: (message) => (chats.regenerate(message), view.toEnd(), focusInput()),
  resume: (message) => (chats.resume(message), focusInput()),
  again: (message) => (chats.again(message), focusInput()),
  choose: (message, label) => (chats.choose(message), view.focus(message, label)),
  trim: (message) => {
    chats.set({ parameters: { ...chats.open.parameters, truncation: "auto" } });
    panel.show(chats.open);
    actions.again(message);
  },
};

const fileName = (title, ending) => `${title.replace(/[^\p{L}\p{N} -]/gu, "").trim() || "conversation"}.${ending}`;

const listActions = {
  open: (id) => {
    if (id === chats.open.id) return drawers.close();
    history.pushState(null, "", `#${id}`);
    return show(id);
  },
  rename: (id, title) => chats.rename(id, title).catch(tell),
  pin: (id, pinned) => chats.pin(id, pinned).catch(tell),
  search: async (text) => {
    try {
      return await chats.keeper.search(text);
    } catch (error) {
      tell(error);
      return new Map();
    }
  },
  save: async (id) => {
    const file = await chats.exported(id);
    download(fileName(file.conversations[0].title, "json"), JSON.stringify(file, null, 1), "application/json");
  },
  saveText: async (id) => {
    const { title, text } = await chats.asMarkdown(id);
    download(fileName(title, "md"), text, "text/markdown");
  },
  remove: async (id) => {
    try {
      const gone = await chats.remove(id);
      if (location.hash.slice(1) === id) history.replaceState(null, "", location.pathname);
      drawModels();
      if (gone) notice(`“${gone.title || "Untitled"}” is deleted.`, { action: { label: "Undo", run: () => chats.restore(gone) } });
      if (!drawers.close()) find("#new").focus();
    } catch (error) {
      tell(error);
    }
  },
};

async function importFile() {
  const text = await pick("application/json,.json");
  if (text === null) return;
  try {
    const count = await chats.import(text);
    await chats.list();
    notice(`${count} conversation${count === 1 ? "" : "s"} read.`);
  } catch (error) {
    notice(`The file was not read: ${error.message}.`, { problem: true });
  }
}

function onKey(event) {
  const command = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  if (command && event.key.toLowerCase() === "k") {
    event.preventDefault();
    newChat();
  } else if (event.key === "Escape" && !event.defaultPrevented && !find("dialog[open], :popover-open")) {
    if (!drawers.close()) chats.stop();
  }
}

function onInputKey(event) {
  if (event.isComposing) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    send();
  } else if (event.key === "ArrowUp" && !input.value && !chats.run) {
    const last = path(chats.open).findLast(({ role }) => role === "user");
    if (last) {
      event.preventDefault();
      view.edit(last);
    }
  }
}

function listen() {
  document.addEventListener("keydown", onKey);
  input.addEventListener("keydown", onInputKey);
  input.addEventListener("input", fitInput);
  find("#composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (chats.run) chats.stop();
    else send();
  });
  find("#new").addEventListener("click", newChat);
  find("#model").addEventListener("focus", refreshFacts);
  find("#compare").addEventListener("change", (event) => compareWith(event.target.value));
  find("#compare-toggle").addEventListener("click", () => {
    const { compare, model } = chats.open;
    compareWith(compare ? "" : (models.find(({ id }) => id !== model)?.id ?? ""));
  });
  find("#context").addEventListener("click", () => notice(contextText(contextOf(chats.open, modelOf(chats.open)))));
  find("#model").addEventListener("change", (event) => {
    chats.set({ model: event.target.value, adapter: "", strength: 1 });
    remember();
    drawModels();
  });
  find("#adapter").addEventListener("change", (event) => {
    chats.set({ adapter: event.target.value, strength: 1 });
    remember();
    drawModels();
  });
  find("#export").addEventListener("click", async () => download("llmchat conversations.json", JSON.stringify(await chats.exported(), null, 1), "application/json"));
  find("#import").addEventListener("click", importFile);
  addEventListener("popstate", () => show(location.hash.slice(1)));
  addEventListener("pagehide", () => {
    preferences.draft.set(chats.isNew ? "new" : chats.open.id, input.value);
    chats.keeper.leave();
  });
  addEventListener("focus", () => chats.refresh().catch(() => {}));
  channel.addEventListener("message", () => chats.refresh().catch(() => {}));
}

function listenToSettings() {
  find("#sign-out").addEventListener("click", () => {
    input.value = "";
    signOut();
  });
  const label = () => (find("#theme").textContent = `Theme: ${preferences.theme()}`);
  find("#theme").addEventListener("click", () => {
    preferences.setTheme(THEMES[(THEMES.indexOf(preferences.theme()) + 1) % THEMES.length]);
    label();
  });
  label();
}

/** What `ask` brings, after a key was asked for where the server requires one. */
async function admitted(ask) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (error.status !== 401) throw error;
      await signIn();
    }
  }
}

async function start() {
  listenToSettings();
  let server;
  try {
    [server, models] = await admitted(() => Promise.all([api.settings(), api.models()]));
  } catch (error) {
    return tell(error);
  }
  find("#sign-out").hidden = !api.key();
  const { store, where, delay } = await openStore(server.history);
  find("#where").textContent = where;
  find("#about").textContent = server.version ? `llmchat ${server.version}` : "";
  const keeper = new Keeper(store, {
    delay,
    onmerged: (conversation) => conversation === chats.open && draw(),
    onwritten: (conversation) => {
      chats?.noted(conversation.id, conversation);
      channel.postMessage(conversation.id);
    },
    onremoved: (id) => {
      chats.noted(id, null);
      channel.postMessage(id);
    },
    onproblem: (text) => notice(text, { problem: true }),
  });
  panel = new Panel((settings) => {
    chats.set(settings);
    remember();
  });
  sidebar = new Sidebar(listActions);
  view = new View({ list: find("#messages"), scroller: find("#scroller"), latest: find("#latest") }, actions, (message) => chats.runOf(message));
  chats = new Chats({
    keeper,
    settings: defaults,
    ownSystem: (conversation) => modelOf(conversation)?.preset?.system ?? "",
    ongrow: (message) => view.grow(message),
    onchange: draw,
    onanswer: ({ message }) => {
      refreshFacts();
      if (message.code === "invalid_api_key") tell({ status: 401 });
      say({ complete: "The answer is complete.", stopped: "Stopped.", failed: message.error }[message.state]);
    },
  });
  await keeper.rescue();
  listen();
  await Promise.all([chats.list(), show(location.hash.slice(1))]).catch(tell);
  document.documentElement.dataset.ready = "";
}

start();
