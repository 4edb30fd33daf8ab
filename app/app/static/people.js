// The pages of people: a selection with ranges, forms that change the page in place, suggestions with one key each.
// The server renders all HTML; without this script the same forms are sent as usual.

import { changed, isTouched } from "./fresh.js";

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const main = $("main");
const root = new URL($("a.brand").href).pathname;

/* selection */

let last = null; // the checkbox that was ticked last, where a range begins

function selected() {
  const bar = $("[data-selection]");
  if (!bar) return;
  const n = $$("[name=id]:checked, [name=id][type=hidden]").length; // hidden: selected on another page
  bar.classList.toggle("is-on", n > 0);
  const text = $("[data-selected]", bar);
  text.textContent = (n === 1 ? text.dataset.one : text.dataset.other).replace("{n}", n);
  for (const button of $$("[data-for-one]", bar)) button.disabled = n !== 1;
}

function toggle(box, isRange) {
  const boxes = $$("[name=id]");
  const from = boxes.indexOf(last);
  if (isRange && from >= 0) {
    const to = boxes.indexOf(box);
    for (const one of boxes.slice(Math.min(from, to), Math.max(from, to) + 1)) one.checked = box.checked;
  }
  last = box;
  selected();
}

main.addEventListener("click", ({ target, shiftKey }) => {
  if (target.matches("[name=id]")) toggle(target, shiftKey);
  const button = target.closest("button");
  if (!button) return;
  const is = "selectAll" in button.dataset ? true : "selectNone" in button.dataset ? false : null;
  if (is === null) return;
  if (!is) for (const other of $$("[name=id][type=hidden]")) other.remove();
  for (const box of $$("[name=id]")) box.checked = is;
  selected();
});

// Buttons of a selection that a narrow screen shows when they are asked for.
main.addEventListener("click", ({ target }) => {
  const opener = target.closest("[data-more]");
  if (opener) opener.ariaExpanded = String(opener.ariaExpanded !== "true");
});

main.addEventListener("oceano:select", ({ target }) => {
  const box = $("[name=id]", target);
  if (!box) return;
  box.checked = !box.checked;
  toggle(box, false);
});

main.addEventListener("oceano:preview", ({ target }) => {
  const shown = $("#preview");
  const link = $(".card-link", target);
  if (!shown || !link.pathname.includes("/photo/")) return;
  $("img", shown).src = `${root}images/${link.pathname.split("/").at(-1)}/preview?width=1280`;
  $("a", shown).href = link.href;
  shown.showModal();
});

/* further faces, below those that are there, so that what is selected stays */

async function append(link) {
  main.ariaBusy = "true";
  try {
    const response = await fetch(link.href, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const cards = $$('[data-grid="faces"] .card', page);
    if (!response.ok || !cards.length) throw new Error("not a page");
    for (const box of cards.map((card) => $("[name=id]", card))) {
      const kept = box && $(`[name=id][type=hidden][value="${box.value}"]`); // selected before
      if (kept) box.checked = true;
      kept?.remove();
    }
    $('[data-grid="faces"]').append(...cards);
    const next = $("[data-pages] [rel=next]", page);
    if (next) link.href = next.href;
    else link.remove();
    $(".card-link", cards[0]).focus({ preventScroll: true });
  } catch {
    location.assign(link.href);
  } finally {
    main.ariaBusy = "false";
  }
}

main.addEventListener("click", (event) => {
  const link = event.target.closest("[data-pages] [rel=next]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  if (main.ariaBusy !== "true") append(link);
});

/* forms that change the page in place */

// Where the focus was, to find what is at the same place afterwards: the next suggestion, the next group.
function placeOf(form, submitter) {
  const first = form.matches("[data-selection]") ? $("[name=id]:checked") : null;
  const card = (submitter?.closest(".card") ?? form.closest(".card")) ?? first?.closest(".card");
  const grid = card?.closest("[data-grid]");
  return grid && { grid: grid.dataset.grid, at: $$(".card", grid).indexOf(card), isForm: Boolean($("input[name=name]", form)) };
}

function focusAt(place) {
  const cards = place ? $$(`[data-grid="${place.grid}"] .card`) : [];
  const card = cards[Math.min(place?.at ?? 0, cards.length - 1)];
  const next = (card && ((place.isForm && $("input[name=name]", card)) || $(".card-link", card))) ?? $("[data-focus]");
  const wrong = $("[aria-invalid=true]", main);
  if (wrong) return wrong.focus();
  next?.focus({ preventScroll: true });
  if (card) card.scrollIntoView({ block: "nearest" });
}

// What was typed or ticked in other forms meanwhile stays.
function kept(form) {
  const fields = $$("main :is(input, textarea)").filter((field) => field.form && field.form !== form && isTouched(field));
  return new Map(fields.map((field) => [placeOfField(field), field]));
}

const isBox = (field) => field.matches("[type=checkbox], [type=radio]");
const placeOfField = (field) =>
  [new URL(field.form.action).pathname, field.form.elements.of_group?.value, field.name, isBox(field) && field.value].join();

function restore(fields) {
  for (const field of $$("main :is(input, textarea)")) {
    const before = field.form && fields.get(placeOfField(field));
    if (!before) continue;
    if (isBox(field)) field.checked = before.checked;
    else field.value = before.value;
    const menu = field.closest("[data-menu]");
    if (menu) menu.open = true;
  }
}

function show(page, place, form) {
  const fields = kept(form);
  main.replaceChildren(...$("main", page).childNodes);
  main.className = $("main", page).className;
  restore(fields);
  $("[data-toast-place]").replaceWith($("[data-toast-place]", page));
  document.title = page.title;
  document.documentElement.dataset.rendered = page.documentElement.dataset.rendered;
  last = null;
  selected();
  focusAt(place);
  document.dispatchEvent(new Event("oceano:toast"));
  const refused = $("[data-refused]", main);
  refused?.focus({ preventScroll: true });
  refused?.scrollIntoView({ block: "center" });
}

async function send(form, submitter) {
  const place = placeOf(form, submitter);
  const address = submitter?.hasAttribute("formaction") ? submitter.formAction : form.action;
  main.ariaBusy = "true";
  try {
    const response = await fetch(address, { method: "POST", body: new URLSearchParams(new FormData(form, submitter)), headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const shown = new URL(response.url);
    if (!$("main[data-state]", page)) throw new Error("not a page");
    if (response.redirected && shown.pathname !== location.pathname) return location.assign(response.url);
    if (shown.searchParams.has("done")) changed(page);
    if (response.redirected) {
      for (const told of ["done", "refused"]) shown.searchParams.delete(told);
      history.replaceState(null, "", shown);
    } else history.pushState(null, "", location.href); // a question: Back leads to the page before it
    show(page, place, form);
  } catch {
    form.removeAttribute("data-soft");
    form.requestSubmit(submitter); // the browser says what is wrong
  } finally {
    main.ariaBusy = "false";
  }
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-soft]") || main.ariaBusy === "true") return event.target.matches("[data-soft]") && event.preventDefault();
  event.preventDefault();
  send(event.target, event.submitter);
});
window.addEventListener("popstate", () => location.reload());
window.addEventListener("pageshow", selected); // the browser has ticked what was ticked when the page was left

/* keys: Y confirms a suggestion, N rejects it */

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || $("dialog[open]")) return;
  const { target } = event;
  const menu = $("[data-menu][open]");
  if (event.key === "Escape" && menu) {
    menu.open = false;
    return $("summary", menu).focus();
  }
  const name = { y: "yes", s: "yes", n: "no" }[event.key.toLowerCase()];
  if (!name || target.matches("input:not([type=checkbox]), textarea, select")) return;
  const card = target.closest(".suggestion") ?? $(".suggestion");
  const button = card && $(`[name=${name}]`, card);
  if (!button) return;
  event.preventDefault();
  button.form.requestSubmit(button);
});

document.addEventListener("click", ({ target }) => {
  for (const menu of $$("[data-menu][open]")) if (!menu.contains(target)) menu.open = false;
});

/* names: more of them while somebody types */

let asked = 0;

document.addEventListener("input", ({ target }) => {
  if (!target.matches("input[list=names]")) return;
  const text = target.value.trim();
  const mine = (asked += 1);
  if (!text) return;
  setTimeout(async () => {
    if (mine !== asked) return;
    try {
      const response = await fetch(`${root}people?${new URLSearchParams({ name: text, limit: 20 })}`, { headers: { Accept: "application/json" } });
      const { people } = await response.json();
      const list = $("#names");
      const known = new Set([...list.options].map((one) => one.value));
      for (const { name } of people) {
        if (!name || known.has(name)) continue;
        list.append(Object.assign(document.createElement("option"), { value: name }));
        known.add(name);
      }
    } catch {
      // what is known is completed
    }
  }, 200);
});

selected();
