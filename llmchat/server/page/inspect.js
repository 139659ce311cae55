// A dialog with the request behind an answer: what was sent, and what the server reported.

import { requestFor } from "./conversation.js";
import { el, find } from "./dom.js";
import { definitionsFor } from "./tools.js";

/** Show the request for `message`. prompt: the rendered prompt, if known. */
export function inspect(conversation, message, prompt) {
  const bare = { ...message, text: "" };
  const parts = [
    el("h3", {}, "Request"),
    el(
      "pre",
      { tabindex: "0" },
      JSON.stringify(
        requestFor(
          { ...conversation, messages: { ...conversation.messages, [message.id]: bare } },
          bare,
          definitionsFor(bare.request),
        ),
        null,
        2,
      ),
    ),
  ];
  if (prompt)
    parts.push(el("h3", {}, "Prompt"), el("pre", { tabindex: "0" }, prompt));
  if (message.window) {
    const { tokens, limit, sent, dropped } = message.window;
    parts.push(
      el("h3", {}, "Context window"),
      el("p", {}, `${tokens} of ${limit} tokens. Messages sent: ${sent}, dropped: ${dropped}.`),
    );
  }
  if (message.usage)
    parts.push(
      el("h3", {}, "Usage"),
      el("pre", { tabindex: "0" }, JSON.stringify(message.usage, null, 2)),
    );
  find("#sent-body").replaceChildren(...parts);
  find("#sent").showModal();
}
