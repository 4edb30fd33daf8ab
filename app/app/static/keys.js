// Keys of every page: `/` to search, `?` for help; in a grid the arrows, Home, End, PgUp and PgDn, and one tab stop.
// Pages listen to `oceano:select` (X) and `oceano:preview` (Space) of a card.

import { changed } from "./fresh.js";

const typing = (element) => element.closest("input:not([type=checkbox], [type=radio]), select, textarea, [contenteditable]");
const help = document.getElementById("keys");
const root = document.documentElement;

root.classList.add("js");
try {
  root.classList.toggle("returning", localStorage.getItem("oceano:seen") === "yes");
  localStorage.setItem("oceano:seen", "yes");
} catch {
  // storage is blocked: every visit is the first
}

// A change is told once: a reload, or the address in a message to somebody, says nothing of it.
const here = new URL(location.href);
if (here.searchParams.has("done")) changed(document);
if (here.searchParams.has("done") || here.searchParams.has("refused")) {
  for (const told of ["done", "refused"]) here.searchParams.delete(told);
  history.replaceState(history.state, "", here);
}

document.addEventListener("click", ({ target }) => target.closest?.("[data-toast-close]")?.closest("[data-toast]").remove());

// The message after a change is where it covers no field: at the bottom, or at the top.
const TYPED = "main :is(input:not([type=hidden], [type=checkbox], [type=radio]), textarea, select)";

function isOver(box, element) {
  const other = element.getBoundingClientRect();
  return other.width > 0 && other.left < box.right && other.right > box.left && other.top < box.bottom && other.bottom > box.top;
}

function placeToast() {
  const toast = document.querySelector("[data-toast]");
  if (!toast) return;
  for (const isTop of [false, true, false]) {
    toast.classList.toggle("is-top", isTop);
    const box = toast.getBoundingClientRect();
    if (![...document.querySelectorAll(TYPED)].some((element) => isOver(box, element))) return;
  }
}

document.addEventListener("oceano:toast", placeToast);
document.addEventListener("focusin", ({ target }) => target.matches(TYPED) && placeToast());
placeToast();

for (const button of document.querySelectorAll("[data-keys-open]")) button.addEventListener("click", () => help.showModal());

// The card that is `by` rows away; cards of a row have the same top.
function inRow(cards, card, by) {
  const box = card.getBoundingClientRect();
  const order = by > 0 ? cards.slice(cards.indexOf(card) + 1) : cards.slice(0, cards.indexOf(card)).reverse();
  let best;
  let top = box.top;
  let rows = 0;
  for (const one of order) {
    const { left, top: mine } = one.getBoundingClientRect();
    if (Math.abs(mine - top) > 4) {
      if (rows === Math.abs(by)) break;
      rows += 1;
      top = mine;
      best = undefined;
    }
    if (rows && (!best || Math.abs(left - box.left) < Math.abs(best.left - box.left))) best = { one, left };
  }
  return best?.one;
}

function neighbour(cards, card, key) {
  const at = cards.indexOf(card);
  const forward = getComputedStyle(card).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
  if (key === "ArrowLeft" || key === "ArrowRight") return cards[at + (key === forward ? 1 : -1)];
  if (key === "Home") return cards[0];
  if (key === "End") return cards.at(-1);
  const page = Math.max(1, Math.floor(innerHeight / card.offsetHeight) - 1);
  return inRow(cards, card, { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page }[key]);
}

function inGrid({ target, key }) {
  const grid = target.closest("[data-grid]");
  const card = target.closest(".card");
  if (!grid || !card) return false;
  if (/^(Arrow|Home|End|Page)/.test(key)) {
    const next = neighbour([...grid.querySelectorAll(".card")], card, key);
    next?.querySelector(".card-link").focus({ preventScroll: true });
    next?.scrollIntoView({ block: "nearest" });
    return Boolean(next);
  }
  if (target.matches("button, input, summary")) return false;
  const name = { x: "select", X: "select", " ": "preview" }[key];
  if (!name) return false;
  card.dispatchEvent(new CustomEvent(`oceano:${name}`, { bubbles: true }));
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector("dialog[open]")) return;
  if (event.key === "/") document.querySelector("[data-search-first], [data-key-search]").focus();
  else if (event.key === "?") help.showModal();
  else if (!inGrid(event)) return;
  event.preventDefault();
});

// One tab stop for a whole grid: only the card that had the focus last, and its buttons, can be reached with Tab.
const current = new WeakMap(); // of a grid: that card, and the number of cards when all others left the tab order

const inOrder = (card, is) => {
  for (const stop of card.querySelectorAll("a, button, input, summary")) stop.tabIndex = is ? 0 : -1;
};

document.addEventListener("focusin", ({ target }) => {
  const card = target.closest("[data-grid] > .card");
  const grid = card?.parentElement;
  const last = current.get(grid);
  if (!card || last?.card === card) return;
  const cards = grid.childElementCount;
  for (const one of last?.cards === cards ? [last.card] : grid.querySelectorAll(":scope > .card")) inOrder(one, false);
  inOrder(card, true);
  current.set(grid, { card, cards });
});
