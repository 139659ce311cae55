// The conversations of this page: the open one, the unfinished answers, and all changes to them.

import * as tree from "./conversation.js";
import { Run } from "./run.js";

export class Chats {
  /**
   * ongrow(message), onchange() and onanswer(run) are called when something must be redrawn,
   * onask(call) when a call of a tool waits for the user;
   * settings(): {model, adapter, …} for new conversations; ownSystem(conversation): the system
   * prompt of its model, for conversations without one.
   */
  constructor({ keeper, settings, ownSystem, ongrow, onchange, onanswer, onask }) {
    Object.assign(this, { keeper, settings, ownSystem, ongrow, onchange, onanswer, onask });
    /** The tools that the user allowed, by conversation. Never stored: no file may allow one. */
    this.allowed = new Map();
    /** The unfinished answers, by the id of their message. */
    this.runs = new Map();
    /** The rendered prompts, by the id of the answer. They are long, and not stored. */
    this.prompts = new Map();
    this.heads = [];
    this.open = this.fresh();
  }

  /** A new conversation. It keeps its id until it has a message: files may be added before. */
  fresh() {
    const conversation = tree.create(this.settings());
    this.newId ??= conversation.id;
    return Object.assign(conversation, { id: this.newId });
  }

  get isNew() {
    return !Object.keys(this.open.messages).length;
  }

  /** The unfinished answer of the open conversation. */
  get run() {
    return this.#running(this.open.id)[0];
  }

  runOf(message) {
    return this.runs.get(message.id);
  }

  /** The ids of conversations with an unfinished answer. */
  get busy() {
    return new Set([...this.runs.values()].map(({ conversation }) => conversation.id));
  }

  /** Stop the unfinished answers of a conversation. */
  stop(id = this.open.id) {
    for (const run of this.#running(id)) run.stop();
  }

  #running(id) {
    return [...this.runs.values()].filter(({ conversation }) => conversation.id === id);
  }

  /** Open a stored conversation, or a new one if there is none with this id. */
  async show(id) {
    const found =
      this.#running(id)[0]?.conversation ?? (tree.isId(id) ? await this.keeper.load(id) : null);
    this.open = found ?? this.fresh();
    this.onchange();
    return Boolean(found) || !id;
  }

  async list() {
    this.heads = await this.keeper.list();
    this.onchange();
  }

  /** The store has written this conversation, or removed it (null). */
  noted(id, conversation) {
    this.heads = this.heads.filter((head) => head.id !== id);
    if (conversation)
      this.heads.push({
        id,
        title: conversation.title,
        updated: conversation.changed,
        pinned: conversation.pinned,
      });
    this.onchange();
  }

  send(text, files = []) {
    const last = tree.path(this.open).at(-1);
    const fields = { text, ...(files.length ? { files } : {}) };
    if (this.open.id === this.newId) this.newId = undefined;
    this.#ask(tree.add(this.open, last?.id ?? "", "user", fields));
  }

  /** Add an edited version of a message, with its own answer. */
  edited(message, text) {
    if (text === message.text) this.#ask(message);
    else {
      const { files } = message;
      this.#ask(tree.add(this.open, message.parent, "user", { text, ...(files && { files }) }));
    }
  }

  /** Add the user's version of an answer; the original stays as another version. */
  rewrite(answer, text) {
    if (text === answer.text) return;
    tree.add(this.open, answer.parent, "assistant", {
      text,
      model: answer.model,
      request: answer.request,
      rounds: answer.rounds,
      sources: answer.sources,
      edited: true,
    });
    this.#changed();
  }

  /** Delete a message and its replies. Returns {count, undo()}. */
  removeMessage(message) {
    const conversation = this.open;
    const { count, undo } = tree.removeMessage(conversation, message);
    this.#changed();
    return {
      count,
      undo: () => {
        undo();
        conversation.changed = Date.now();
        this.keeper.save(conversation, { now: true });
        this.onchange();
      },
    };
  }

  /** Ask for another answer to the same message; the old one stays as another version. */
  regenerate(answer) {
    this.#ask(this.open.messages[answer.parent]);
  }

  /** Continue an answer where it ended. */
  resume(answer) {
    answer.request = this.#request(answer.pair ? answer.request.model : undefined);
    this.#start(answer);
  }

  /** Retry a failed answer: in its place if it has no text. */
  again(answer) {
    if (answer.text) this.regenerate(answer);
    else this.resume(answer);
  }

  choose(message) {
    tree.choose(this.open, message);
    this.#changed();
  }

  /** Change settings of the open conversation. */
  set(settings) {
    Object.assign(this.open, settings, { changed: this.isNew ? this.open.changed : Date.now() });
    if (!this.isNew) this.keeper.save(this.open);
  }

  async rename(id, title) {
    const conversation = await this.#any(id);
    if (!conversation) return;
    Object.assign(conversation, { title, named: true, changed: Date.now() });
    this.keeper.save(conversation, { now: true });
    if (conversation === this.open) this.onchange();
  }

  async pin(id, pinned) {
    const conversation = await this.#any(id);
    if (!conversation) return;
    // This is not a change of its content: the date of the last change stays.
    conversation.pinned = pinned;
    this.keeper.save(conversation, { now: true });
    this.onchange();
  }

  /** The shown branch of a conversation as Markdown, and its title. */
  async asMarkdown(id) {
    const conversation = await this.#any(id);
    return { title: conversation.title, text: tree.markdownOf(conversation) };
  }

  /** Returns the removed conversation, or null if another window was faster. */
  async remove(id) {
    const conversation = await this.#any(id);
    this.stop(id);
    await this.keeper.remove(id);
    if (this.open.id === id) {
      this.open = this.fresh();
      this.onchange();
    }
    return conversation;
  }

  restore(conversation) {
    this.keeper.restore(conversation);
  }

  /** The content of an export file: all conversations, or one. */
  async exported(id = null) {
    const ids = id ? [id] : (await this.keeper.list()).map((head) => head.id);
    const conversations = [];
    for (const one of ids) conversations.push(await this.#any(one));
    return { llmchat: "conversations", conversations: conversations.filter(Boolean) };
  }

  /** Store the conversations of an export file; returns their number. Throws an Error. */
  async import(text) {
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      throw new Error("the file is not JSON");
    }
    if (value?.llmchat !== "conversations" || !Array.isArray(value.conversations))
      throw new Error("the file is not an export of this page");
    const all = value.conversations.map((one) => tree.checked(one));
    for (const conversation of all) {
      const stored = await this.#any(conversation.id);
      if (stored) tree.merge(stored, conversation);
      this.keeper.restore(stored ?? conversation);
    }
    return all.length;
  }

  /** Load changes by other windows. */
  async refresh() {
    this.heads = await this.keeper.list();
    const head = this.heads.find(({ id }) => id === this.open.id);
    if (head && !this.run && this.keeper.isStale(head)) {
      const found = await this.keeper.load(head.id);
      if (found && found.id === this.open.id) {
        tree.merge(found, this.open);
        this.open = found;
      }
    }
    this.onchange();
  }

  async #any(id) {
    return this.open.id === id
      ? this.open
      : (this.#running(id)[0]?.conversation ?? this.keeper.load(id));
  }

  /** model: the name for the request; by default the conversation's model. */
  #request(model = tree.modelName(this.open)) {
    const { system, parameters } = this.open;
    return {
      model,
      system: system || this.ownSystem({ model: model.split("+")[0] }),
      parameters: structuredClone(parameters),
      tools: this.open.tools,
      docs: [...this.open.docs],
    };
  }

  #ask(question) {
    const { compare, model } = this.open;
    const requests = [
      this.#request(),
      ...(compare && compare !== model ? [this.#request(compare)] : []),
    ];
    const pair = requests.length > 1 ? tree.newId() : undefined;
    const answers = requests.map((request) =>
      tree.add(this.open, question.id, "assistant", {
        model: request.model,
        request,
        state: "writing",
        pair,
      }),
    );
    tree.choose(this.open, answers[0]);
    for (const answer of answers) this.#start(answer);
  }

  #start(answer) {
    const conversation = this.open;
    if (!this.allowed.has(conversation.id)) this.allowed.set(conversation.id, new Set());
    const run = new Run(conversation, answer, {
      allowed: this.allowed.get(conversation.id),
      onask: this.onask,
      onchange: () => {
        if (this.open === conversation) this.ongrow(answer);
        this.keeper.save(conversation);
      },
      onend: () => {
        this.runs.delete(answer.id);
        if (run.prompt) this.prompts.set(answer.id, run.prompt);
        this.keeper.save(conversation, { now: true });
        this.onanswer(run);
        this.onchange();
      },
    });
    this.runs.set(answer.id, run);
    run.start();
    this.#changed();
  }

  #changed() {
    this.open.changed = Date.now();
    this.keeper.save(this.open, { now: true });
    this.onchange();
  }
}
