// The list of conversations, grouped by date, with a search.

import { el, find, iconButton } from "./dom.js";
import { showMenu } from "./menu.js";

// With fewer conversations there is nothing to search.
const MIN_SEARCHABLE = 2;
// A search starts this long after the last key, in milliseconds.
const PAUSE_MS = 200;
const DAY_MS = 24 * 60 * 60 * 1000;

/** The heading of a conversation's group: by its last change, in the user's time zone. */
export function groupOf({ pinned, updated }, now = new Date()) {
  if (pinned) return "Pinned";
  const today = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  if (updated >= today) return "Today";
  if (updated >= today - DAY_MS) return "Yesterday";
  if (updated >= today - 7 * DAY_MS) return "Previous 7 days";
  if (updated >= today - 30 * DAY_MS) return "Previous 30 days";
  return new Date(updated).toLocaleDateString("en", { month: "long", year: "numeric" });
}

export class Sidebar {
  /**
   * act: {open(id), rename(id, title), pin(id, pinned), save(id), saveText(id), remove(id),
   * search(text) → Map of excerpts by id}
   */
  constructor(act) {
    Object.assign(this, {
      act,
      list: find("#conversations"),
      filter: find("#filter"),
      heads: [],
      current: "",
      running: new Set(),
      found: new Map(),
    });
    this.filter.addEventListener("input", () => this.#search());
  }

  /**
   * heads: [{id, title, updated, pinned}]; current: the id that is open;
   * running: ids with an unfinished answer.
   */
  show(heads, current, running) {
    this.heads = [...heads].sort(
      (one, other) => Boolean(other.pinned) - Boolean(one.pinned) || other.updated - one.updated,
    );
    this.current = current;
    this.running = running;
    // Do not redraw over a title that is being typed, or over an open menu.
    if (!this.list.querySelector("input, :popover-open")) this.#draw();
  }

  /** Filter titles immediately, and the texts of messages a moment later. */
  #search() {
    const wanted = this.#wanted;
    this.found = new Map();
    clearTimeout(this.timer);
    if (wanted) {
      this.timer = setTimeout(async () => {
        const found = await this.act.search(wanted);
        if (wanted !== this.#wanted) return;
        this.found = found;
        this.#draw();
      }, PAUSE_MS);
    }
    this.#draw();
  }

  get #wanted() {
    return this.filter.value.trim().toLowerCase();
  }

  #draw() {
    this.filter.hidden = this.heads.length < MIN_SEARCHABLE && !this.filter.value;
    const focused = document.activeElement?.closest?.("#conversations li")?.dataset.id;
    const label = document.activeElement?.getAttribute("aria-label");
    const shown = this.heads.filter(
      ({ id, title }) => title.toLowerCase().includes(this.#wanted) || this.found.has(id),
    );
    const groups = Map.groupBy(shown, (head) => groupOf(head));
    this.list.replaceChildren(
      ...[...groups].map(([name, heads]) =>
        el(
          "section",
          {},
          el("h2", {}, name),
          el("ul", { "aria-label": name }, ...heads.map((head) => this.#item(head))),
        ),
      ),
    );
    if (!shown.length && this.#wanted)
      this.list.append(el("p", { class: "hint" }, "No results."));
    if (focused) {
      const item = this.list.querySelector(`li[data-id="${CSS.escape(focused)}"]`);
      (
        item?.querySelector(label ? `[aria-label="${CSS.escape(label)}"]` : ".open") ??
        item?.querySelector(".open")
      )?.focus();
    }
  }

  #item(head) {
    const { id } = head;
    const title = head.title || "Untitled";
    const item = el("li", { "data-id": id, class: id === this.current ? "current" : null });
    const excerpt = this.found.get(id);
    item.append(
      el(
        "button",
        {
          type: "button",
          class: "open",
          "aria-current": id === this.current ? "true" : null,
          title,
          onclick: () => this.act.open(id),
        },
        el(
          "span",
          { class: "names" },
          el("span", { class: "name" }, title),
          excerpt && el("span", { class: "excerpt" }, excerpt),
        ),
        this.running.has(id) && el("span", { class: "dot", title: "An answer is being generated" }),
      ),
      iconButton(
        "more",
        `Options for ${title}`,
        ({ currentTarget }) => showMenu(currentTarget, this.#entries(item, head)),
        { class: "quiet more", "aria-haspopup": "menu", "aria-expanded": "false" },
      ),
    );
    return item;
  }

  #entries(item, head) {
    const { id } = head;
    return [
      { label: head.pinned ? "Unpin" : "Pin", run: () => this.act.pin(id, !head.pinned) },
      { label: "Rename", run: () => this.#rename(item, head) },
      { label: "Export as Markdown", run: () => this.act.saveText(id) },
      { label: "Export as JSON", run: () => this.act.save(id) },
      { label: "Delete", run: () => this.act.remove(id) },
    ];
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
