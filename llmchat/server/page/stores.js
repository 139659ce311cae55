// Where conversations are stored: in this browser (IndexedDB), on the server, or, if neither is
// possible, in this page.
//
// A store has list() → [{id, title, updated, pinned, version}], search(text) → excerpts by id,
// get(id) → {version, conversation} or null, put(conversation, version) → the new version, and
// remove(id). put throws Conflict if the stored version differs (0: not stored), so that no window
// overwrites the changes of another.

import { ApiError, call } from "./api.js";
import { excerptOf } from "./conversation.js";

export class Conflict extends Error {}

/** A message for the user about an error while storing. */
export function storageProblem(error) {
  if (error?.name === "QuotaExceededError")
    return (
      "The browser's storage is full. Export or delete some conversations; " +
      "this one is lost when you close the page."
    );
  if (error instanceof ApiError)
    return `The server did not store the conversation: ${error.message}`;
  return `This browser cannot store the conversation: ${error?.message ?? error}`;
}

const settled = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

export class BrowserStore {
  static async open() {
    const request = indexedDB.open("llmchat", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("heads", { keyPath: "id" });
      request.result.createObjectStore("bodies", { keyPath: "id" });
    };
    const store = new BrowserStore();
    store.database = await settled(request);
    // A newer version of the page may upgrade the database: it must not wait for this one.
    store.database.onversionchange = () => store.database.close();
    return store;
  }

  async list() {
    return settled(this.database.transaction("heads").objectStore("heads").getAll());
  }

  async get(id) {
    const { database } = this;
    const transaction = database.transaction(["heads", "bodies"]);
    const [head, body] = await Promise.all([
      settled(transaction.objectStore("heads").get(id)),
      settled(transaction.objectStore("bodies").get(id)),
    ]);
    return head && body ? { version: head.version, conversation: body.conversation } : null;
  }

  put(conversation, version) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(["heads", "bodies"], "readwrite");
      const heads = transaction.objectStore("heads");
      let problem = null;
      transaction.oncomplete = () => resolve(version + 1);
      transaction.onabort = () => reject(problem ?? transaction.error);
      const seen = heads.get(conversation.id);
      seen.onsuccess = () => {
        try {
          if ((seen.result?.version ?? 0) !== version) throw new Conflict();
          heads.put({
            id: conversation.id,
            title: conversation.title,
            updated: conversation.changed,
            pinned: Boolean(conversation.pinned),
            version: version + 1,
          });
          transaction.objectStore("bodies").put({ id: conversation.id, conversation });
        } catch (error) {
          problem = error;
          transaction.abort();
        }
      };
    });
  }

  /** Reads one conversation at a time, so that memory does not hold all of them. */
  search(text) {
    return new Promise((resolve, reject) => {
      const found = new Map();
      const request = this.database.transaction("bodies").objectStore("bodies").openCursor();
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (!cursor) return resolve(found);
        const excerpt = excerptOf(cursor.value.conversation, text);
        if (excerpt !== null) found.set(cursor.value.id, excerpt);
        cursor.continue();
      };
    });
  }

  async remove(id) {
    const transaction = this.database.transaction(["heads", "bodies"], "readwrite");
    transaction.objectStore("heads").delete(id);
    await settled(transaction.objectStore("bodies").delete(id));
  }
}

export class ServerStore {
  async list() {
    return (await (await call("api/conversations")).json()).data;
  }

  async search(text) {
    const { data } = await (
      await call(`api/search?text=${encodeURIComponent(text.slice(0, 200))}`)
    ).json();
    return new Map(data.map(({ id, excerpt }) => [id, excerpt]));
  }

  async get(id) {
    try {
      const { version, conversation } = await (await call(`api/conversations/${id}`)).json();
      return { version, conversation };
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  async put(conversation, version) {
    const headers = version ? { "If-Match": `"${version}"` } : { "If-None-Match": "*" };
    try {
      const body = {
        title: conversation.title,
        pinned: Boolean(conversation.pinned),
        conversation,
      };
      return (
        await (
          await call(`api/conversations/${conversation.id}`, { method: "PUT", body, headers })
        ).json()
      ).version;
    } catch (error) {
      if (error.status === 412) throw new Conflict();
      throw error;
    }
  }

  async remove(id) {
    try {
      await call(`api/conversations/${id}`, { method: "DELETE" });
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }
}

export class PageStore {
  kept = new Map();

  async list() {
    return [...this.kept].map(([id, { version, conversation }]) => ({
      id,
      title: conversation.title,
      updated: conversation.changed,
      pinned: conversation.pinned,
      version,
    }));
  }

  async search(text) {
    const found = [...this.kept].map(([id, { conversation }]) => [
      id,
      excerptOf(conversation, text),
    ]);
    return new Map(found.filter(([, excerpt]) => excerpt !== null));
  }

  async get(id) {
    return structuredClone(this.kept.get(id) ?? null);
  }

  async put(conversation, version) {
    this.kept.set(conversation.id, {
      version: version + 1,
      conversation: structuredClone(conversation),
    });
    return version + 1;
  }

  async remove(id) {
    this.kept.delete(id);
  }
}
