// A pop-up menu for mouse, keyboard and touch.

import { el } from "./dom.js";

let open = null;

/** Show `entries` ([{label, run}]) next to `button`. A click elsewhere closes the menu. */
export function showMenu(button, entries) {
  open?.remove();
  const menu = el("div", {
    class: "menu",
    role: "menu",
    popover: "auto",
    "aria-label": button.getAttribute("aria-label"),
  });
  for (const { label, run } of entries) {
    const choose = () => {
      menu.hidePopover();
      run();
    };
    menu.append(el("button", { type: "button", role: "menuitem", onclick: choose }, label));
  }
  menu.addEventListener("keydown", (event) => onKey(event, menu));
  menu.addEventListener("toggle", ({ newState }) => {
    if (newState !== "closed") return;
    button.setAttribute("aria-expanded", "false");
    if (menu.contains(document.activeElement)) button.focus();
    menu.remove();
  });
  // Next to its button in the document, so that the menu is inert when the button is.
  button.after(menu);
  button.setAttribute("aria-expanded", "true");
  menu.showPopover();
  place(menu, button);
  menu.firstChild.focus();
  open = menu;
}

function place(menu, button) {
  const from = button.getBoundingClientRect();
  const { width, height } = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(from.right - width, innerWidth - width - 8))}px`;
  const fitsBelow = from.bottom + height + 12 < innerHeight;
  menu.style.top = `${fitsBelow ? from.bottom + 4 : Math.max(8, from.top - height - 4)}px`;
}

function onKey(event, menu) {
  const items = [...menu.children];
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  items.at(to % items.length).focus();
}
