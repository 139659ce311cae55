// The messages of a conversation on the screen.

import { drawRounds } from "./cards.js";
import { children, pairOf, path } from "./conversation.js";
import { copy, el, iconButton } from "./dom.js";
import { render } from "./markdown.js";
import { drawFiles, drawSources, linkCitations } from "./sources.js";

// Within this distance, in pixels, the view counts as being at the end.
const NEAR = 48;
const STATE_NOTES = { stopped: "Stopped.", writing: "Interrupted." };

export class View {
  /** act: the handlers in actions.js; runOf(message): its Run, or undefined. */
  constructor({ list, scroller, latest }, act, runOf) {
    Object.assign(this, { list, scroller, latest, act, runOf });
    this.rows = new Map();
    this.grown = new Set();
    this.atEnd = true;
    /** The last known scroll position, in pixels from the top. */
    this.place = 0;
    scroller.addEventListener("scroll", () => this.#look(), { passive: true });
    new ResizeObserver(() => this.#follow()).observe(list);
    new ResizeObserver(() => this.#follow()).observe(scroller);
    latest.addEventListener("click", () => this.toEnd());
  }

  /** Show the current state of a conversation. Rows that are already shown are reused. */
  show(conversation) {
    if (this.conversation !== conversation) {
      this.conversation = conversation;
      this.rows.clear();
      this.list.replaceChildren();
      this.atEnd = true;
      this.place = 0;
    }
    const shown = path(conversation);
    const pairs = shown.map((message) => pairOf(conversation, message));
    const kept = new Map(
      pairs.flat().map((message) => [message.id, this.rows.get(message.id) ?? this.#row(message)]),
    );
    for (const [id, row] of this.rows) if (!kept.has(id)) row.item.remove();
    this.rows = kept;
    pairs.forEach((pair, index) => {
      const place = this.#placed(pair, shown[index]);
      if (this.list.children[index] !== place)
        this.list.insertBefore(place, this.list.children[index] ?? null);
      for (const message of pair) {
        kept.get(message.id).item.classList.toggle("last", index === shown.length - 1);
        this.#draw(message);
      }
    });
    while (this.list.children.length > pairs.length) this.list.lastChild.remove();
    this.#follow();
  }

  /** The element of a message, or of two answers in comparison. */
  #placed(pair, chosen) {
    const items = pair.map(({ id }) => this.rows.get(id).item);
    pair.forEach((message, index) => {
      items[index].classList.toggle("chosen", pair.length > 1 && message === chosen);
      const heading = items[index].querySelector("h2");
      heading.classList.toggle("hidden", pair.length < 2);
      if (message.role === "assistant")
        heading.textContent = pair.length > 1 ? message.model : "Answer";
    });
    if (items.length < 2) return items[0];
    const frame = items[0].parentNode?.classList.contains("pair")
      ? items[0].parentNode
      : el("div", { class: "pair" });
    items.forEach(
      (item, index) =>
        frame.children[index] !== item && frame.insertBefore(item, frame.children[index] ?? null),
    );
    return frame;
  }

  /** Redraw a growing message in the next frame. */
  grow(message) {
    if (!this.grown.size) requestAnimationFrame(() => this.#drawGrown());
    this.grown.add(message);
  }

  toEnd() {
    this.atEnd = true;
    this.place = 0;
    this.#follow();
  }

  focus(message, label) {
    const item = this.rows.get(message.id)?.item;
    (
      item?.querySelector(`button[aria-label="${label}"]:enabled`) ??
      item?.querySelector(".switch button:enabled")
    )?.focus();
  }

  /** Edit a message in place. An edited question is sent again; an edited answer is stored. */
  edit(message) {
    const row = this.rows.get(message.id);
    if (!row || row.item.classList.contains("editing")) return;
    const close = () => {
      form.remove();
      row.item.classList.remove("editing");
    };
    const cancel = () => {
      close();
      this.focus(message, "Edit");
    };
    const mine = message.role === "user";
    const send = () => {
      if (!area.value.trim()) return;
      close();
      if (mine) this.act.edited(message, area.value);
      else this.act.rewritten(message, area.value);
    };
    const area = el("textarea", { "aria-label": mine ? "Your message" : "The answer", rows: 1 });
    const form = el(
      "form",
      { class: "edit", onsubmit: (event) => (event.preventDefault(), send()) },
      area,
      el(
        "div",
        { class: "buttons" },
        el("button", { type: "button", onclick: cancel }, "Cancel"),
        el("button", { type: "submit", class: "primary" }, mine ? "Send" : "Save"),
      ),
    );
    area.value = message.text;
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") cancel();
      else if (
        event.key === "Enter" &&
        !event.isComposing &&
        (mine ? !event.shiftKey : event.ctrlKey || event.metaKey)
      )
        send();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    row.item.classList.add("editing");
    row.body.after(form);
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  #drawGrown() {
    for (const message of this.grown) if (this.rows.has(message.id)) this.#draw(message);
    this.grown.clear();
    this.#follow();
  }

  #row(message) {
    const mine = message.role === "user";
    const row = {
      thinking: el(
        "details",
        { class: "thinking", hidden: true },
        el("summary", {}, "Thinking"),
        el("div", { class: "thought" }),
      ),
      rounds: el("div", { class: "rounds" }),
      files: el("ul", { class: "sent-files", "aria-label": "Files", hidden: true }),
      sources: el("div", { class: "sources", hidden: true }),
      body: el("div", { class: mine ? "body said" : "body markdown", dir: "auto" }),
      note: el("div", { class: "note" }),
      foot: el("div", { class: "foot" }),
      state: "",
    };
    row.item = el("article", { class: `message ${message.role}`, id: `message-${message.id}` });
    row.item.append(
      el("h2", { class: "hidden" }, mine ? "You" : "Answer"),
      ...(mine ? [row.files] : [row.rounds, row.thinking]),
      row.body,
      ...(mine ? [] : [row.sources, row.note]),
      row.foot,
    );
    return row;
  }

  #draw(message) {
    const row = this.rows.get(message.id);
    const run = this.runOf(message);
    if (message.role === "user") row.body.textContent = message.text;
    else render(row.body, message.text);
    drawFiles(row.files, message.files);
    drawSources(row.sources, message);
    linkCitations(row.body, message.sources);
    drawRounds(row.rounds, message, run);
    row.thinking.hidden = !message.thinking;
    if (message.thinking) row.thinking.lastChild.textContent = message.thinking;
    row.item.setAttribute("aria-busy", Boolean(run));
    row.item.classList.toggle("waiting", Boolean(run) && !run.asking && !writes(message));
    const siblings = children(this.conversation, message.parent);
    const idle = !siblings.some((one) => this.runOf(one)) && !this.act.busy();
    // The footer is redrawn only if it changed, so that its buttons keep the focus.
    const drawn = JSON.stringify([
      message.state,
      message.error,
      message.usage,
      run?.waiting,
      run?.loading,
      run && speedText(run),
      siblings.length,
      idle,
      Boolean(run),
      started(message),
      row.item.className,
    ]);
    if (drawn === row.state) return;
    row.state = drawn;
    row.note.replaceChildren(...this.#note(message, run, idle));
    row.foot.replaceChildren(...this.#foot(message, siblings, run, idle));
  }

  #note(message, run, idle) {
    if (run?.waiting)
      return [
        el("p", { class: "problem" }, `The server is busy. Trying again in ${run.waiting} s.`),
      ];
    if (run?.loading && !started(message)) return loadingNote(run.loading);
    if (run && !started(message)) return [el("p", { class: "late" }, "Waiting for the model…")];
    if (run || message.state === "complete") return [];
    const parts = [
      el(
        "p",
        { class: message.state === "failed" ? "problem" : "" },
        message.error ?? STATE_NOTES[message.state] ?? "",
      ),
    ];
    if (idle && message.code === "context_length_exceeded") {
      parts.push(
        el(
          "button",
          { type: "button", onclick: () => this.act.trim(message) },
          "Drop the oldest messages",
        ),
      );
    } else if (idle && message.state === "failed") {
      parts.push(
        el("button", { type: "button", onclick: () => this.act.again(message) }, "Try again"),
      );
    }
    return parts;
  }

  #foot(message, siblings, run, idle) {
    const parts = [];
    const pair = pairOf(this.conversation, message);
    // Two compared answers count as one version.
    const versions = siblings.filter((one) => pairOf(this.conversation, one)[0] === one);
    if (versions.length > 1 && pair[0] === message) parts.push(this.#switch(message, versions));
    if (pair.length > 1 && idle && !this.rows.get(message.id).item.classList.contains("chosen")) {
      parts.push(
        el(
          "button",
          { type: "button", class: "use", onclick: () => this.act.choose(message, "Copy") },
          "Continue from this answer",
        ),
      );
    }
    const text = iconButton("copy", "Copy", async () => {
      const done = await copy(message.text);
      text.classList.toggle("done", done);
      this.act.say(done ? "Copied." : "This browser does not allow copying.");
      setTimeout(() => text.classList.remove("done"), 1500);
    });
    if (!run && message.text) parts.push(text);
    if (message.role === "user") {
      if (idle)
        parts.push(
          iconButton("edit", "Edit", () => this.edit(message)),
          iconButton("delete", "Delete message", () => this.act.remove(message)),
        );
      return parts;
    }
    if (idle) parts.push(iconButton("again", "Regenerate", () => this.act.regenerate(message)));
    if (idle && message.text)
      parts.push(iconButton("edit", "Edit answer", () => this.edit(message)));
    const kept = message.text || message.rounds?.length;
    if (idle && kept)
      parts.push(iconButton("delete", "Delete answer", () => this.act.remove(message)));
    if (idle && kept && (message.state !== "complete" || message.reason === "length")) {
      parts.push(iconButton("resume", "Continue this answer", () => this.act.resume(message)));
    }
    if (run && speedText(run)) parts.push(el("span", { class: "meta" }, speedText(run)));
    if (!run)
      parts.push(
        iconButton("inspect", "Show request", () => this.act.inspect(message)),
        el("span", { class: "meta" }, figures(message)),
      );
    return parts;
  }

  #switch(message, siblings) {
    const index = siblings.indexOf(message);
    const step = (label, name, to) =>
      iconButton(name, label, () => this.act.choose(siblings[to], label), {
        disabled: to < 0 || to >= siblings.length,
      });
    return el(
      "span",
      { class: "switch" },
      step("Previous version", "left", index - 1),
      el(
        "span",
        { "aria-label": `Version ${index + 1} of ${siblings.length}` },
        `${index + 1} / ${siblings.length}`,
      ),
      step("Next version", "right", index + 1),
    );
  }

  #look() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    this.atEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    this.latest.hidden = this.atEnd;
    this.place = scrollTop;
  }

  #follow() {
    // The user may have scrolled up a moment ago, and the scroll event is still to come.
    if (this.scroller.scrollTop < this.place - 1) this.#look();
    if (this.atEnd) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#look();
  }
}

const writes = ({ text, thinking }) => Boolean(text || thinking);
const started = (message) => writes(message) || Boolean(message.rounds?.length);

/** The approximate speed of a growing answer, rounded so that it does not flicker. */
const speedText = ({ speed }) =>
  speed ? `≈\u00a0${speed < 10 ? speed.toFixed(1) : Math.round(speed)}\u00a0tokens/s` : "";

/** The progress of loading, with a bar if the server knows how long it took last time. */
function loadingNote({ name, loading_s: seconds, expected_s: expected }) {
  const bar = expected ? { max: expected, value: Math.min(seconds, 0.98 * expected) } : {};
  const total = expected ? ` of about ${Math.max(1, Math.round(expected))}` : "";
  const text = `Loading ${name} · ${Math.round(seconds)}${total} s`;
  return [el("p", {}, text), el("progress", { "aria-label": `Loading ${name}`, ...bar })];
}

/** The line below an answer: its model, length and speed. */
function figures({ model, usage, timing, reason, window, edited }) {
  const parts = [model, edited && "edited by you"];
  const tokens = usage?.completion_tokens;
  if (tokens) parts.push(`${tokens} token${tokens === 1 ? "" : "s"}`);
  if (tokens > 1 && timing?.decode_s > 0)
    parts.push(`${((tokens - 1) / timing.decode_s).toFixed(1)} tokens/s`);
  if (timing) parts.push(`first token after ${timing.first_s.toFixed(2)} s`);
  if (reason === "length") parts.push("stopped at the token limit");
  if (window?.dropped)
    parts.push(`${window.dropped} of ${window.dropped + window.sent} messages dropped`);
  // Lines may break between two figures, but not within one.
  return parts
    .filter(Boolean)
    .map((part) => part.replaceAll(" ", "\u00a0"))
    .join(" · ");
}
