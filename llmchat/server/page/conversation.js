// A conversation as a value: a tree of messages, and the branch that is shown. Edited messages and
// regenerated answers are siblings. A deleted message leaves an empty entry, so that a merge with
// another window does not restore it.
//
// message: {id, parent, role, text, thinking, created, revision, state, error, model, request,
//           usage, timing, window, reason, edited, deleted, pair, rounds, files, sources, searched}
// pair: the same for two answers that are compared, from two models to one message
// rounds: the calls of tools before the text: see rounds.js
// files, sources: see sources.js; searched: the names of files that were too long for the window
// state: "complete", "writing", "stopped" (by the user) or "failed"

import { checkedRounds, markdownOfRounds, MAX_ROUNDS, messagesOf } from "./rounds.js";
import { SAMPLING } from "./sampling.js";
import { checkedFiles, checkedSources, markdownOfFiles, markdownOfSources } from "./sources.js";

const FORMAT = 1;
const TITLE_LENGTH = 60;
// The server's limit.
const MAX_TITLE_LENGTH = 200;
// The fields of a request apart from its messages.
const PARAMETERS = [...SAMPLING.map(([name]) => name), "max_tokens", "seed", "stop", "truncation"];
const STATES = ["complete", "writing", "stopped", "failed"];

/** A random id. Pages over plain HTTP do not have crypto.randomUUID. */
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(12))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

export const isId = (text) => /^[0-9a-f]{24}$/.test(text);

export function create(settings = {}) {
  const { model = "", adapter = "", strength = 1, parameters = {} } = settings;
  const { tools = false, docs = [] } = settings;
  const now = Date.now();
  return {
    format: FORMAT,
    id: newId(),
    title: "",
    named: false,
    pinned: false,
    created: now,
    changed: now,
    model,
    adapter,
    strength,
    parameters: structuredClone(parameters),
    system: "",
    compare: "",
    tools,
    docs: Array.isArray(docs) ? [...docs] : docs,
    messages: {},
    chosen: {},
  };
}

/** The answers that this one is compared with, including itself, oldest first. */
export function pairOf(conversation, message) {
  return message.pair
    ? children(conversation, message.parent).filter(({ pair }) => pair === message.pair)
    : [message];
}

/** The replies to a message, or the first messages for the parent ""; oldest first. */
export function children(conversation, parent) {
  return Object.values(conversation.messages)
    .filter((message) => message.parent === parent && !message.deleted)
    .sort((one, other) => one.created - other.created || (one.id < other.id ? -1 : 1));
}

/** The messages of the shown branch, first to last. */
export function path(conversation) {
  const shown = [];
  const byParent = Map.groupBy(
    Object.values(conversation.messages)
      .filter(({ deleted }) => !deleted)
      .sort((one, other) => one.created - other.created || (one.id < other.id ? -1 : 1)),
    (message) => message.parent,
  );
  for (let next, parent = ""; (next = byParent.get(parent)); parent = shown.at(-1).id) {
    shown.push(next.find((message) => message.id === conversation.chosen[parent]) ?? next.at(-1));
  }
  return shown;
}

/** The messages from the first one to this one. */
export function pathTo(conversation, message) {
  const messages = [];
  for (let at = message; at; at = conversation.messages[at.parent]) messages.unshift(at);
  return messages;
}

/** Add a message as a reply to `parent` ("" for none) and show it. */
export function add(conversation, parent, role, fields = {}) {
  const siblings = children(conversation, parent);
  const created = Math.max(Date.now(), (siblings.at(-1)?.created ?? 0) + 1);
  const message = {
    id: newId(),
    parent,
    role,
    text: "",
    created,
    revision: 1,
    state: "complete",
    ...fields,
  };
  conversation.messages[message.id] = message;
  choose(conversation, message);
  if (!conversation.named && !conversation.title && role === "user")
    conversation.title = titleOf(message.text);
  return message;
}

export function choose(conversation, message) {
  conversation.chosen[message.parent] = message.id;
  conversation.changed = Date.now();
}

export function titleOf(text) {
  const line = text.trim().split("\n")[0];
  return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH - 1).trimEnd()}…` : line;
}

/** The name of the model in requests. */
export function modelName({ model, adapter, strength }) {
  return adapter ? `${model}+${adapter}${strength === 1 ? "" : `:${strength}`}` : model;
}

/**
 * The body of the request for `answer`. If the answer already has text, the model continues it.
 * tools: the definitions of tools. After too many rounds the model must answer without a call.
 * docs: the names of the documents to search.
 */
export function requestFor(conversation, answer, tools = [], docs = []) {
  const { model, system, parameters } = answer.request;
  const messages = pathTo(conversation, answer).flatMap((message) =>
    messagesOf(message, message.id !== answer.id),
  );
  return {
    model,
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
    ...Object.fromEntries(
      PARAMETERS.filter((name) => parameters[name] !== undefined).map((name) => [
        name,
        parameters[name],
      ]),
    ),
    ...(tools.length ? { tools } : {}),
    ...(tools.length && answer.rounds?.length >= MAX_ROUNDS ? { tool_choice: "none" } : {}),
    ...(docs.length ? { docs } : {}),
    show_prompt: true,
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** Merge another window's version of the same conversation. Of each message the later one wins. */
export function merge(mine, other) {
  const later = other.changed > mine.changed;
  for (const [id, message] of Object.entries(other.messages)) {
    const own = mine.messages[id];
    if (!own) mine.messages[id] = message;
    else if (isLater(message, own)) {
      for (const name of Object.keys(own)) delete own[name];
      Object.assign(own, message);
    }
  }
  mine.chosen = later ? { ...mine.chosen, ...other.chosen } : { ...other.chosen, ...mine.chosen };
  if (later) {
    for (const name of [
      "title",
      "named",
      "pinned",
      "compare",
      "tools",
      "docs",
      "model",
      "adapter",
      "strength",
      "parameters",
      "system",
      "changed",
    ])
      mine[name] = other[name];
  }
}

function isLater(one, other) {
  if (one.revision !== other.revision) return one.revision > other.revision;
  return !other.deleted && (Boolean(one.deleted) || one.text.length > other.text.length);
}

/** Delete a message and its replies. Returns {count, undo()}. */
export function removeMessage(conversation, message) {
  const removed = Object.values(conversation.messages).filter(
    (one) => !one.deleted && pathTo(conversation, one).includes(message),
  );
  const before = removed.map((one) => ({ ...one }));
  for (const one of removed) {
    const { id, parent, role, created, revision } = one;
    for (const name of Object.keys(one)) delete one[name];
    Object.assign(one, {
      id,
      parent,
      role,
      created,
      revision: revision + 1,
      text: "",
      state: "complete",
      deleted: true,
    });
  }
  const undo = () =>
    removed.forEach((one, index) => {
      delete one.deleted;
      Object.assign(one, before[index], { revision: one.revision + 1 });
    });
  return { count: removed.length, undo };
}

/** The shown branch of a conversation as Markdown. */
export function markdownOf(conversation) {
  const parts = [`# ${conversation.title || "Untitled"}`];
  if (conversation.system) parts.push("## System", conversation.system);
  for (const message of path(conversation)) {
    const title = message.role === "user" ? "You" : message.model || "Answer";
    parts.push(`## ${title}`, ...markdownOfFiles(message), ...markdownOfRounds(message));
    parts.push(message.text, ...markdownOfSources(message));
  }
  return `${parts.map((part) => part.trim()).join("\n\n")}\n`;
}

// The characters before and after a match in an excerpt.
const BEFORE = 30;
const AFTER = 90;

/** An excerpt around the first match of `wanted` (in lower case); null if there is none. */
export function excerptOf({ messages }, wanted) {
  for (const { text } of Object.values(messages)) {
    const at = text.toLowerCase().indexOf(wanted);
    if (at < 0) continue;
    const piece = text
      .slice(Math.max(0, at - BEFORE), at + AFTER)
      .replace(/\s+/g, " ")
      .trim();
    return `${at > BEFORE ? "…" : ""}${piece}${at + AFTER < text.length ? "…" : ""}`;
  }
  return null;
}

/** Validate a conversation from a file or an older page. Throws an Error with the reason. */
export function checked(value) {
  if (value?.format !== FORMAT || typeof value.messages !== "object" || !value.messages)
    throw new Error("it contains an invalid conversation");
  const fresh = {
    ...create(value),
    ...copied(value, {
      id: "string",
      title: "string",
      named: "boolean",
      pinned: "boolean",
      created: "number",
      changed: "number",
      system: "string",
      compare: "string",
    }),
  };
  for (const [name, type] of Object.entries({
    model: "string",
    adapter: "string",
    strength: "number",
    parameters: "object",
    tools: "boolean",
  })) {
    if (typeof fresh[name] !== type || fresh[name] === null)
      throw new Error(`a conversation has an invalid "${name}"`);
  }
  if (!Array.isArray(fresh.docs) || !fresh.docs.every((name) => typeof name === "string"))
    throw new Error('a conversation has an invalid "docs"');
  if (!isId(fresh.id)) fresh.id = newId();
  fresh.title = fresh.title.slice(0, MAX_TITLE_LENGTH);
  for (const [id, message] of Object.entries(value.messages))
    fresh.messages[id] = checkedMessage(id, message, value.messages);
  for (const message of Object.values(fresh.messages)) {
    if (pathLength(fresh, message) > Object.keys(fresh.messages).length)
      throw new Error("a conversation's messages form a cycle");
  }
  for (const [parent, id] of Object.entries(value.chosen ?? {}))
    if (fresh.messages[id]?.parent === parent) fresh.chosen[parent] = id;
  return fresh;
}

function checkedMessage(id, message, all) {
  if (
    !isId(id) ||
    message?.id !== id ||
    !["user", "assistant"].includes(message.role) ||
    typeof message.text !== "string"
  ) {
    throw new Error("a conversation contains an invalid message");
  }
  if (message.parent !== "" && !Object.hasOwn(all, message.parent))
    throw new Error("a message has no parent");
  const plain = copied(message, {
    thinking: "string",
    error: "string",
    model: "string",
    reason: "string",
    request: "object",
    usage: "object",
    timing: "object",
    window: "object",
    edited: "boolean",
    deleted: "boolean",
    pair: "string",
  });
  return {
    ...plain,
    ...(message.rounds && message.role === "assistant"
      ? { rounds: checkedRounds(message.rounds) }
      : {}),
    ...(message.files ? { files: checkedFiles(message.files) } : {}),
    ...(message.sources ? { sources: checkedSources(message.sources) } : {}),
    ...(Array.isArray(message.searched) ? { searched: message.searched.map(String) } : {}),
    id,
    parent: message.parent,
    role: message.role,
    text: message.text,
    created: Number(message.created) || 0,
    revision: Number(message.revision) || 1,
    state: STATES.includes(message.state) ? message.state : "complete",
  };
}

function pathLength(conversation, message) {
  let length = 0;
  const most = Object.keys(conversation.messages).length;
  for (let at = message; at && length <= most; at = conversation.messages[at.parent]) length += 1;
  return length;
}

function copied(value, types) {
  return Object.fromEntries(
    Object.entries(types)
      .filter(([name, type]) => typeof value[name] === type && value[name] !== null)
      .map(([name]) => [name, value[name]]),
  );
}
