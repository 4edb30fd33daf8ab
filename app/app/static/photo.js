// The page of a photograph: arrows go through the result that it was opened from, F hides the outlines, Esc goes back.

import { copy } from "./copy.js";
import { store, stored } from "./session.js";

const main = document.querySelector("main.photo");
const status = document.getElementById("status");
const back = main.querySelector("[data-back]");
const asked = new URLSearchParams(location.search);
const from = asked.get("from");
const face = asked.get("face");

/* the other hits of the result */

// [image_id, face_id, similarity] of the hits that the page of the result shows
const list = (from && stored("list")) || [];
const at = list.findIndex(([image, shown]) => image === main.dataset.image && (!face || shown === face));

function turn(selector, step) {
  const next = at >= 0 ? list[at + step] : undefined;
  let link = main.querySelector(selector);
  if (at < 0) return link;
  if (!next) return link?.remove(); // the first or last hit: what is beside it in its folder is no hit
  if (!link) {
    link = document.createElement("a");
    link.className = `photo-turn photo-${step > 0 ? "next" : "previous"}`;
    link.innerHTML = '<span aria-hidden="true"></span><span class="unseen"></span>';
    link.firstChild.textContent = step > 0 ? "›" : "‹";
    link.lastChild.textContent = main.dataset[step > 0 ? "next" : "previous"];
    main.querySelector(".photo-stage").append(link);
  }
  const [image, shown, s] = next;
  link.href = `${main.dataset.root}photo/${image}?${new URLSearchParams({ face: shown, ...(s && { s }), from })}`;
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    location.replace(link.href); // Back leads to the result, however many hits were looked at
  });
  return link;
}

const isRightToLeft = document.documentElement.dir === "rtl";
const links = { previous: turn("[data-previous]", -1), next: turn("[data-next]", 1) };
const toTheLeft = isRightToLeft ? links.next : links.previous;
const toTheRight = isRightToLeft ? links.previous : links.next;

const place = main.querySelector("[data-place]");
if (place && at >= 0) {
  place.textContent = place.dataset.place.replace("{n}", at + 1).replace("{total}", list.length);
  place.hidden = false;
}

/* keys and fingers */

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select") || document.querySelector("dialog[open]")) return;
  if (event.key === "ArrowLeft") toTheLeft?.click();
  else if (event.key === "ArrowRight") toTheRight?.click();
  else if (event.key === "f" || event.key === "F") main.classList.toggle("without-outlines");
  else if (event.key === "Escape") back?.click();
});

let start = null;
const stage = main.querySelector(".photo-stage");
stage.addEventListener("touchstart", ({ touches }) => (start = touches.length === 1 ? touches[0] : null), { passive: true });
stage.addEventListener("touchend", ({ changedTouches: [end] }) => {
  if (!start || visualViewport.scale > 1.05) return; // enlarged: the finger moves the picture
  const moved = end.clientX - start.clientX;
  if (Math.abs(moved) > 60 && Math.abs(moved) > 2 * Math.abs(end.clientY - start.clientY)) (moved > 0 ? toTheLeft : toTheRight)?.click();
});

// The result as it was left, scrolled and with all pages that were loaded, if it is the page before this one.
back?.addEventListener("click", (event) => {
  const entries = globalThis.navigation?.entries() ?? [];
  if (entries[globalThis.navigation?.currentEntry.index - 1]?.url !== back.href) {
    const { pathname, search } = new URL(back.href);
    store("back", pathname + search);
    return;
  }
  event.preventDefault();
  history.back();
});

/* faces, paths, the face that was searched for */

const pointed = ({ target, type }) => {
  const number = target.closest?.("[data-face]")?.dataset.face;
  if (number) main.querySelector(`.outline[data-face="${number}"]`)?.classList.toggle("is-pointed", type === "mouseover" || type === "focusin");
};
for (const type of ["mouseover", "mouseout", "focusin", "focusout"]) main.addEventListener(type, pointed);

document.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-copy]");
  if (button) copy(button.dataset.copy).then(() => (status.textContent = status.dataset.copied));
});

// The crop of a photograph that was sent is in this browser only.
async function showSearched(shown) {
  const key = from.slice("/search/".length).split("?")[0];
  const search = await globalThis.oceano.read(key);
  const tokens = search?.face ? [search.tokens[search.face - 1]] : (search?.tokens ?? []);
  const crop = tokens.find((token) => token?.crop)?.crop;
  if (!crop) return;
  shown.src = `data:image/jpeg;base64,${crop}`;
  shown.hidden = false;
}

const searched = main.querySelector("[data-searched]");
if (searched && from.startsWith("/search/")) showSearched(searched).catch(() => {}); // without IndexedDB there is none
