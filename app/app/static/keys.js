// Keys of every page: `/` to search, `?` for help, arrows within a grid. Pages listen to `oceano:select` (X) and
// `oceano:preview` (Space) of a card.

const typing = (element) => element.closest("input:not([type=checkbox], [type=radio]), select, textarea, [contenteditable]");
const help = document.getElementById("keys");

document.documentElement.classList.add("js");

for (const button of document.querySelectorAll("[data-keys-open]")) button.addEventListener("click", () => help.showModal());

function searchFirst() {
  const target = document.querySelector("[data-search-first]");
  if (target) target.focus();
  else document.querySelector("[data-key-search]").click();
}

// The card that is `by` rows or columns away; cards of a row have the same top.
function neighbour(cards, card, key) {
  const at = cards.indexOf(card);
  const rtl = getComputedStyle(card).direction === "rtl";
  if (key === "ArrowLeft" || key === "ArrowRight") return cards[at + ((key === "ArrowRight") !== rtl ? 1 : -1)];
  if (key === "Home") return cards[0];
  if (key === "End") return cards.at(-1);
  const box = card.getBoundingClientRect();
  const down = key === "ArrowDown";
  const others = down ? cards.slice(at + 1) : cards.slice(0, at).reverse();
  const row = others.find((one) => (down ? one.getBoundingClientRect().top > box.top + 4 : one.getBoundingClientRect().top < box.top - 4));
  if (!row) return undefined;
  const top = row.getBoundingClientRect().top;
  const inRow = [];
  for (const one of others.slice(others.indexOf(row))) {
    if (Math.abs(one.getBoundingClientRect().top - top) > 4) break;
    inRow.push(one);
  }
  const distance = (one) => Math.abs(one.getBoundingClientRect().left - box.left);
  return inRow.reduce((best, one) => (distance(one) < distance(best) ? one : best));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector("dialog[open]")) return;
  if (event.key === "/") searchFirst();
  else if (event.key === "?") help.showModal();
  else if (!inGrid(event)) return;
  event.preventDefault();
});

function inGrid({ target, key }) {
  const grid = target.closest("[data-grid]");
  const card = target.closest(".card");
  if (!grid || !card) return false;
  if (/^(Arrow|Home|End)/.test(key)) {
    const next = neighbour([...grid.querySelectorAll(".card")], card, key);
    next?.querySelector("a")?.focus();
    next?.scrollIntoView({ block: "nearest" });
    return Boolean(next);
  }
  if (target.matches("button, input, summary")) return false;
  const name = { x: "select", X: "select", " ": "preview" }[key];
  if (!name) return false;
  card.dispatchEvent(new CustomEvent(`oceano:${name}`, { bubbles: true }));
  return true;
}
