// What was sent for an answer, shown to the user.

import { requestFor } from "./conversation.js";
import { el, find } from "./dom.js";

/** What the server is asked for an answer, and what it told of it. */
export function inspect(conversation, message, prompt) {
  const bare = { ...message, text: "" };
  const parts = [el("h3", {}, "Request"), el("pre", { tabindex: "0" }, JSON.stringify(requestFor({ ...conversation, messages: { ...conversation.messages, [message.id]: bare } }, bare), null, 2))];
  if (prompt) parts.push(el("h3", {}, "Text that the model was given"), el("pre", { tabindex: "0" }, prompt));
  if (message.window) {
    const { tokens, limit, sent, dropped } = message.window;
    parts.push(el("h3", {}, "Window"), el("p", {}, `${tokens} of ${limit} tokens. Messages sent: ${sent}, left out: ${dropped}.`));
  }
  if (message.usage) parts.push(el("h3", {}, "Usage"), el("pre", { tabindex: "0" }, JSON.stringify(message.usage, null, 2)));
  find("#sent-body").replaceChildren(...parts);
  find("#sent").showModal();
}
