// Searches with photographs. The photographs stay in this browser (IndexedDB), under a random key that is part of the
// address; the server never stores them. Every page begins such a search: choose, drop, paste.

const DAYS = 30;
const MOST = 10; // photographs of one search
const root = new URL(document.querySelector("a.brand").href).pathname;

let opened = null;

function open() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("oceano", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("searches", { keyPath: "key" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function run(mode, act) {
  const transaction = (await open()).transaction("searches", mode);
  const request = act(transaction.objectStore("searches"));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

const read = (key) => run("readonly", (searches) => searches.get(key));
const all = () => run("readonly", (searches) => searches.getAll());
const write = (search) => run("readwrite", (searches) => searches.put(search));
const forget = (key) => run("readwrite", (searches) => searches.delete(key));

async function forgetOld() {
  const oldest = Date.now() - DAYS * 24 * 3600 * 1000;
  await run("readwrite", (searches) => {
    searches.openCursor().onsuccess = ({ target: { result: at } }) => {
      if (!at) return;
      if (at.value.created < oldest) at.delete();
      at.continue();
    };
  });
}

// Keep photographs and go to their result; `fields` are filters, `tokens` further examples of the person,
// or, if the photographs are `known`, their faces. More photographs than a search takes are dropped, and named.
async function begin(files, fields = "", tokens = [], known = false) {
  const room = known ? MOST : MOST - tokens.length - new URLSearchParams(fields).getAll("example").length;
  const chosen = [...files].slice(0, room);
  const dropped = [...files].slice(room).map((file) => file.name);
  if (!chosen.length && !known) return;
  const key = crypto.getRandomValues(new Uint8Array(12)).reduce((text, byte) => text + byte.toString(16).padStart(2, "0"), "");
  // copies: a File that lies on a disk cannot be read again after it has changed
  const copies = await Promise.all(chosen.map(async (file) => new File([await file.arrayBuffer()], file.name || "photograph", { type: file.type })));
  await write({ key, created: Date.now(), files: copies, pending: known ? 0 : copies.length, tokens, dropped, photograph: "", lang: document.documentElement.lang });
  location.assign(`${root}search/${key}${fields ? `?${fields}` : ""}`);
}

globalThis.oceano = { all, begin, forget, read, root, write };

const form = document.getElementById("search");
const chooser = document.getElementById("image");

function beginOrSend(files, fields) {
  begin(files, fields).catch(() => {
    if (!form) return location.assign(root); // without IndexedDB, as in some private windows: the plain form works
    const carried = new DataTransfer();
    for (const file of files) carried.items.add(file);
    chooser.files = carried.files;
    form.submit();
  });
}

const fieldsOf = (from) => {
  const fields = new URLSearchParams();
  for (const [name, value] of new FormData(from)) if (typeof value === "string" && value && name !== "lang") fields.append(name, value);
  return fields.toString();
};

if (form) {
  chooser.required = false;
  chooser.addEventListener("change", () => chooser.files.length && beginOrSend([...chooser.files], fieldsOf(form)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (chooser.files.length) beginOrSend([...chooser.files], fieldsOf(form));
    else chooser.click();
  });
}

document.addEventListener("click", ({ target }) => {
  if (!target.closest?.("[data-choose]")) return;
  const input = Object.assign(document.createElement("input"), { type: "file", accept: "image/*", multiple: true });
  input.addEventListener("change", () => beginOrSend([...input.files], ""));
  input.click();
});

// Photographs that are dropped or pasted: `oceano:files` lets a part of the page take them.
function arrived(target, files) {
  const images = [...files];
  if (!images.length) return;
  const event = new CustomEvent("oceano:files", { bubbles: true, cancelable: true, detail: images });
  if (target.dispatchEvent(event)) beginOrSend(images, form ? fieldsOf(form) : "");
}

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
const dragging = (is) => document.documentElement.classList.toggle("dragging", is);

document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  arrived(document.body, event.clipboardData.files);
});
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
  arrived(event.target instanceof Element ? event.target : document.body, event.dataTransfer.files);
});

const modifier = document.querySelector("[data-modifier]");
if (modifier && /Mac|iPhone|iPad/.test(navigator.platform)) modifier.textContent = "⌘";
forgetOld().catch(() => {});
