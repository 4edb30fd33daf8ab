// A page from the browser's history is loaded again if something was changed since the server rendered it.

const root = document.documentElement;
const NAME = "oceano:changed";

// Remember when a page that follows a change was rendered, for all tabs.
export function changed(page) {
  try {
    localStorage.setItem(NAME, page.documentElement.dataset.rendered);
  } catch {
    // storage is blocked: history shows pages as they were
  }
}

function reloadIfOld() {
  try {
    if (Number(localStorage.getItem(NAME)) > Number(root.dataset.rendered)) location.reload();
  } catch {
    // as above
  }
}

if (performance.getEntriesByType("navigation")[0]?.type === "back_forward") reloadIfOld();
addEventListener("pageshow", ({ persisted }) => persisted && reloadIfOld());
