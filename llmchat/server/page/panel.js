// The settings of a conversation: system prompt and sampling.

import { el, find } from "./dom.js";
import { SAMPLING } from "./sampling.js";
import { SystemTexts } from "./systemtexts.js";

// name, label, smallest, largest, step
const NUMBERS = [
  ...SAMPLING,
  ["max_tokens", "Max tokens", 1, 1000000, 1],
  ["seed", "Seed", 0, 9007199254740991, 1],
  ["strength", "Adapter strength", 0, 4, 0.05],
];
const UNESCAPED = { "\\n": "\n", "\\t": "\t", "\\\\": "\\" };

export class Panel {
  /** onchange({system, strength, parameters}) is called with the valid values. */
  constructor(onchange) {
    this.fields = new Map();
    for (const [name, label, min, max, step] of NUMBERS) {
      // Any number within the limits is valid; the step is only for the arrow keys.
      const input = el("input", {
        id: `parameter-${name}`,
        type: "number",
        min,
        max,
        step: Number.isInteger(step) ? step : "any",
        inputmode: "decimal",
      });
      if (!Number.isInteger(step))
        input.addEventListener("keydown", (event) => nudge(event, input, step));
      this.fields.set(name, input);
      find("#fields").append(
        el("div", { class: "field" }, el("label", { for: input.id }, label), input),
      );
    }
    this.system = find("#system");
    this.systemTexts = new SystemTexts(this.system);
    this.stop = find("#stop");
    this.truncation = find("#truncation");
    const changed = () => onchange(this.#read());
    find("#settings").addEventListener("input", changed);
    find("#settings").addEventListener("submit", (event) => event.preventDefault());
    find("#reset").addEventListener("click", () => {
      for (const input of this.fields.values()) input.value = "";
      this.stop.value = "";
      this.truncation.checked = false;
      changed();
    });
  }

  /** Show a conversation's settings. */
  show({ system, parameters, adapter, strength }) {
    this.system.value = system;
    this.systemTexts.draw();
    for (const [name, input] of this.fields) input.value = parameters[name] ?? "";
    const scale = this.fields.get("strength");
    scale.closest(".field").hidden = !adapter;
    scale.value = strength === 1 ? "" : strength;
    this.stop.value = (parameters.stop ?? [])
      .map((text) => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\t", "\\t"))
      .join("\n");
    this.truncation.checked = parameters.truncation === "auto";
  }

  /** Show the model's defaults as placeholders. */
  showPreset({ system, sampling }) {
    this.system.placeholder = system || "How the model should answer in this conversation";
    const shown = { ...sampling, seed: "random", strength: 1 };
    if (shown.max_tokens === 0) shown.max_tokens = "no limit";
    for (const [name, input] of this.fields) input.placeholder = shown[name] ?? "";
  }

  #read() {
    const parameters = {};
    for (const [name, input] of this.fields) {
      input.setAttribute("aria-invalid", !input.validity.valid);
      if (input.validity.valid && input.value !== "" && name !== "strength")
        parameters[name] = input.valueAsNumber;
    }
    const stops = this.stop.value
      .split("\n")
      .filter(Boolean)
      .map((text) => text.replace(/\\[nt\\]/g, (escaped) => UNESCAPED[escaped]));
    if (stops.length) parameters.stop = stops;
    if (this.truncation.checked) parameters.truncation = "auto";
    const scale = this.fields.get("strength");
    return {
      system: this.system.value,
      parameters,
      strength: scale.validity.valid && scale.value !== "" ? scale.valueAsNumber : 1,
    };
  }
}

function nudge(event, input, step) {
  const way = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (!way) return;
  event.preventDefault();
  const from =
    input.value === "" ? Number(input.placeholder) || Number(input.min) : input.valueAsNumber;
  input.value = Number(Math.min(input.max, Math.max(input.min, from + way * step)).toFixed(2));
  input.dispatchEvent(new Event("input", { bubbles: true }));
}
