// What this browser remembers apart from conversations: the last model and settings, unsent drafts
// and the theme. Without storage, nothing is remembered.

const NAME = "llmchat.preferences";

export function load() {
  try {
    return JSON.parse(localStorage.getItem(NAME)) ?? {};
  } catch {
    return {};
  }
}

export function save(preferences) {
  try {
    localStorage.setItem(NAME, JSON.stringify(preferences));
  } catch {
    // Storage is full or blocked: the next page starts with the defaults.
  }
}

/** The unsent text of each conversation, in this tab. */
export const draft = {
  get: (id) => tried(() => sessionStorage.getItem(`llmchat.draft.${id}`)) ?? "",
  set: (id, text) =>
    tried(() =>
      text
        ? sessionStorage.setItem(`llmchat.draft.${id}`, text)
        : sessionStorage.removeItem(`llmchat.draft.${id}`),
    ),
  clear: () =>
    tried(() =>
      Object.keys(sessionStorage)
        .filter((name) => name.startsWith("llmchat.draft."))
        .forEach((name) => sessionStorage.removeItem(name)),
    ),
};

/** "auto" follows the system. */
export function theme() {
  return document.documentElement.dataset.theme ?? "auto";
}

export function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  tried(() => localStorage.setItem("llmchat.theme", name));
}

function tried(act) {
  try {
    return act();
  } catch {
    return null;
  }
}
