// The page of a photograph: arrows go through the result that it was opened from, F shows the outlines, Esc goes back.

import { copy } from "./copy.js";

const main = document.querySelector("main.photo");
const list = JSON.parse(sessionStorage.getItem("oceano:list") ?? "[]"); // [image_id, face_id] of the result
const from = new URLSearchParams(location.search).get("from");
const face = new URLSearchParams(location.search).get("face");
const status = document.getElementById("status");

const at = list.findIndex(([image, shown]) => image === main.dataset.image && (!face || shown === face));

function turn(selector, step) {
  const next = at >= 0 ? list[at + step] : undefined;
  let link = main.querySelector(selector);
  if (next && !link) {
    link = document.createElement("a");
    link.className = `photo-turn photo-${step > 0 ? "next" : "previous"}`;
    link.textContent = step > 0 ? "›" : "‹";
    main.querySelector(".photo-stage").append(link);
  }
  if (next) link.href = `${main.dataset.root}photo/${next[0]}?${new URLSearchParams({ face: next[1], ...(from && { from }) })}`;
  return link;
}

const links = { ArrowLeft: turn("[data-previous]", -1), ArrowRight: turn("[data-next]", 1) };

const toggle = () => main.classList.toggle("without-outlines");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select") || document.querySelector("dialog[open]")) return;
  if (event.key in links) links[event.key]?.click();
  else if (event.key === "f" || event.key === "F") toggle();
  else if (event.key === "Escape") main.querySelector("[data-back]")?.click();
});

let start = null;
main.addEventListener("touchstart", ({ touches }) => (start = touches.length === 1 ? touches[0].clientX : null), { passive: true });
main.addEventListener("touchend", ({ changedTouches }) => {
  const moved = start === null ? 0 : changedTouches[0].clientX - start;
  if (Math.abs(moved) > 80) links[moved > 0 ? "ArrowLeft" : "ArrowRight"]?.click();
});

document.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-copy]");
  if (button) copy(button.dataset.copy).then(() => (status.textContent = status.dataset.copied));
});
