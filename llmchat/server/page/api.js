// The server, as this page sees it: the OpenAI-compatible API, and two small things beside it (settings, conversations).

import { events } from "./sse.js";

const KEY = "llmchat.key";

/** What the server refused. status: of HTTP, 0 where it could not be reached. retryAfter: seconds, or null. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

let secret = stored();

function stored() {
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export const key = () => secret;

/** Keep the key in this browser, or in this page alone where there is no storage; "" forgets it. */
export function setKey(value) {
  secret = value;
  try {
    if (value) localStorage.setItem(KEY, value);
    else localStorage.removeItem(KEY);
  } catch {
    // Full or forbidden: the next page asks again.
  }
}

/** Paths are relative, so that the page also works behind a proxy that puts it under a folder. */
export async function call(path, { method = "GET", body, headers = {}, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method, signal, credentials: "omit", cache: "no-store",
      headers: {
        ...(secret ? { Authorization: `Bearer ${secret}` } : {}),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body, whole),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** Half a character, which a paste can bring, is no text; servers refuse it. */
function whole(_, value) {
  return typeof value === "string" ? value.toWellFormed() : value;
}

async function refusal(response) {
  const wait = Number(response.headers.get("Retry-After"));
  const details = { status: response.status, retryAfter: response.headers.has("Retry-After") && wait >= 0 ? wait : null };
  try {
    const { error } = await response.json();
    return new ApiError(error.message, { ...details, code: error.code });
  } catch {
    return new ApiError(`The server answered with status ${response.status}.`, details);
  }
}

/** {history, version}; a server that does not know the question keeps no history. */
export async function settings() {
  try {
    return await (await call("api/settings")).json();
  } catch (error) {
    if (error.status === 404) return { history: false, version: "" };
    throw error;
  }
}

/** The models, each with its adapters: [{id, adapters: [name], window, size, state}]. Ids such as `base+adapter` become adapters of their base. */
export async function models() {
  const [{ data }, told] = await Promise.all([call("v1/models").then((response) => response.json()), facts()]);
  const known = new Map();
  for (const { id, context_length: window = 0 } of data) {
    const [base, ...adapters] = id.split("+");
    if (!known.has(base)) known.set(base, { id: base, adapters: [], window, ...told.get(base) });
    if (adapters.length) known.get(base).adapters.push(adapters.join("+"));
  }
  return [...known.values()];
}

/** {size, state, loading_s, expected_s} by the ids of models; empty where the server does not tell. */
export async function facts() {
  try {
    const { data } = await (await call("api/models")).json();
    return new Map(data.map(({ id, ...rest }) => [id, rest]));
  } catch {
    return new Map();
  }
}

/** What a model does by itself: {sampling, system}. Empty where the server does not tell. */
export async function preset(id) {
  try {
    const { llmchat } = await (await call(`v1/models/${id.split("/").map(encodeURIComponent).join("/")}`)).json();
    return { sampling: llmchat?.sampling ?? {}, system: llmchat?.system ?? "" };
  } catch {
    return { sampling: {}, system: "" };
  }
}

/** The chunks of one answer. Ends without an error only after the server said that it is done. */
export async function* chat(body, signal) {
  const response = await call("v1/chat/completions", { method: "POST", body, signal });
  let done = false;
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") {
        done = true;
        break;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, { status: response.status, code: chunk.error.code });
      yield chunk;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw new ApiError("The connection was lost before the answer was complete.");
  }
  if (!done) throw new ApiError("The connection was lost before the answer was complete.");
}
