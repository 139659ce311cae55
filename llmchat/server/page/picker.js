// The menus below the message field: model, adapter, and a second model to compare with.

import * as api from "./api.js";
import { app, modelOf } from "./app.js";
import { contextOf, drawContext } from "./context.js";
import { drawDocs } from "./docs.js";
import { el, find } from "./dom.js";
import { LoadingWatch } from "./loading.js";
import { drawOptions, shortNames } from "./models.js";
import * as preferences from "./preferences.js";
import { drawToolSwitch } from "./tools.js";

/** The defaults of a conversation's model; requested until the server answers. */
export async function presetOf({ model: id }) {
  const model = app.models.find((one) => one.id === id);
  if (model && !model.preset) model.preset = await api.preset(id);
  return model?.preset ?? { sampling: {}, system: "" };
}

/** The settings of a new conversation: those of the last one, as far as they still apply. */
export function defaults() {
  const last = preferences.load();
  const model = app.models.find(({ id }) => id === last.model) ?? app.models[0];
  const adapter = model?.adapters.includes(last.adapter) ? last.adapter : "";
  return {
    model: model?.id ?? "",
    adapter,
    strength: adapter ? (last.strength ?? 1) : 1,
    parameters: last.parameters ?? {},
    tools: last.tools === true,
    docs: Array.isArray(last.docs) ? last.docs : [],
  };
}

/** Change settings of the open conversation, and make them the defaults of new ones. */
export function setAndRemember(settings) {
  app.chats.set(settings);
  const { model, adapter, strength, parameters, tools, docs } = app.chats.open;
  preferences.save({ model, adapter, strength, parameters, tools, docs });
}

/** Request which models are loaded now. */
export async function refreshFacts() {
  const facts = await api.facts();
  // In place: a request for a model's defaults may be under way and will write to its object.
  for (const model of app.models) Object.assign(model, facts.get(model.id));
  drawOptions(find("#model"), app.models, app.chats.open.model);
  drawCompare();
}

export function drawModels() {
  const { open } = app.chats;
  drawOptions(find("#model"), app.models, open.model);
  drawContext(contextOf(open, modelOf(open)));
  drawCompare();
  drawAdapters(open);
  drawToolSwitch();
  drawDocs();
  app.panel.show(open);
  presetOf(open).then(
    (preset) => app.chats.open.model === open.model && app.panel.showPreset(preset),
  );
}

function drawAdapters(open) {
  const known = modelOf(open)?.adapters ?? [];
  const adapters = new Set([...known, ...(open.adapter ? [open.adapter] : [])]);
  find("#adapter").hidden = !adapters.size;
  find("#adapter").replaceChildren(
    el("option", { value: "" }, "no adapter"),
    ...[...adapters].map((name) => el("option", { value: name }, name)),
  );
  find("#adapter").value = open.adapter;
}

function drawCompare() {
  const { compare } = app.chats.open;
  find("#compare").hidden = !compare;
  find("#compare-toggle").hidden = app.models.length < 2 && !compare;
  find("#compare-toggle").setAttribute("aria-pressed", Boolean(compare));
  if (compare) drawOptions(find("#compare"), app.models, compare);
}

function compareWith(id) {
  app.chats.set({ compare: id });
  drawCompare();
}

/** Show the loading progress of models that answers wait for. */
export function watchLoading() {
  const names = () => shortNames(app.models.map(({ id }) => id));
  return new LoadingWatch({
    waiting: () => [...app.chats.runs.values()].filter(({ timing }) => !timing),
    refresh: refreshFacts,
    model: (id) => ({ ...app.models.find((one) => one.id === id), name: names().get(id) }),
    ondraw: (run) => app.chats.open === run.conversation && app.view.grow(run.message),
  });
}

export function listenToPicker() {
  find("#model").addEventListener("focus", refreshFacts);
  find("#model").addEventListener("change", (event) => {
    setAndRemember({ model: event.target.value, adapter: "", strength: 1 });
    drawModels();
  });
  find("#adapter").addEventListener("change", (event) => {
    setAndRemember({ adapter: event.target.value, strength: 1 });
    drawModels();
  });
  find("#tools-toggle").addEventListener("click", () => {
    setAndRemember({ tools: !app.chats.open.tools });
    drawToolSwitch();
  });
  find("#compare").addEventListener("change", (event) => compareWith(event.target.value));
  find("#compare-toggle").addEventListener("click", () => {
    const { compare, model } = app.chats.open;
    const other = app.models.find(({ id }) => id !== model)?.id ?? "";
    compareWith(compare ? "" : other);
  });
}
