"""A real Chromium, and pages of it that report what goes wrong."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, ViewportSize, expect, sync_playwright

_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-site-isolation-trials",  # else each visit of another address starts a process: half a second of CPU time
)
_PATIENCE_MS: Final = 20_000  # the usual 5 s are not enough on a busy machine
_SIZE: Final[ViewportSize] = {"width": 1280, "height": 900}
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
    expect.set_options(timeout=_PATIENCE_MS)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=_QUIET)
        yield running
        running.close()


@contextmanager
def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """Open a page, `faultless`, in a context of its own; without animations, which take a third of Chromium's time."""
    usual = {"viewport": _SIZE, "locale": "en-GB", "reduced_motion": "reduce"}
    context = browser.new_context(base_url=address, **(usual | options))
    with faultless(context.new_page(), address) as page:
        yield page
        context.close()


@contextmanager
def faultless(page: Page, address: str) -> Iterator[Page]:
    """Require that until the end no script fails and no other host is asked for anything."""
    wrong: list[str] = []
    heard: dict[str, Callable[[Any], object]] = {
        "pageerror": lambda error: wrong.append(str(error)),
        "console": lambda said: wrong.append(said.text) if said.type == "error" else None,
        "request": lambda request: wrong.append(request.url) if _is_foreign(request, address) else None,
    }
    for event, hear in heard.items():
        page.on(event, hear)  # type: ignore[call-overload]
    yield page
    for event, hear in heard.items():
        page.remove_listener(event, hear)
    assert [text for text in wrong if "Failed to load resource" not in text] == []


def as_new(page: Page, address: str) -> None:
    """Make a page forget what it was used for: addresses, handlers, cookies and all that it stores.

    A new context takes a second of a processor. What stays is the history, and what is cached by address.
    """
    page.unroute_all()
    page.goto("about:blank")
    page.set_viewport_size(_SIZE)
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    page.context.clear_cookies()
    session = page.context.new_cdp_session(page)
    session.send("Storage.clearDataForOrigin", {"origin": address, "storageTypes": "all"})
    session.detach()


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
