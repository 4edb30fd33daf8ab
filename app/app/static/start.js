// The start page: searches with photographs that this browser keeps, newest first; copies the command for an ingest.

import { copy } from "./copy.js";

const MOST = 12;
const section = document.querySelector("[data-recent]");
const list = section.querySelector("ul");
const item = document.getElementById("recent").content;
const day = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });

function shown({ key, created, face, files, tokens }) {
  const one = item.cloneNode(true);
  const n = files.length || tokens.length; // a photograph may have several faces
  const name = one.querySelector("strong");
  const time = one.querySelector("time");
  const crop = (tokens[face - 1] ?? tokens.find((token) => token.crop))?.crop; // of the face that was chosen
  one.querySelector("a").href += key;
  if (crop) one.querySelector("img").src = `data:image/jpeg;base64,${crop}`;
  else one.querySelector("img").remove();
  const counted = (n === 1 ? name.dataset.one : name.dataset.other).replace("{n}", n);
  const [first] = files;
  if (!first) name.textContent = counted;
  else name.textContent = n === 1 ? first.name : name.dataset.more.replace("{n}", n - 1).replace("{name}", () => first.name);
  name.title = files.map((file) => file.name).join("\n") || counted;
  const button = one.querySelector("button");
  button.title = button.ariaLabel = button.dataset.forget.replace("{name}", () => name.textContent);
  button.dataset.forget = key;
  time.dateTime = new Date(created).toISOString();
  time.textContent = day.format(created);
  return one;
}

async function showRecent() {
  const searches = (await globalThis.oceano.all()).filter(({ tokens }) => tokens.length);
  searches.sort((one, other) => other.created - one.created);
  list.replaceChildren(...searches.slice(0, MOST).map(shown));
  section.hidden = !searches.length;
}

showRecent().catch(() => {}); // without IndexedDB there are none

list.addEventListener("click", async ({ target }) => {
  const button = target.closest("button[data-forget]");
  if (!button) return;
  const next = button.closest("li").nextElementSibling ?? button.closest("li").previousElementSibling;
  await globalThis.oceano.forget(button.dataset.forget);
  button.closest("li").remove();
  section.hidden = !list.children.length;
  (next?.querySelector("button") ?? document.getElementById("main")).focus();
});

document.addEventListener("click", ({ target }) => {
  for (const menu of document.querySelectorAll("[data-menu][open]")) if (!menu.contains(target)) menu.open = false;
  const button = target.closest("button[data-copy]");
  const status = document.getElementById("status");
  if (button) copy(button.dataset.copy).then(() => (status.textContent = button.textContent = status.dataset.copied));
});
