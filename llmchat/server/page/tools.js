// The tools of the server, if it was started with some: what is offered, and running a call.

import { call } from "./api.js";
import { app } from "./app.js";
import { find } from "./dom.js";
import { argumentsOf } from "./rounds.js";

// The most characters of a result, and how many of the window's tokens it may take in characters.
const MOST = 16000;
const LEAST = 1000;
const FRACTION = 0.75;

let known = [];

/** Ask the server for its tools. */
export async function loadTools() {
  try {
    known = (await (await call("api/tools")).json()).data;
  } catch (error) {
    // Another user of this machine may chat with the server, but not run its tools.
    if (error.status !== 403) throw error;
  }
}

/** The definitions for a request; none if its tools are off. */
export function definitionsFor(request) {
  const all = known.map(({ type, function: definition }) => ({ type, function: definition }));
  return request.tools ? all : [];
}

/** Whether the request of an answer offered this tool. */
export const isOffered = (request, name) =>
  definitionsFor(request).some(({ function: definition }) => definition.name === name);

/** {text, error, seconds, sources} of a call. Throws ApiError. */
export async function runTool(called, window, signal) {
  const limit = window ? Math.max(LEAST, Math.min(MOST, Math.floor(window * FRACTION))) : MOST;
  const body = { name: called.name, arguments: argumentsOf(called), limit };
  return (await call("api/tools/run", { method: "POST", body, signal })).json();
}

export function drawToolSwitch() {
  const button = find("#tools-toggle");
  button.hidden = !known.length;
  button.setAttribute("aria-pressed", app.chats.open.tools);
  const names = known.map(({ function: definition }) => definition.name).join(", ");
  button.title = `Let the model call tools (${names}). You are asked before each call.`;
}
