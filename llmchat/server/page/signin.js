// The sign-in dialog, for servers that require an API key.

import * as api from "./api.js";
import { find } from "./dom.js";
import { draft } from "./preferences.js";

let asking = null;

/** Ask for a key until the server accepts one. Resolves when it is stored in this browser. */
export function signIn() {
  asking ??= new Promise(ask).finally(() => (asking = null));
  return asking;
}

/** Remove the key and the unsent drafts. */
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
  problem.textContent = api.key()
    ? "The server no longer accepts the stored key."
    : "";
  // Without a key, the page behind the dialog is empty: the dialog cannot be closed.
  dialog.addEventListener("cancel", (event) => event.preventDefault(), { signal });
  dialog.addEventListener("close", () => dialog.showModal(), { signal });
  form.addEventListener(
    "submit",
    async (event) => {
      event.preventDefault();
      form.inert = true;
      const problemText = await tryKey(find("#key").value.trim());
      form.inert = false;
      problem.textContent = problemText;
      if (problemText) return find("#key").select();
      controller.abort();
      find("#key").value = "";
      dialog.close();
      resolve();
    },
    { signal },
  );
  if (!dialog.open) dialog.showModal();
  find("#key").focus();
}

/** Store the key if it is valid; returns the problem, or "". */
async function tryKey(key) {
  if (!key) return "Enter a key.";
  // Other characters cannot be sent in a header.
  if (/[^\x21-\x7e]/.test(key)) return "A key consists of letters, digits, `-` and `_`.";
  api.setKey(key);
  try {
    await api.settings();
    return "";
  } catch (error) {
    api.setKey("");
    return error.status === 401 ? "Invalid API key." : error.message;
  }
}
