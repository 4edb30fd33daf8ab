"""A real Chromium, and pages of it that report what goes wrong."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
_DROP = """([how, pictures, target]) => {
    const carried = new DataTransfer();
    for (const [name, data] of pictures) {
        const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
        carried.items.add(new File([bytes], name, {type: "image/png"}));
    }
    const options = {bubbles: true, cancelable: true};
    const event = how === "paste"
        ? new ClipboardEvent("paste", {clipboardData: carried, ...options})
        : new DragEvent("drop", {dataTransfer: carried, ...options});
    document.querySelector(target).dispatchEvent(event);
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; skips the test if it is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=[*_QUIET, "--disable-sync"])
        yield running
        running.close()


@contextmanager
def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """Open a page in a context of its own; in the end, no script failed and no other host was asked for anything."""
    size = {"width": 1280, "height": 900}
    context = browser.new_context(base_url=address, **({"viewport": size, "locale": "en-GB"} | options))
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: wrong.append(request.url) if _is_foreign(request, address) else None)
    yield page
    context.close()
    assert [text for text in wrong if "Failed to load resource" not in text] == []


def _is_foreign(request: Request, address: str) -> bool:
    url = urlsplit(request.url)
    return url.scheme not in ("data", "blob") and url.netloc != urlsplit(address).netloc


def drop(page: Page, pictures: Sequence[Path], *, how: str = "drop", target: str = "body") -> None:
    """Drop or paste files onto a page."""
    sent = [[one.name, base64.b64encode(one.read_bytes()).decode("ascii")] for one in pictures]
    page.evaluate(_DROP, [how, sent, target])


def paths(page: Page) -> list[str]:
    """The paths of the photographs that a result shows."""
    return [str(path) for path in page.locator(".card .card-title").evaluate_all("all => all.map(one => one.title)")]


def settled(page: Page) -> None:
    """Wait until a result, with the counts of all its matches, is on the page."""
    page.wait_for_selector("#result:not([aria-busy=true]) [data-outcome=result][data-counted=yes]")


def is_as_wide_as_the_screen(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))
