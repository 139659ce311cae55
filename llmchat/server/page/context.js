// How much of the model's window the conversation takes: a ring beside the button that sends.

import { path } from "./conversation.js";
import { find } from "./dom.js";

/** {used, limit} in tokens, by the last answer on the screen; limit 0 where nobody has told. */
export function contextOf(conversation, model) {
  const last = path(conversation).findLast(({ window }) => window);
  const used = last ? (last.window.tokens ?? 0) + (last.usage?.completion_tokens ?? 0) : 0;
  return { used, limit: model?.window || last?.window.limit || 0 };
}

export function contextText({ used, limit }) {
  const share = Math.round((100 * used) / limit);
  return `${used.toLocaleString("en")} of ${limit.toLocaleString("en")} tokens of the window used (${share} %)`;
}

export function drawContext(context) {
  const ring = find("#context");
  ring.hidden = !context.limit;
  if (!context.limit) return;
  const share = Math.min(1, context.used / context.limit);
  ring.setAttribute("aria-label", contextText(context));
  ring.title = contextText(context);
  ring.classList.toggle("nearly-full", share > 0.85);
  ring.querySelector(".used").setAttribute("stroke-dasharray", `${100 * share} 100`);
}
