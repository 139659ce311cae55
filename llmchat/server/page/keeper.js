// Stores conversations while they change: at intervals, and merged with changes by other windows.

import { checked, merge } from "./conversation.js";
import { Conflict, storageProblem } from "./stores.js";

const RESCUE = "llmchat.rescue.";
const TRIES = 5;

export class Keeper {
  /**
   * delay: milliseconds between two writes of a growing conversation.
   * Callbacks: onmerged(conversation), onwritten(conversation), onremoved(id), onproblem(text).
   */
  constructor(store, { delay, onmerged, onwritten, onremoved, onproblem }) {
    Object.assign(this, { store, delay, onmerged, onwritten, onremoved, onproblem });
    this.versions = new Map();
    this.dirty = new Map();
    this.timers = new Map();
    this.writing = new Map();
    this.removed = new Set();
    // Conversations whose write is in progress.
    this.underWay = new Map();
  }

  list() {
    return this.store.list();
  }

  search(text) {
    return this.store.search(text);
  }

  /** A conversation by its id, or null. */
  async load(id) {
    const found = await this.store.get(id);
    if (!found) return null;
    this.versions.set(id, found.version);
    return checked(found.conversation);
  }

  /** Store a changed conversation within `delay`, or now. */
  save(conversation, { now = false } = {}) {
    const { id } = conversation;
    if (this.removed.has(id)) return;
    this.dirty.set(id, conversation);
    if (now) this.flush(id);
    else if (!this.timers.has(id))
      this.timers.set(
        id,
        setTimeout(() => this.flush(id), this.delay),
      );
  }

  async flush(id) {
    clearTimeout(this.timers.get(id));
    this.timers.delete(id);
    // One write at a time; later changes are written afterwards.
    if (this.writing.has(id)) return this.writing.get(id);
    const work = this.#drain(id).finally(() => this.writing.delete(id));
    this.writing.set(id, work);
    return work;
  }

  async #drain(id) {
    while (this.dirty.has(id) && !this.timers.has(id)) {
      const conversation = this.dirty.get(id);
      this.dirty.delete(id);
      this.underWay.set(id, conversation);
      try {
        await this.#write(conversation);
        if (!this.removed.has(id)) this.onwritten(conversation);
      } catch (error) {
        if (!this.dirty.has(id)) this.dirty.set(id, conversation);
        this.timers.set(
          id,
          setTimeout(() => this.flush(id), 10 * this.delay),
        );
        this.onproblem(storageProblem(error));
      } finally {
        this.underWay.delete(id);
      }
    }
  }

  async #write(conversation) {
    for (let tries = 0; !this.removed.has(conversation.id); tries++) {
      try {
        this.versions.set(
          conversation.id,
          await this.store.put(conversation, this.versions.get(conversation.id) ?? 0),
        );
        return;
      } catch (error) {
        if (!(error instanceof Conflict) || tries >= TRIES) throw error;
        const found = await this.store.get(conversation.id);
        this.versions.set(conversation.id, found?.version ?? 0);
        if (found) {
          merge(conversation, checked(found.conversation));
          this.onmerged(conversation);
        }
      }
    }
  }

  /** Whether the store has a version that this window has not loaded. */
  isStale({ id, version }) {
    return (
      this.versions.has(id) &&
      this.versions.get(id) !== version &&
      !this.writing.has(id) &&
      !this.dirty.has(id)
    );
  }

  async remove(id) {
    this.removed.add(id);
    this.dirty.delete(id);
    clearTimeout(this.timers.get(id));
    this.timers.delete(id);
    await this.writing.get(id);
    await this.store.remove(id);
    this.versions.delete(id);
    this.onremoved(id);
  }

  /** Store a removed conversation again. */
  restore(conversation) {
    this.removed.delete(conversation.id);
    this.versions.delete(conversation.id);
    this.save(conversation, { now: true });
  }

  /**
   * The page is closing, and there is no time to wait for a database: put unsaved conversations
   * into localStorage, which is synchronous.
   */
  leave() {
    for (const [id, conversation] of [...this.underWay, ...this.dirty]) {
      try {
        localStorage.setItem(RESCUE + id, JSON.stringify(conversation));
      } catch {
        // Storage is full or blocked: only the last regular write remains.
      }
    }
  }

  /** Store the conversations that a closing page left in localStorage. */
  async rescue() {
    let names = [];
    try {
      names = Object.keys(localStorage).filter((name) => name.startsWith(RESCUE));
    } catch {
      return;
    }
    for (const name of names) {
      try {
        const left = checked(JSON.parse(localStorage.getItem(name)));
        const found = await this.load(left.id);
        if (found) merge(left, found);
        await this.#write(left);
        localStorage.removeItem(name);
      } catch (error) {
        this.onproblem(storageProblem(error));
      }
    }
  }
}
