// The client for the server's HTTP API: the OpenAI-compatible routes, and the page's own ones.

import { events } from "./sse.js";

const KEY = "llmchat.key";

/** A failed request. status: 0 if the server is unreachable; retryAfter: seconds, or null. */
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

/** Store the key in this browser, or in this page if there is no storage; "" removes it. */
export function setKey(value) {
  secret = value;
  try {
    if (value) localStorage.setItem(KEY, value);
    else localStorage.removeItem(KEY);
  } catch {
    // Storage is full or blocked: the next page asks for the key again.
  }
}

/**
 * Paths are relative, so that the page also works behind a proxy, under a prefix.
 * body: sent as JSON; content: a file, sent as it is. keepalive: also when the page is closing.
 */
export async function call(path, { method = "GET", body, content, headers = {}, ...more } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      ...more,
      credentials: "omit",
      cache: "no-store",
      headers: {
        ...(secret ? { Authorization: `Bearer ${secret}` } : {}),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(content === undefined ? {} : { "Content-Type": "application/octet-stream" }),
        ...headers,
      },
      body: content ?? (body === undefined ? undefined : JSON.stringify(body, wellFormed)),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("Cannot reach the server.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** Replaces lone surrogates, which a paste can contain; servers refuse them. */
function wellFormed(_, value) {
  return typeof value === "string" ? value.toWellFormed() : value;
}

async function refusal(response) {
  const wait = Number(response.headers.get("Retry-After"));
  const details = {
    status: response.status,
    retryAfter: response.headers.has("Retry-After") && wait >= 0 ? wait : null,
  };
  try {
    const { error } = await response.json();
    return new ApiError(error.message, { ...details, code: error.code });
  } catch {
    return new ApiError(`The server answered with status ${response.status}.`, details);
  }
}

/** {history, tools, files, version}. Other servers do not have this route, and store no history. */
export async function settings() {
  try {
    return await (await call("api/settings")).json();
  } catch (error) {
    if (error.status === 404) return { history: false, version: "" };
    throw error;
  }
}

/**
 * The models: [{id, adapters: [name], window, size, state}].
 * Ids such as `base+adapter` become adapters of their base.
 */
export async function models() {
  const [{ data }, details] = await Promise.all([
    call("v1/models").then((response) => response.json()),
    facts(),
  ]);
  const known = new Map();
  for (const { id, context_length: window = 0 } of data) {
    const [base, ...adapters] = id.split("+");
    if (!known.has(base)) known.set(base, { id: base, adapters: [], window, ...details.get(base) });
    if (adapters.length) known.get(base).adapters.push(adapters.join("+"));
  }
  return [...known.values()];
}

/** {size, state, loading_s, expected_s} by model id; empty if the server does not report them. */
export async function facts() {
  try {
    const { data } = await (await call("api/models")).json();
    return new Map(data.map(({ id, ...rest }) => [id, rest]));
  } catch {
    return new Map();
  }
}

/** A model's defaults: {sampling, system}; null if the server does not answer. */
export async function preset(id) {
  try {
    const { llmchat } = await (
      await call(`v1/models/${id.split("/").map(encodeURIComponent).join("/")}`)
    ).json();
    return { sampling: llmchat?.sampling ?? {}, system: llmchat?.system ?? "" };
  } catch {
    return null;
  }
}

/** The chunks of one answer. Throws ApiError unless the server marks the answer as complete. */
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
      if (chunk.error)
        throw new ApiError(chunk.error.message, {
          status: response.status,
          code: chunk.error.code,
        });
      yield chunk;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw new ApiError("The connection was lost before the answer was complete.");
  }
  if (!done) throw new ApiError("The connection was lost before the answer was complete.");
}
