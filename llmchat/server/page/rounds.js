// The rounds of an answer that called tools: what the model wrote before its calls, and what came
// of them. Pure values, stored with the answer.
//
// round: {text, thinking, calls}
// call: {id, name, arguments, allowed, result, error, seconds, sources}
// arguments: JSON as the model wrote it; result: the text for the model, absent if nothing ran

export const MAX_ROUNDS = 8;
const NOT_RUN = "error: the user stopped before this call ran";
export const NOT_ALLOWED = "error: the user did not allow this call";

/** The arguments of a call as an object; null if they are none. */
export function argumentsOf(call) {
  try {
    const value = JSON.parse(call.arguments || "{}");
    return value && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

/** A message of the tree as messages of a request. closed: another message follows. */
export function messagesOf({ role, text, rounds = [], files = [] }, closed) {
  if (files.length) return [{ role, content: [...files.map(asFile), { type: "text", text }] }];
  const messages = rounds.flatMap((round) => [
    { role: "assistant", content: round.text, tool_calls: round.calls.map(asCall) },
    ...round.calls.map(({ id, result }) => ({
      role: "tool",
      tool_call_id: id,
      content: result ?? NOT_RUN,
    })),
  ]);
  // A question may not follow the result of a tool.
  if (text || (closed && rounds.length)) messages.push({ role, content: text });
  return messages;
}

const asFile = ({ id }) => ({ type: "file", file: { file_id: id } });

function asCall(call) {
  // Servers refuse arguments that are not JSON.
  const written = argumentsOf(call) ? call.arguments || "{}" : "{}";
  return { id: call.id, type: "function", function: { name: call.name, arguments: written } };
}

/** Add the `tool_calls` of a delta, which may come in pieces. */
export function collect(calls, deltas) {
  for (const { index = calls.length, id, function: part = {} } of deltas) {
    calls[index] ??= { id: id ?? `call_${index}`, name: "", arguments: "" };
    calls[index].name += part.name ?? "";
    calls[index].arguments += part.arguments ?? "";
  }
}

/** The rounds as Markdown, for export. */
export function markdownOfRounds({ rounds = [] }) {
  return rounds.flatMap((round) => [
    ...(round.text.trim() ? [round.text] : []),
    ...round.calls.flatMap((call) => [
      `**${call.name}**`,
      fenced(call.arguments),
      fenced(call.result ?? NOT_RUN),
    ]),
  ]);
}

function fenced(text) {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}\n${text}\n${fence}`;
}

/** Validate the rounds of a stored or imported answer. Throws an Error with the reason. */
export function checkedRounds(rounds) {
  if (!Array.isArray(rounds) || !rounds.every(isRound))
    throw new Error("a conversation contains an invalid tool call");
  return rounds.map(({ text, thinking, calls }) => ({
    text,
    ...(typeof thinking === "string" ? { thinking } : {}),
    calls: calls.map(checkedCall),
  }));
}

const isRound = (round) =>
  typeof round?.text === "string" &&
  Array.isArray(round.calls) &&
  round.calls.every((call) =>
    ["id", "name", "arguments"].every((name) => typeof call?.[name] === "string"),
  );

function checkedCall(call) {
  const kept = { id: call.id, name: call.name, arguments: call.arguments };
  const types = { allowed: "boolean", result: "string", error: "string", seconds: "number" };
  for (const [name, type] of Object.entries(types))
    if (typeof call[name] === type) kept[name] = call[name];
  if (Array.isArray(call.sources)) kept.sources = call.sources.filter(isSource);
  return kept;
}

const isSource = (source) =>
  typeof source?.n === "number" &&
  typeof source.title === "string" &&
  typeof source.url === "string";
