// Adds drop, paste, cancel and filtering with the slider.
// The server renders all HTML; this module inserts it and fills in values.

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

const main = $("main");
const form = $("#search");
const { image: chooser, threshold: slider, limit, clear } = form.elements;
const onlyFirst = $("[data-only-first]", form);
const results = $("#results");
const status = $("#status");

let photograph = null; // the File of the last search
let running = null; // the AbortController of the running search
let before = null; // the results before the running search, restored if it is cancelled

document.documentElement.classList.add("js");
chooser.required = false;
if (/Mac|iPhone|iPad/.test(navigator.platform)) $("[data-modifier]").textContent = "⌘";

/* search */

function searchFirst(files) {
  const [file] = files;
  if (!file) return;
  onlyFirst.textContent = onlyFirst.dataset.onlyFirst.replace("{n}", files.length);
  onlyFirst.hidden = files.length === 1;
  search(file);
}

async function search(file) {
  before = running ? before : { nodes: [...results.childNodes], state: main.dataset.state, photograph };
  running?.abort();
  photograph = file;
  running = null;
  if (file.size > Number(chooser.dataset.maxBytes)) return show(problem("image_too_large"));

  const mine = (running = new AbortController());
  const local = showLoading(file);
  try {
    show(await ask(file, mine.signal));
  } catch (failure) {
    if (!mine.signal.aborted) show(problem("network"));
    else if (running === mine) putBack();
  } finally {
    URL.revokeObjectURL(local);
    if (running === mine) running = null;
  }
}

async function ask(file, signal) {
  const body = new FormData(form);
  body.set("image", file, file.name || "photograph");
  return send(form.action, body, signal);
}

async function send(address, body, signal) {
  const headers = { "X-Requested-With": "fetch", Accept: "text/html" };
  const response = await fetch(address, { method: "POST", body, headers, signal });
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

/* results */

function place(state, ...nodes) {
  results.replaceChildren(...nodes);
  results.ariaBusy = String(state === "loading");
  main.dataset.state = state;
  filter();
}

function show(content) {
  place("done", content);
  $("[data-focus]", results)?.focus({ preventScroll: true });
  window.scrollTo({ top: 0 });
  announce();
}

function showLoading(file) {
  const loading = $("#loading").content.cloneNode(true);
  const picture = $("[data-local]", loading);
  picture.addEventListener("error", () => picture.remove()); // the browser does not support the format
  picture.src = URL.createObjectURL(file);
  status.textContent = $("h2", loading).textContent;
  place("loading", loading);
  return picture.src;
}

function putBack() {
  photograph = before.photograph;
  place(before.state, ...before.nodes);
  status.textContent = main.dataset.cancelled;
  chooser.focus();
}

/* filter by similarity */

function filter() {
  const least = Number(slider.value);
  for (const place of $$("[data-least]")) place.textContent = least.toFixed(2);
  let anyMore = false;
  let sum = 0;
  for (const face of $$("[data-face]", results)) {
    const matches = $$("[data-similarity]", face);
    for (const match of matches) match.hidden = Number(match.dataset.similarity) < least - 1e-9;
    const shown = matches.filter((match) => !match.hidden).length;
    const more = Boolean($("[data-full]", face)) && shown === matches.length;
    const known = more && face.dataset.knownAt === slider.value ? Number(face.dataset.known) : 0;
    const found = Math.max(shown, known);
    sum += found;
    anyMore ||= more && !known;
    for (const place of $$(`[data-count="${face.dataset.face}"]`, results)) place.textContent = counted(place, found, more && !known);
    $("[data-none]", face)?.toggleAttribute("hidden", shown > 0);
    $("[data-full]", face)?.toggleAttribute("hidden", !more);
  }
  const total = $("[data-total]", results);
  if (total) total.textContent = counted(total, sum, anyMore);
}

function counted({ dataset }, n, more) {
  const text = more ? dataset.more : n === 1 ? dataset.one : dataset.other;
  const number = String(n).replace(/\B(?=(\d{3})+$)/g, main.dataset.thousands);
  return text.replace("{n}", number).replace("{threshold}", Number(slider.value).toFixed(2));
}

async function showMore(more) {
  const button = $("button", more);
  const failed = $("[data-failed]", more);
  const face = more.closest("[data-face]");
  const least = slider.value;
  const body = new FormData(more);
  body.set("threshold", least);
  button.disabled = true;
  failed.hidden = true;
  let content;
  try {
    content = await send(more.action, body);
  } catch {
    content = problem("network");
  }
  if (!more.isConnected) return; // another search has begun
  button.disabled = false;
  const page = $("[data-outcome=more]", content);
  if (!page) {
    failed.textContent = $("[data-message]", content).textContent;
    failed.hidden = false;
    button.focus();
    return;
  }
  const cards = $$(".match", page);
  $(".matches", face).append(...cards);
  const next = $("[data-full]", page);
  if (next) more.replaceWith(next);
  else more.remove();
  if (page.dataset.known) Object.assign(face.dataset, { known: page.dataset.known, knownAt: least });
  else delete face.dataset.knownAt;
  filter();
  const first = cards.find((card) => !card.hidden);
  if (first) {
    first.tabIndex = -1;
    first.focus();
  } else face.focus();
  announce();
}

function announce() {
  const heard = [onlyFirst.hidden ? "" : onlyFirst.textContent, $("[data-total]", results)?.textContent ?? ""];
  status.textContent = heard.join(" ").trim();
}

/* the sticky bar: its height, for what scrolls below it */

const root = document.documentElement;
const measureBar = () => {
  const bar = getComputedStyle(form).position === "sticky" && form.offsetHeight ? form : slider.closest(".control");
  if (main.dataset.state === "start") root.style.removeProperty("--bar-height");
  else root.style.setProperty("--bar-height", `${bar.offsetHeight}px`);
};
const barSize = new ResizeObserver(measureBar);
for (const one of [form, slider.closest(".control")]) barSize.observe(one);

/* user input */

const again = () => (photograph ? search(photograph) : chooser.click());
form.addEventListener("submit", (event) => {
  event.preventDefault();
  again();
});

results.addEventListener("submit", (event) => {
  if (!event.target.closest("[data-face]")) return; // a page after the first, from before this script: the plain form works
  event.preventDefault();
  if (!$("button", event.target).disabled) showMore(event.target);
});

chooser.addEventListener("change", () => {
  const files = [...chooser.files];
  chooser.value = ""; // so that the same file can be chosen again
  searchFirst(files);
});

slider.addEventListener("input", filter);
slider.addEventListener("change", announce);
for (const control of [limit, clear]) control.addEventListener("change", () => photograph && search(photograph));

document.addEventListener("paste", (event) => {
  const { files } = event.clipboardData;
  if (!files.length) return;
  event.preventDefault();
  searchFirst(files);
});

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
const dragging = (is) => document.documentElement.classList.toggle("dragging", is);
document.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  dragging(true);
});
document.addEventListener("dragleave", (event) => event.relatedTarget || dragging(false));
document.addEventListener("drop", (event) => {
  dragging(false);
  if (!carriesFiles(event)) return;
  event.preventDefault();
  searchFirst(event.dataTransfer.files);
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});

document.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (!button) return;
  if ("cancel" in button.dataset) running?.abort();
  if ("retry" in button.dataset) again();
  if ("lower" in button.dataset) {
    slider.value = button.dataset.lower;
    filter();
    announce();
  }
  if ("copy" in button.dataset) copy(button);
});

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    copyThePlainWay(button.dataset.copy); // navigator.clipboard needs HTTPS
  }
  button.classList.add("copied");
  status.textContent = main.dataset.copied;
  setTimeout(() => button.classList.remove("copied"), 1600);
}

function copyThePlainWay(text) {
  const give = (event) => {
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
  };
  document.addEventListener("copy", give, { once: true });
  document.execCommand("copy");
}

filter(); // after a reload, browsers may keep the slider's position
