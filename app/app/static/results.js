// The result page: filters without a new page, counts that come later, "Show more", selection, and searches with
// photographs that store.js keeps. The server renders all HTML; this module inserts it and fills in values.

import { copy } from "./copy.js";
import { store, stored } from "./session.js";

const { begin, forget, read, root, write } = globalThis.oceano;
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

const result = $("#result");
const status = $("#status");
const { key, maxBytes } = result.dataset;
const language = document.documentElement.lang;
const narrow = matchMedia("(max-width: 59.99rem)");
const twoDecimals = new Intl.NumberFormat(language, { minimumFractionDigits: 2 }); // as Translator.decimal of the server

const OF_LIST = ["beside", "after", "bands"]; // fields that hold only for one list of matches

let search = null; // what the browser keeps of the search with this key
let running = null; // the AbortController of the request in progress
let path = location.pathname;

/* requests */

async function send(address, options) {
  const headers = { "X-Requested-With": "fetch", Accept: "text/html" };
  const response = await fetch(address, { headers, ...options });
  const text = await response.text();
  const parsed = document.createElement("template");
  if (/html/.test(response.headers.get("Content-Type"))) parsed.innerHTML = text;
  return $("[data-outcome]", parsed.content) ? parsed.content : strange(response, text);
}

// A response that is not a page: the server or a proxy rejected the request early.
function strange(response, text) {
  let told = {};
  try {
    told = JSON.parse(text) ?? {};
  } catch {
    // not from Oceano: only the status is known
  }
  const code = told.error?.code ?? { 413: "image_too_large", 503: "overloaded" }[response.status];
  const shown = problem(code, told.error?.message);
  const message = $("[data-message]", shown);
  message.textContent = message.textContent.replace("{status}", response.status);
  $("[data-problem-code]", shown).textContent = code ?? `HTTP ${response.status}`;
  const id = told.request_id ?? response.headers.get("X-Request-ID") ?? "";
  $("[data-request-id]", shown).textContent = id;
  $("[data-request-id]", shown).parentElement.hidden = !id;
  return shown;
}

function problem(code, message) {
  const known = document.getElementById(`problem-${code}`);
  const shown = (known ?? $("#problem-unexpected")).content.cloneNode(true);
  if (!known && message) $("[data-message]", shown).textContent = message;
  return shown;
}

// The form of a search with photographs: tokens of the faces that are known, and photographs that are new.
function formOf(query) {
  const body = new FormData();
  for (const [name, value] of new URLSearchParams(query)) if (name !== "lang") body.append(name, value);
  body.set("key", key);
  if (search.face && !body.has("face")) body.set("face", search.face); // the one that the server chose
  for (const { query: token, crop } of search.tokens) {
    body.append("query", token);
    body.append("crop", crop);
  }
  for (const file of search.files.slice(search.files.length - search.pending)) body.append("image", file);
  return body;
}

const ask = (address, part, signal) =>
  key
    ? send(`${root}results${part}?lang=${language}`, { method: "POST", body: formOf(address.search), signal })
    : send(`${address.pathname}${part}${address.search}`, { signal });

/* show a result */

async function load(address, { focus = true, left = null } = {}) {
  running?.abort();
  const mine = (running = new AbortController());
  const before = [...result.childNodes];
  if (key && search.pending) showScan();
  else result.ariaBusy = "true";
  let content;
  try {
    if (key && search.files.some((file) => file.size > Number(maxBytes))) content = problem("image_too_large");
    else content = await ask(address, "", mine.signal);
    if (key) content = (await remember(content, address, mine.signal)) ?? content;
  } catch (failure) {
    if (!mine.signal.aborted) content = problem("network");
  }
  if (running !== mine) return;
  running = null;
  if (mine.signal.aborted) cancelled(before);
  else {
    place(content, focus && !left);
    await returnTo(left);
  }
}

// Keep the tokens of the faces; if they were made by another model, send the photographs again.
async function remember(content, address, signal) {
  const wrong = $("[data-problem-code]", content)?.textContent;
  if (wrong === "cursor_invalid" && search.pending < search.files.length) {
    Object.assign(search, { tokens: [], pending: search.files.length, photograph: "" });
    return ask(address, "", signal).then((again) => remember(again, address, signal).then((kept) => kept ?? again));
  }
  if (wrong || !$("#rail", content)) return null;
  const crops = $$("#rail [name=crop]", content);
  search.tokens = $$("#rail [name=query]", content).map((token, at) => ({ query: token.value, crop: crops[at].value }));
  search.face = $("#rail [name=face]", content)?.value ?? "";
  search.pending = 0;
  search.lang = language;
  const photograph = $("[data-photograph]", content);
  if (photograph) search.photograph = photograph.outerHTML;
  else if (search.files.length > 1) search.photograph = "";
  await write(search).catch(() => {});
  return null;
}

function place(content, focus) {
  result.replaceChildren(content);
  result.ariaBusy = "false";
  const empty = $("[data-photograph-place]", result);
  if (empty && search?.photograph) {
    const kept = document.createElement("template");
    kept.innerHTML = search.photograph;
    empty.replaceWith(kept.content);
  }
  ready();
  if (focus) {
    $("[data-focus]", result)?.focus({ preventScroll: true });
    if (!$("[aria-invalid]", result)) window.scrollTo({ top: 0 });
  }
  status.textContent = $(".wrong, [data-focus]", result)?.textContent.trim() ?? "";
}

function showScan() {
  const loading = $("#loading").content.cloneNode(true);
  const picture = $("[data-local]", loading);
  picture.addEventListener("error", () => picture.remove()); // the browser does not support the format
  picture.src = URL.createObjectURL(search.files.at(-1));
  picture.addEventListener("load", () => URL.revokeObjectURL(picture.src));
  status.textContent = $("h2", loading).textContent;
  result.replaceChildren(loading);
  result.ariaBusy = "true";
}

function cancelled(before) {
  if (!before.some((node) => node.matches?.("[data-outcome]"))) return location.assign(root);
  if (search?.tokens.length) search.files.length -= search.pending; // those that were being added
  if (search) search.pending = 0;
  result.replaceChildren(...before);
  result.ariaBusy = "false";
  status.textContent = status.dataset.cancelled;
}

// Everything that depends on the markup of a result that was just put into the page.
function ready() {
  const filters = $("[data-filters]", result);
  if (filters && narrow.matches) filters.open = Boolean($("[aria-invalid]", filters));
  const size = new URLSearchParams(location.search).get("size");
  if (size) showSize(size);
  languageLinks();
  rememberList();
  nameDropped();
  $("#add-image", result)?.addEventListener("change", ({ target }) => add([...target.files]));
  tick();
  count();
}

// A search takes only so many photographs: those that it did not take are named.
function nameDropped() {
  const note = $("[data-dropped]", result);
  if (!note || !search?.dropped?.length) return;
  const { one, other } = note.dataset;
  const names = new Intl.ListFormat(language).format(search.dropped);
  const n = search.dropped.length;
  note.textContent = (n === 1 ? one : other).replace("{n}", n).replace("{names}", () => names);
  note.hidden = false;
}

// The page of a photograph leads to the next one of this list.
function rememberList() {
  const list = $$(".card-link", result).map((link) => {
    const { pathname, searchParams } = new URL(link.href);
    return [pathname.split("/").at(-1), searchParams.get("face"), searchParams.get("s")];
  });
  store("list", list);
}

// The address changes without a new page, and the links to other languages with it.
function languageLinks() {
  for (const link of $$(".languages a")) {
    const address = new URL(location.href);
    address.searchParams.set("lang", link.lang);
    link.href = address.href;
  }
}

/* counts of all matches */

async function count() {
  const page = $(".result-page", result);
  if (page?.dataset.counted !== "no" || (!key && !page.dataset.address)) return;
  let counts = null;
  try {
    counts = await ask(new URL(location.href), "/facets");
  } catch {
    // the page is complete without them
  }
  if (!page.isConnected) return;
  page.dataset.counted = "yes";
  for (const skeleton of $$("[data-facet] > .skeleton", page)) skeleton.remove();
  if (!counts || !$("[data-outcome=facets]", counts)) return;
  for (const part of $$("[data-into]", counts)) $(`[data-facet="${part.dataset.into}"]`, page)?.replaceChildren(...part.childNodes);
  for (const one of $$("[data-choice-count]", counts)) {
    const tab = $(`[data-choice="${one.dataset.choiceCount}"]`, page);
    if (tab) tab.textContent = one.textContent;
  }
}

/* filters: the address changes, the page stays */

function go(address) {
  if (address.href !== location.href) {
    history.replaceState(whereLeft(), "");
    history.pushState(null, "", address);
  }
  load(address);
}

function submit(form, submitter) {
  const fields = new URLSearchParams();
  const slider = form.elements.least;
  for (const [name, value] of new FormData(form)) {
    const isDefault = name === "least" && Number(value) === Number(slider.dataset.default);
    if (typeof value === "string" && value && !isDefault && !["query", "crop", "key"].includes(name)) fields.append(name, value);
  }
  if (submitter?.name === "drop") {
    const place = Number(submitter.value) - 1;
    if (search.files.length === search.tokens.length) search.files.splice(place, 1);
    search.tokens.splice(place, 1);
    search.dropped = []; // they were named; now there is room again
  }
  const address = new URL(location.href);
  address.search = fields;
  go(address);
}

function add(files) {
  const form = $("#add", result);
  if (!form || !files.length) return false;
  const fields = new URLSearchParams();
  const tokens = [];
  for (const [name, value] of new FormData(form)) {
    if (name === "query") tokens.push({ query: value, crop: "" });
    else if (name === "crop") tokens.at(-1).crop = value;
    else if (name !== "image" && value) fields.append(name, value);
  }
  if (!key) {
    begin(files, fields, tokens).catch(() => form.requestSubmit());
    return true;
  }
  search.tokens = tokens;
  search.face = "";
  const room = Math.max(0, Number(form.dataset.room));
  const taken = files.slice(0, room);
  search.dropped = files.slice(room).map((file) => file.name);
  search.files.push(...taken);
  search.pending = taken.length;
  const address = new URL(location.href);
  for (const name of ["face", ...OF_LIST]) address.searchParams.delete(name);
  go(address);
  return true;
}

result.addEventListener("change", ({ target }) => {
  if (target.matches("[data-auto]")) target.form.requestSubmit();
  if (target.matches("[name=id]")) keepTicks([target]);
});
result.addEventListener("input", ({ target }) => {
  if (target.id === "least") $("output", target.parentElement).textContent = twoDecimals.format(target.value);
});

// Only some of the examples: they become a search of their own.
function only(form) {
  const body = new FormData(form);
  const crops = body.getAll("crop");
  const tokens = body.getAll("query").map((query, at) => ({ query, crop: crops[at] }));
  const places = form.dataset.only.split(" ").map(Number);
  const files = key && search.files.length === search.tokens.length ? places.map((place) => search.files[place]) : [];
  for (const name of ["query", "crop"]) body.delete(name);
  begin(files, new URLSearchParams([...body]).toString(), tokens, true).catch(() => form.submit());
}

result.addEventListener("submit", (event) => {
  if (event.target.matches("[data-only]")) {
    event.preventDefault();
    return only(event.target);
  }
  const isSoft = event.target.id === "rail" && $(".result-page", result).dataset.address;
  if (!isSoft) return;
  event.preventDefault();
  submit(event.target, event.submitter);
});
result.addEventListener("oceano:files", (event) => {
  if (event.target.closest(".rail") && add(event.detail)) event.preventDefault();
});

/* more matches */

let isEndless = false; // once more matches were asked for, the next ones come while scrolling
const nearEnd = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && showMore(false), { rootMargin: "1200px" });

async function showMore(focus) {
  const link = $("[data-more]", result);
  if (!link || link.ariaBusy === "true" || !link.href) return;
  const where = link.closest("[data-more-place]");
  link.ariaBusy = "true";
  let content;
  try {
    content = await ask(new URL(link.href), "");
  } catch {
    content = problem("network");
  }
  if (!link.isConnected) return; // another result was loaded
  link.ariaBusy = "false";
  const failed = $("[data-failed]", result);
  const grid = $("[data-grid]", content);
  if (!grid) {
    failed.textContent = $("[data-message]", content)?.textContent ?? "";
    failed.hidden = false;
    return;
  }
  failed.hidden = true;
  const days = $$(".day", result);
  const items = [...grid.children];
  if (items[0].matches(".day") && days.length && items[0].textContent === days.at(-1).textContent) items.shift(); // the same day goes on
  $("[data-grid]", result).append(...items);
  const next = $("[data-more-place]", content);
  if (next) where.replaceWith(next);
  else where.replaceWith($(".end", content) ?? "");
  isEndless = true;
  rememberList();
  tick();
  nearEnd.disconnect();
  if (next) nearEnd.observe(next);
  if (focus) items.find((item) => item.matches(".card"))?.querySelector(".card-link").focus({ preventScroll: true });
  status.textContent = status.dataset.shown.replace("{n}", $$("[data-grid] > .card", result).length);
}

/* size of the cards */

function showSize(size) {
  const grid = $("[data-grid]", result);
  if (grid) grid.className = `grid grid-${size}`;
  for (const link of $$(".size", result)) {
    if (link.classList.contains(`size-${size}`)) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  for (const link of $$("a[href]:not(.outline)", result)) {
    const address = new URL(link.href);
    if (address.pathname !== path || link.matches(".size")) continue;
    address.searchParams.set("size", size);
    link.href = address.href;
  }
  const rail = $("#rail", result);
  if (!rail) return;
  const field = rail.elements.namedItem("size") ?? rail.appendChild(Object.assign(document.createElement("input"), { type: "hidden", name: "size" }));
  field.value = size;
}

/* selection and export */

function selected() {
  const n = $$("[name=id]:checked", result).length;
  const bar = $("[data-selection]", result);
  if (!bar) return;
  bar.hidden = n === 0;
  const text = (n === 1 ? status.dataset.selectedOne : status.dataset.selectedOther).replace("{n}", n);
  $("[data-selected]", bar).textContent = text;
  if (n) status.textContent = text;
  const scope = $("[data-export-scope]", result);
  if (scope) scope.textContent = n === 0 ? scope.dataset.all : (n === 1 ? scope.dataset.one : scope.dataset.other).replace("{n}", n);
  size();
}

// The ticks of a search stay through other filters and other pages: they are kept for this tab, by face.
const ticksOf = () => `ticks:${path}`;
const ticked = () => new Set(stored(ticksOf()) ?? []);

function keepTicks(boxes, clear = false) {
  const faces = clear ? new Set() : ticked();
  for (const box of boxes) faces[box.checked ? "add" : "delete"](box.value);
  store(ticksOf(), [...faces]);
  selected();
}

function tick() {
  const faces = ticked();
  for (const box of $$("[name=id]", result)) box.checked = faces.has(box.value);
  selected();
}

const select = (is) => {
  const boxes = $$("[name=id]", result);
  for (const box of boxes) box.checked = is;
  keepTicks(boxes, !is);
};

result.addEventListener("oceano:select", ({ target }) => {
  const box = $("[name=id]", target);
  box.checked = !box.checked;
  keepTicks([box]);
});

result.addEventListener("oceano:preview", ({ target }) => {
  const shown = $("#preview");
  const link = $(".card-link", target);
  const image = new URL(link.href).pathname.split("/").at(-1);
  $("img", shown).src = `${root}images/${image}/preview?width=1280`;
  $("a", shown).href = link.href;
  shown.showModal();
});

// The size of the files is told before they are loaded.
async function size() {
  const told = $("[data-export-size]", result);
  const form = $("#export", result);
  if (!told || !$("#export-menu", result).open) return;
  told.hidden = true;
  const fields = new FormData(form);
  if (!["zip", "previews"].includes(fields.get("format"))) return;
  fields.set("estimate", "1");
  const isPost = form.method === "post";
  try {
    const response = await fetch(isPost ? form.action : `${form.action}?${new URLSearchParams(fields)}`, isPost ? { method: "POST", body: new URLSearchParams(fields) } : {});
    if (!response.ok) return;
    const { text } = await response.json();
    told.textContent = text;
    told.hidden = !text;
  } catch {
    // the export itself will say what is wrong
  }
}

/* menus, buttons, links */

document.addEventListener("toggle", ({ target }) => {
  if (!target.matches?.("[data-menu]")) return;
  target.closest(".card")?.classList.toggle("is-open", target.open);
  if (!target.open) return;
  for (const other of $$("[data-menu][open]")) if (other !== target && !other.contains(target)) other.open = false;
  if (target.id === "export-menu") size();
}, true);

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const menu = $("[data-menu][open]");
  if (menu) {
    menu.open = false;
    $("summary", menu).focus();
  } else running?.abort();
});

document.addEventListener("click", (event) => {
  const { target } = event;
  for (const menu of $$("[data-menu][open]")) if (!menu.contains(target)) menu.open = false;
  const button = target.closest("button");
  if (button) return pressed(button);
  const link = target.closest("a");
  if (!link || !result.contains(link) || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.button) return;
  const address = new URL(link.href.baseVal ?? link.href, location.href);
  if (link.dataset.face) {
    address.href = location.href;
    for (const name of OF_LIST) address.searchParams.delete(name);
    address.searchParams.set("face", link.dataset.face);
  }
  if (address.pathname !== path || address.hash) return;
  event.preventDefault();
  if ("more" in link.dataset) showMore(true);
  else if ("size" in link.dataset) {
    const chosen = address.searchParams.get("size") ?? "m";
    const here = new URL(location.href);
    here.searchParams.set("size", chosen);
    history.replaceState(null, "", here);
    showSize(chosen);
    languageLinks();
  } else go(address);
});

async function pressed(button) {
  const { dataset } = button;
  if ("cancel" in dataset) running?.abort();
  if ("retry" in dataset) load(new URL(location.href));
  if ("selectAll" in dataset) select(true);
  if ("selectNone" in dataset) select(false);
  if ("open" in dataset) setTimeout(() => ($("#export-menu", result).open = true)); // after this click closed the others
  if ("copy" in dataset) copyPath(button);
  if ("forget" in dataset) {
    await forget(key);
    location.assign(root);
  }
}

async function copyPath(button) {
  await copy(button.dataset.copy);
  status.textContent = status.dataset.copied;
  const menu = button.closest("[data-menu]");
  if (menu) menu.open = false;
}

result.addEventListener("change", ({ target }) => target.name === "format" && size());
result.addEventListener("input", ({ target }) => {
  if (target.name === "exactly") $("[name=above][value=exactly]", target.form).checked = true;
});

/* begin */

window.addEventListener("popstate", ({ state }) => load(new URL(location.href), { focus: false, left: state }));

/* back to a result: where it was left */

// The first card on the screen says where: heights of cards that were never on it are only estimated.
function whereLeft() {
  const cards = $$("[data-grid] > .card", result);
  const first = scrollY ? cards.find((card) => card.getBoundingClientRect().bottom > 0) : null;
  return {
    cards: cards.length,
    first: first?.dataset.faceId ?? "",
    top: first?.getBoundingClientRect().top ?? 0,
    focus: document.activeElement?.closest?.(".card")?.dataset.faceId ?? "",
  };
}

const frame = () => new Promise(requestAnimationFrame);

// Load as many cards as there were, and go to the one that had the focus.
async function returnTo(left) {
  if (!left) return;
  for (let shown = -1, now; (now = $$("[data-grid] > .card", result).length) < left.cards && now > shown; shown = now) await showMore(false);
  const card = (face) => face && $(`[data-face-id="${CSS.escape(face)}"]`, result);
  const first = card(left.first);
  for (let tries = 0; first && tries < 5; tries += 1) {
    scrollBy({ top: first.getBoundingClientRect().top - left.top, behavior: "instant" });
    await frame();
  }
  if (card(left.focus)) $(".card-link", card(left.focus)).focus({ preventScroll: true });
}

const leftOf = () => `left:${location.pathname}${location.search}`;
window.addEventListener("pagehide", () => $("[data-grid]", result) && store(leftOf(), whereLeft()));

// Only for those who come back: a link to the same address begins at the top.
function takeLeft() {
  const came = performance.getEntriesByType("navigation")[0]?.type;
  const back = stored("back");
  store("back", null);
  return came === "back_forward" || (came === "navigate" && back === location.pathname + location.search) ? stored(leftOf()) : null;
}

async function openSearch() {
  search = await read(key).catch(() => null);
  if (!search) return place($("#gone").content.cloneNode(true), true);
  const isAlone = search.files.length === 1 && search.photograph;
  if (search.lang !== language && isAlone) Object.assign(search, { tokens: [], pending: 1, photograph: "" }); // its texts
  if (!search.tokens.length && !new URLSearchParams(location.search).has("example")) search.pending = search.files.length;
  return load(new URL(location.href), { left: takeLeft() });
}

if (key) openSearch();
else {
  ready();
  returnTo(takeLeft());
}
