// Files that wait in the message field: added by a button, dropped or pasted, and read by the
// server. They belong to the open conversation, and are sent with its next message.

import { call } from "./api.js";
import { app } from "./app.js";
import { el, find, iconButton } from "./dom.js";
import { notice, say } from "./notices.js";

// The server's limits.
const MAX_BYTES = 20_000_000;
const MAX_FILES = 20;
// A deleted conversation can be restored for as long as its notice is shown.
const UNDO_MS = 10_000;

/** By conversation: {name, size, id, work}; id: "" while the server reads; work: a promise. */
const waiting = new Map();
const forgetting = new Map();
let enabled = false;

const filesOf = (id) => waiting.get(id) ?? [];

/** Show the button; `enabled` says whether the server reads files. */
export function enableFiles(value) {
  enabled = value;
  find("#attach").hidden = !enabled;
}

/** Add files to the open conversation. Each is read on its own: one that fails is dropped. */
export async function addFiles(files) {
  const { id } = app.chats.open;
  for (const file of files) {
    if (filesOf(id).length >= MAX_FILES) return refuse(`A message may have ${MAX_FILES} files.`);
    if (file.size > MAX_BYTES) refuse(`${file.name} is larger than ${MAX_BYTES / 1e6} MB.`);
    else await add(id, file);
  }
}

async function add(chat, file) {
  const entry = { name: file.name, size: file.size, id: "" };
  waiting.set(chat, [...filesOf(chat), entry]);
  entry.work = upload(chat, file).then(
    (added) => Object.assign(entry, added),
    (error) => {
      drop(chat, entry);
      const named = error.message.startsWith(file.name);
      refuse(`Not added: ${named ? "" : `${file.name}: `}${error.message}`);
      entry.failed = true;
    },
  );
  draw();
  await entry.work;
  if (!entry.failed) say(`${entry.name} was added.`);
  draw();
}

async function upload(chat, file) {
  const path = `api/files/${chat}?name=${encodeURIComponent(file.name)}`;
  return (await call(path, { method: "POST", content: file })).json();
}

const refuse = (text) => notice(text, { problem: true, lasting: true });

function drop(chat, entry) {
  waiting.set(
    chat,
    filesOf(chat).filter((one) => one !== entry),
  );
}

/** Wait until the server has read the files of a conversation. Returns false if one failed. */
export async function filesAreRead(chat) {
  const all = filesOf(chat);
  await Promise.all(all.map(({ work }) => work));
  return !all.some(({ failed }) => failed);
}

/** The files for the next message, which are then no longer waiting. */
export function takeFiles(chat) {
  const taken = filesOf(chat).map(({ id, name, characters }) => ({ id, name, characters }));
  waiting.delete(chat);
  draw();
  return taken;
}

function remove(chat, entry) {
  drop(chat, entry);
  draw();
  find("#input").focus();
  if (entry.id) removeFile(chat, entry.id);
}

function removeFile(chat, id, keepalive = false) {
  call(`api/files/${chat}/${id}`, { method: "DELETE", keepalive }).catch(() => {});
}

/** Draw the files of the open conversation above the message field. */
export function draw() {
  const { id } = app.chats.open;
  const list = find("#files");
  list.replaceChildren(...filesOf(id).map((entry) => chip(id, entry)));
  list.hidden = !list.children.length;
}

function chip(chat, entry) {
  return el(
    "li",
    { class: entry.id ? "file" : "file reading", "aria-busy": String(!entry.id) },
    el("span", { class: "file-name", title: entry.name }, entry.name),
    el("span", { class: "file-size" }, entry.id ? sizeOf(entry.size) : "reading…"),
    iconButton("close", `Remove ${entry.name}`, () => remove(chat, entry)),
  );
}

function sizeOf(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** The server forgets a deleted conversation's files soon. Returns a function that stops it. */
export function forgetSoon(conversation) {
  const { id, messages } = conversation;
  if (!Object.values(messages).some(({ files }) => files?.length)) return () => {};
  forgetting.set(
    id,
    setTimeout(() => forget(id), UNDO_MS),
  );
  return () => {
    clearTimeout(forgetting.get(id));
    forgetting.delete(id);
  };
}

function forget(id, keepalive = false) {
  forgetting.delete(id);
  call(`api/files/${id}`, { method: "DELETE", keepalive }).catch(() => {});
}

/** The page is closing: nothing will send the files that wait. */
function leave() {
  for (const id of forgetting.keys()) forget(id, true);
  for (const [chat, files] of waiting)
    for (const { id } of files.filter((one) => one.id)) removeFile(chat, id, true);
  waiting.clear();
}

const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");

function listenToDrops() {
  const main = find("#main");
  let depth = 0;
  const hint = (shown) => (find("#drop").hidden = !shown);
  main.addEventListener("dragenter", (event) => {
    if (!enabled || !holdsFiles(event)) return;
    event.preventDefault();
    depth += 1;
    hint(true);
  });
  main.addEventListener("dragleave", (event) => {
    if (enabled && holdsFiles(event) && --depth <= 0) hint(false);
  });
  // Without this, the browser would open the file in place of the page.
  document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    depth = 0;
    hint(false);
    if (enabled) addFiles([...event.dataTransfer.files]);
  });
}

export function listenToFiles() {
  const input = el("input", { type: "file", multiple: true });
  input.addEventListener("change", () => {
    addFiles([...input.files]);
    input.value = "";
    // On touch screens, the keyboard would cover half of the page.
    if (!matchMedia("(hover: none)").matches) find("#input").focus();
  });
  find("#attach").addEventListener("click", () => input.click());
  find("#input").addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!enabled || !files.length) return;
    event.preventDefault();
    addFiles(files);
  });
  listenToDrops();
  addEventListener("pagehide", leave);
}
