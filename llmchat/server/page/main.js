// Starts the page: signs in, opens the store, creates the parts and connects them.

import { conversationActions, exportAll, importFile, messageActions } from "./actions.js";
import * as api from "./api.js";
import { app, modelOf } from "./app.js";
import { Chats } from "./chats.js";
import { clearInput, listenToComposer, saveDraft } from "./composer.js";
import { contextOf, contextText } from "./context.js";
import { listenToDocs, loadDocs } from "./docs.js";
import { find } from "./dom.js";
import { Drawers } from "./drawers.js";
import { enableFiles, listenToFiles } from "./files.js";
import { Keeper } from "./keeper.js";
import { notice, say } from "./notices.js";
import { Panel } from "./panel.js";
import { defaults, listenToPicker, refreshFacts, setAndRemember } from "./picker.js";
import * as preferences from "./preferences.js";
import { showProblem } from "./problems.js";
import { draw, newChat, show } from "./screen.js";
import { Sidebar } from "./sidebar.js";
import { signIn, signOut } from "./signin.js";
import { BrowserStore, PageStore, ServerStore } from "./stores.js";
import { loadTools } from "./tools.js";
import { View } from "./view.js";

const THEMES = ["auto", "light", "dark"];
// The interval at which a growing answer is stored, in milliseconds.
const DELAY = { browser: 400, server: 4000 };

const channel = new BroadcastChannel("llmchat");

async function openStore(history) {
  if (history)
    return {
      store: new ServerStore(),
      where: "Conversations are stored on the server.",
      delay: DELAY.server,
    };
  try {
    const store = await BrowserStore.open();
    return { store, where: "Conversations are stored in this browser.", delay: DELAY.browser };
  } catch (error) {
    const reason = `This browser cannot store conversations (${error.message})`;
    const text = `${reason}; they are lost when you close the page.`;
    notice(text, { problem: true, lasting: true });
    return { store: new PageStore(), where: "Conversations are not stored.", delay: DELAY.browser };
  }
}

function onKey(event) {
  const command = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  if (command && event.key.toLowerCase() === "k") {
    event.preventDefault();
    newChat();
  } else if (
    event.key === "Escape" &&
    !event.defaultPrevented &&
    !find("dialog[open], :popover-open")
  ) {
    if (!app.drawers.close()) app.chats.stop();
  }
}

function listen() {
  const refresh = () => app.chats.refresh().catch(() => {});
  document.addEventListener("keydown", onKey);
  listenToComposer();
  listenToPicker();
  listenToFiles();
  listenToDocs((docs) => setAndRemember({ docs }));
  find("#new").addEventListener("click", newChat);
  find("#context").addEventListener("click", () => {
    notice(contextText(contextOf(app.chats.open, modelOf(app.chats.open))));
  });
  find("#export").addEventListener("click", exportAll);
  find("#import").addEventListener("click", importFile);
  addEventListener("popstate", () => show(location.hash.slice(1)));
  addEventListener("pagehide", () => {
    saveDraft();
    app.chats.keeper.leave();
  });
  addEventListener("focus", refresh);
  channel.addEventListener("message", refresh);
}

function listenToSettings() {
  find("#sign-out").addEventListener("click", () => {
    clearInput();
    signOut();
  });
  const label = () => (find("#theme").textContent = `Theme: ${preferences.theme()}`);
  find("#theme").addEventListener("click", () => {
    preferences.setTheme(THEMES[(THEMES.indexOf(preferences.theme()) + 1) % THEMES.length]);
    label();
    say(`Theme: ${preferences.theme()}`);
  });
  label();
}

/** The result of `request`, after signing in if the server requires it. */
async function signedIn(request) {
  for (;;) {
    try {
      return await request();
    } catch (error) {
      if (error.status !== 401) throw error;
      await signIn();
    }
  }
}

function createKeeper(store, delay) {
  return new Keeper(store, {
    delay,
    onmerged: (conversation) => conversation === app.chats.open && draw(),
    onwritten: (conversation) => {
      app.chats?.noted(conversation.id, conversation);
      channel.postMessage(conversation.id);
    },
    onremoved: (id) => {
      app.chats.noted(id, null);
      channel.postMessage(id);
    },
    onproblem: (text) => notice(text, { problem: true }),
  });
}

function createChats(keeper) {
  return new Chats({
    keeper,
    settings: defaults,
    ownSystem: (conversation) => modelOf(conversation)?.preset?.system ?? "",
    ongrow: (message) => app.view.grow(message),
    onask: ({ name }) => say(`The model asks to run ${name}.`),
    onchange: draw,
    onanswer: ({ message }) => {
      refreshFacts();
      if (message.code === "invalid_api_key") showProblem({ status: 401 });
      const ends = {
        complete: "The answer is complete.",
        stopped: "Stopped.",
        failed: message.error,
      };
      say(ends[message.state]);
    },
  });
}

async function start() {
  app.drawers = new Drawers();
  listenToSettings();
  let server;
  try {
    [server, app.models] = await signedIn(() => Promise.all([api.settings(), api.models()]));
    if (server.tools) await loadTools();
    if (server.files) await loadDocs();
  } catch (error) {
    return showProblem(error);
  }
  find("#sign-out").hidden = !api.key();
  const { store, where, delay } = await openStore(server.history);
  find("#where").textContent = where;
  enableFiles(Boolean(server.files));
  find("#about").textContent = server.version ? `llmchat ${server.version}` : "";
  const keeper = createKeeper(store, delay);
  app.panel = new Panel(setAndRemember);
  app.sidebar = new Sidebar(conversationActions);
  const places = {
    list: find("#messages"),
    scroller: find("#scroller"),
    latest: find("#latest"),
  };
  app.view = new View(places, messageActions, (message) => app.chats.runOf(message));
  app.chats = createChats(keeper);
  await keeper.rescue();
  listen();
  await Promise.all([app.chats.list(), show(location.hash.slice(1))]).catch(showProblem);
  document.documentElement.dataset.ready = "";
}

start();
