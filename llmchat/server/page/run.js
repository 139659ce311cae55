// One answer while it is being generated.

import { ApiError, chat } from "./api.js";
import { requestFor } from "./conversation.js";
import { offered } from "./docs.js";
import { argumentsOf, collect, NOT_ALLOWED } from "./rounds.js";
import { definitionsFor, isOffered, runTool } from "./tools.js";

const TRIES = 5;
const LONGEST_WAIT_S = 60;
const LEAVING_MS = 3000;

// A page that is closing breaks its own connections, and can still notice that.
let leaving = false;
addEventListener("beforeunload", () => {
  leaving = true;
  setTimeout(() => (leaving = false), LEAVING_MS);
});

export class Run {
  /**
   * onchange() is called for every piece, onend() once. `message` is filled in place; if it already
   * has text, the model continues it.
   *
   * allowed: the names of tools that run without a question; onask(call): the user must answer().
   */
  constructor(conversation, message, { allowed, onchange, onend, onask }) {
    Object.assign(this, { conversation, message, allowed, onchange, onend, onask });
    /** The call that waits for the user's answer, and the one that runs. */
    this.asking = null;
    this.running = null;
    /** Seconds until the next try, while the server is busy. */
    this.waiting = 0;
    /** {name, loading_s, expected_s} while the model is loading. */
    this.loading = null;
    /** Pieces received so far, about one for each token. */
    this.pieces = 0;
    this.abort = new AbortController();
  }

  stop() {
    this.abort.abort();
  }

  async start() {
    const { message } = this;
    Object.assign(message, {
      state: "writing",
      revision: message.revision + 1,
      error: undefined,
      code: undefined,
      reason: undefined,
      usage: undefined,
    });
    try {
      do await this.#runCalls();
      while (await this.#answers());
      message.state = "complete";
    } catch (error) {
      if (this.abort.signal.aborted) message.state = "stopped";
      else if (!leaving)
        Object.assign(message, { state: "failed", error: error.message, code: error.code ?? "" });
    }
    message.revision += 1;
    this.conversation.changed = Date.now();
    this.onend(this);
  }

  /** Generate one round, again while the server is busy. Returns whether the model called tools. */
  async #answers() {
    for (let tries = 1; ; tries++) {
      try {
        return this.#endsRound(await this.#read());
      } catch (error) {
        if (
          !(error instanceof ApiError) ||
          ![429, 503].includes(error.status) ||
          error.retryAfter === null ||
          tries >= TRIES ||
          this.timing
        )
          throw error;
        await this.#pause(Math.min(error.retryAfter, LONGEST_WAIT_S));
      }
    }
  }

  /** Keep what the model wrote, and its calls, as a round. */
  #endsRound(calls) {
    const { message } = this;
    if (!calls.length) return false;
    const { text, thinking } = message;
    const round = { text, ...(thinking ? { thinking } : {}), calls };
    message.rounds = [...(message.rounds ?? []), round];
    message.text = "";
    delete message.thinking;
    // The shorter text is the later one.
    message.revision += 1;
    this.onchange(this);
    return true;
  }

  /** Run the calls of the last round that have no result, each with the user's permission. */
  async #runCalls() {
    for (const call of this.message.rounds?.at(-1)?.calls ?? []) {
      if (call.result === undefined) Object.assign(call, await this.#outcome(call));
      this.onchange(this);
    }
  }

  async #outcome(call) {
    const { request } = this.message;
    if (!isOffered(request, call.name)) return failed(`there is no tool \`${call.name}\``);
    if (!argumentsOf(call)) return failed("the arguments are not a JSON object");
    if (!this.allowed.has(call.name) && (await this.#ask(call)) === "no")
      return { allowed: false, result: NOT_ALLOWED };
    this.running = call;
    this.onchange(this);
    try {
      const done = await runTool(call, this.message.window?.limit, this.abort.signal);
      const { text, error, seconds, sources } = done;
      return { allowed: true, result: text, error, seconds, sources };
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 401) throw error;
      return { allowed: true, ...failed(error.message) };
    } finally {
      this.running = null;
    }
  }

  /** The user's answer: "once", "chat" or "no". */
  async #ask(call) {
    this.asking = call;
    this.onchange(this);
    this.onask(call);
    try {
      const reply = await this.#unlessStopped((resolve) => (this.answer = resolve));
      if (reply === "chat") this.allowed.add(call.name);
      return reply;
    } finally {
      this.asking = null;
    }
  }

  #unlessStopped(wait) {
    const { signal } = this.abort;
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      wait(resolve);
    });
  }

  /** Read a stream; returns the calls in it. */
  async #read() {
    const { message } = this;
    const calls = [];
    const sent = performance.now();
    let last = sent;
    Object.assign(this, { timing: undefined, firstAt: undefined, pieces: 0 });
    const { docs } = message.request;
    const tools = definitionsFor(message.request);
    const request = requestFor(this.conversation, message, tools, offered(docs));
    for await (const chunk of chat(request, this.abort.signal)) {
      const { delta = {}, finish_reason: reason } = chunk.choices?.[0] ?? {};
      if (delta.content || delta.reasoning_content || delta.tool_calls) {
        last = performance.now();
        this.pieces += 1;
        this.timing ??= { first_s: (last - sent) / 1000 };
        this.firstAt ??= last;
        message.text += delta.content ?? "";
        collect(calls, delta.tool_calls ?? []);
        if (delta.reasoning_content)
          message.thinking = (message.thinking ?? "") + delta.reasoning_content;
      }
      if (delta.sources) message.sources = delta.sources;
      if (reason) message.reason = reason;
      if (chunk.usage) message.usage = chunk.usage;
      if (chunk.llmchat) {
        message.window = chunk.llmchat.window;
        message.searched = chunk.llmchat.searched;
        this.prompt = chunk.llmchat.prompt;
      }
      this.onchange(this);
    }
    if (this.timing)
      message.timing = { ...this.timing, decode_s: (last - sent) / 1000 - this.timing.first_s };
    return calls.filter(Boolean);
  }

  /** The approximate number of tokens per second, 0 while unknown. */
  get speed() {
    if (this.asking || this.running) return 0;
    const seconds = (performance.now() - this.firstAt) / 1000;
    return this.pieces > 4 && seconds > 0.5 ? (this.pieces - 1) / seconds : 0;
  }

  async #pause(seconds) {
    for (this.waiting = Math.max(1, Math.ceil(seconds)); this.waiting > 0; this.waiting--) {
      this.onchange(this);
      await new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, 1000);
        this.abort.signal.addEventListener(
          "abort",
          () => (clearTimeout(timer), reject(this.abort.signal.reason)),
          { once: true },
        );
      });
    }
  }
}

const failed = (error) => ({ result: `error: ${error}`, error });
