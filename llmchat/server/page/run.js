// One answer while it is being generated.

import { ApiError, chat } from "./api.js";
import { requestFor } from "./conversation.js";

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
   */
  constructor(conversation, message, { onchange, onend }) {
    Object.assign(this, { conversation, message, onchange, onend });
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
      for (let tries = 1; ; tries++) {
        try {
          await this.#read();
          break;
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

  async #read() {
    const { message } = this;
    const sent = performance.now();
    let last = sent;
    for await (const chunk of chat(requestFor(this.conversation, message), this.abort.signal)) {
      const { delta = {}, finish_reason: reason } = chunk.choices?.[0] ?? {};
      if (delta.content || delta.reasoning_content) {
        last = performance.now();
        this.pieces += 1;
        this.timing ??= { first_s: (last - sent) / 1000 };
        this.firstAt ??= last;
        message.text += delta.content ?? "";
        if (delta.reasoning_content)
          message.thinking = (message.thinking ?? "") + delta.reasoning_content;
      }
      if (reason) message.reason = reason;
      if (chunk.usage) message.usage = chunk.usage;
      if (chunk.llmchat) {
        message.window = chunk.llmchat.window;
        this.prompt = chunk.llmchat.prompt;
      }
      this.onchange(this);
    }
    if (this.timing)
      message.timing = { ...this.timing, decode_s: (last - sent) / 1000 - this.timing.first_s };
  }

  /** The approximate number of tokens per second, 0 while unknown. */
  get speed() {
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
