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

// What somebody typed or ticked is worth more than being up to date; a form that is too old says so when it is sent.
// The fields of a result are set by its script, which keeps what is ticked.
export function isTouched(field) {
  if (field.matches("[type=checkbox], [type=radio]")) return field.checked !== field.defaultChecked;
  return field.matches("input:not([type=hidden]), textarea") && field.value !== field.defaultValue;
}

function reloadIfOld() {
  try {
    const isOld = Number(localStorage.getItem(NAME)) > Number(root.dataset.rendered);
    if (isOld && ![...document.querySelectorAll("main:not([data-state=result]) :is(input, textarea)")].some(isTouched)) location.reload();
  } catch {
    // as above
  }
}

const isBack = performance.getEntriesByType("navigation")[0]?.type === "back_forward";
addEventListener("pageshow", ({ persisted }) => (persisted || isBack) && reloadIfOld());
