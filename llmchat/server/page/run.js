// One answer while it is being written.

import { ApiError, chat } from "./api.js";
import { requestFor } from "./conversation.js";

const TRIES = 5;
const LONGEST_WAIT_S = 60;
const LEAVING_MS = 3000;

// A page that goes away breaks its own connections, and may still see them break.
let leaving = false;
addEventListener("beforeunload", () => {
  leaving = true;
  setTimeout(() => (leaving = false), LEAVING_MS);
});

export class Run {
  /** onchange() is called for every piece, onend() once. `message` is filled in place; text that it has already is gone on with. */
  constructor(conversation, message, { onchange, onend }) {
    Object.assign(this, { conversation, message, onchange, onend });
    /** Seconds until the next try, while the server is busy. */
    this.waiting = 0;
    /** {name, loading_s, expected_s} while the model is being loaded. */
    this.loading = null;
    /** Pieces of text that came, nearly one for each token. */
    this.pieces = 0;
    this.abort = new AbortController();
  }

  stop() {
    this.abort.abort();
  }

  async start() {
    const { message } = this;
    Object.assign(message, { state: "writing", revision: message.revision + 1, error: undefined, code: undefined, reason: undefined, usage: undefined });
    try {
      for (let tries = 1; ; tries++) {
        try {
          await this.#read();
          break;
        } catch (error) {
          if (!(error instanceof ApiError) || ![429, 503].includes(error.status) || error.retryAfter === null || tries >= TRIES || this.timing) throw error;
          await this.#pause(Math.min(error.retryAfter, LONGEST_WAIT_S));
        }
      }
      message.state = "complete";
    } catch (error) {
      if (this.abort.signal.aborted) message.state = "stopped";
      else if (!leaving) Object.assign(message, { state: "failed", error: error.message, code: error.code ?? "" });
    }
    message.revision += 1;
    this.conversation.changed = Date.now();
    this.onend(this);
  }

  async #read() {
    const { message } = this;
    const asked = performance.now();
    let last = asked;
    for await (const chunk of chat(requestFor(this.conversation, message), this.abort.signal)) {
      const { delta = {}, finish_reason: reason } = chunk.choices?.[0] ?? {};
      if (delta.content || delta.reasoning_content) {
        last = performance.now();
        this.pieces += 1;
        this.timing ??= { first_s: (last - asked) / 1000 };
        this.began ??= last;
        message.text += delta.content ?? "";
        if (delta.reasoning_content) message.thinking = (message.thinking ?? "") + delta.reasoning_content;
      }
      if (reason) message.reason = reason;
      if (chunk.usage) message.usage = chunk.usage;
      if (chunk.llmchat) {
        message.window = chunk.llmchat.window;
        this.prompt = chunk.llmchat.prompt;
      }
      this.onchange(this);
    }
    if (this.timing) message.timing = { ...this.timing, decode_s: (last - asked) / 1000 - this.timing.first_s };
  }

  /** About how many tokens a second are coming, 0 while there is nothing to tell. */
  get speed() {
    const seconds = (performance.now() - this.began) / 1000;
    return this.pieces > 4 && seconds > 0.5 ? (this.pieces - 1) / seconds : 0;
  }

  async #pause(seconds) {
    for (this.waiting = Math.max(1, Math.ceil(seconds)); this.waiting > 0; this.waiting--) {
      this.onchange(this);
      await new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, 1000);
        this.abort.signal.addEventListener("abort", () => (clearTimeout(timer), reject(this.abort.signal.reason)), { once: true });
      });
    }
  }
}
