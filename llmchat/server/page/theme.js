// Runs before anything is painted, so that a page in the dark does not flash.
(() => {
  try {
    const theme = localStorage.getItem("llmchat.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // No storage: the system's colours.
  }
})();
