// How full the model's context window is: a ring next to the send button.

import { path } from "./conversation.js";
import { find } from "./dom.js";

/** {used, limit} in tokens, as of the last answer; limit is 0 if unknown. */
export function contextOf(conversation, model) {
  const last = path(conversation).findLast(({ window }) => window);
  const used = last ? (last.window.tokens ?? 0) + (last.usage?.completion_tokens ?? 0) : 0;
  return { used, limit: model?.window || last?.window.limit || 0 };
}

export function contextText({ used, limit }) {
  const percent = Math.round((100 * used) / limit);
  const tokens = `${used.toLocaleString("en")} of ${limit.toLocaleString("en")} tokens`;
  return `${tokens} of the context window used (${percent}%)`;
}

export function drawContext(context) {
  const ring = find("#context");
  ring.hidden = !context.limit;
  if (!context.limit) return;
  const fraction = Math.min(1, context.used / context.limit);
  ring.setAttribute("aria-label", contextText(context));
  ring.title = contextText(context);
  ring.classList.toggle("nearly-full", fraction > 0.85);
  ring.querySelector(".used").setAttribute("stroke-dasharray", `${100 * fraction} 100`);
}
