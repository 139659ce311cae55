// The card that asks for an API key, on servers that require one.

import * as api from "./api.js";
import { find } from "./dom.js";
import { draft } from "./preferences.js";

let asking = null;

/** Ask for a key until the server accepts one. Resolves when this browser keeps it. */
export function signIn() {
  asking ??= new Promise(ask).finally(() => (asking = null));
  return asking;
}

/** Forget the key, and what was typed and not sent. */
export function signOut() {
  api.setKey("");
  draft.clear();
  location.assign(location.pathname);
}

function ask(resolve) {
  const dialog = find("#signin");
  const form = dialog.querySelector("form");
  const problem = find("#key-problem");
  const controller = new AbortController();
  const { signal } = controller;
  problem.textContent = api.key() ? "The server no longer accepts the key that this browser kept." : "";
  // Without a key there is nothing behind the card.
  dialog.addEventListener("cancel", (event) => event.preventDefault(), { signal });
  dialog.addEventListener("close", () => dialog.showModal(), { signal });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    form.inert = true;
    const told = await tried(find("#key").value.trim());
    form.inert = false;
    problem.textContent = told;
    if (told) return find("#key").select();
    controller.abort();
    find("#key").value = "";
    dialog.close();
    resolve();
  }, { signal });
  if (!dialog.open) dialog.showModal();
  find("#key").focus();
}

/** Keep the key if it works; returns what is wrong with it, or "". */
async function tried(key) {
  if (!key) return "Enter a key.";
  // Nothing else can be sent as a header.
  if (/[^\x21-\x7e]/.test(key)) return "A key consists of letters, digits, `-` and `_`.";
  api.setKey(key);
  try {
    await api.settings();
    return "";
  } catch (error) {
    api.setKey("");
    return error.status === 401 ? "The server does not know this key." : error.message;
  }
}
