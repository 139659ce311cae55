// The sidebar and the settings: columns on wide screens, drawers over the messages on narrow ones.

import { find } from "./dom.js";

const NARROW = matchMedia("(max-width: 52rem)");

export class Drawers {
  constructor() {
    this.all = ["sidebar", "panel"].map((name) => ({
      name,
      aside: find(`#${name}`),
      toggle: find(`#${name}-toggle`),
    }));
    for (const drawer of this.all) {
      drawer.toggle.addEventListener("click", () => this.set(drawer, drawer.aside.hidden));
      find(`#${drawer.name}-close`).addEventListener("click", () => this.set(drawer, false));
    }
    find("#backdrop").addEventListener("click", () => this.close());
    NARROW.addEventListener("change", () => this.#fit());
    this.#fit();
  }

  /** Close the drawer that covers the messages; returns false if there is none. */
  close() {
    const open = NARROW.matches && this.all.find(({ aside }) => !aside.hidden);
    if (open) this.set(open, false);
    return Boolean(open);
  }

  open(name) {
    this.set(
      this.all.find((drawer) => drawer.name === name),
      true,
    );
  }

  set(drawer, open) {
    if (open && NARROW.matches) for (const other of this.all) this.#show(other, false);
    this.#show(drawer, open);
    this.#cover();
    if (!NARROW.matches) return;
    if (open) find(`#${drawer.name}-close`).focus();
    else drawer.toggle.focus();
  }

  #fit() {
    for (const drawer of this.all) this.#show(drawer, !NARROW.matches && drawer.name === "sidebar");
    this.#cover();
  }

  #show({ aside, toggle }, open) {
    aside.hidden = !open;
    toggle.setAttribute("aria-expanded", open);
  }

  #cover() {
    const covered = NARROW.matches && this.all.some(({ aside }) => !aside.hidden);
    find("#main").inert = covered;
    find("#backdrop").hidden = !covered;
  }
}
