// The list of conversations.

import { el, find, iconButton } from "./dom.js";

// With fewer than this there is nothing to look for.
const FILTERED = 8;

export class Sidebar {
  /** act: {open(id), rename(id, title), save(id), remove(id)} */
  constructor(act) {
    Object.assign(this, { act, list: find("#conversations"), filter: find("#filter"), heads: [], current: "", running: new Set() });
    this.filter.addEventListener("input", () => this.#draw());
  }

  /** heads: [{id, title, updated}]; current: the id that is open; running: ids with an answer under way. */
  show(heads, current, running) {
    this.heads = [...heads].sort((one, other) => other.updated - one.updated);
    this.current = current;
    this.running = running;
    // A name that is being typed is not drawn over.
    if (!this.list.querySelector("input")) this.#draw();
  }

  #draw() {
    this.filter.hidden = this.heads.length < FILTERED && !this.filter.value;
    const wanted = this.filter.value.trim().toLowerCase();
    const focused = document.activeElement?.closest?.("#conversations li")?.dataset.id;
    const label = document.activeElement?.getAttribute("aria-label");
    const shown = this.heads.filter(({ title }) => title.toLowerCase().includes(wanted));
    this.list.replaceChildren(...shown.map((head) => this.#item(head)));
    if (focused) {
      const item = this.list.querySelector(`li[data-id="${CSS.escape(focused)}"]`);
      (item?.querySelector(label ? `[aria-label="${CSS.escape(label)}"]` : ".open") ?? item?.querySelector(".open"))?.focus();
    }
  }

  #item(head) {
    const { id } = head;
    const title = head.title || "Untitled";
    const item = el("li", { "data-id": id, class: id === this.current ? "current" : null });
    item.append(
      el(
        "button",
        { type: "button", class: "open", "aria-current": id === this.current ? "true" : null, title, onclick: () => this.act.open(id) },
        el("span", { class: "name" }, title),
        this.running.has(id) && el("span", { class: "dot", title: "An answer is being written" }),
      ),
      el(
        "span",
        { class: "item-tools" },
        iconButton("edit", `Rename ${title}`, () => this.#rename(item, head)),
        iconButton("export", `Export ${title}`, () => this.act.save(id)),
        iconButton("delete", `Delete ${title}`, () => this.act.remove(id)),
      ),
    );
    return item;
  }

  #rename(item, head) {
    const input = el("input", { "aria-label": "New title", maxlength: 200 });
    let over = false;
    const end = (keep) => {
      if (over) return;
      over = true;
      const title = input.value.trim();
      input.remove();
      if (keep && title && title !== head.title) {
        head.title = title;
        this.act.rename(head.id, title);
      }
      this.#draw();
      this.list.querySelector(`li[data-id="${CSS.escape(head.id)}"] .open`)?.focus();
    };
    input.value = head.title;
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.stopPropagation();
      end(event.key === "Enter" && !event.isComposing);
    });
    input.addEventListener("blur", () => end(true));
    item.replaceChildren(input);
    input.focus();
    input.select();
  }
}
