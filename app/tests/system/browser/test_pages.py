"""All pages in a real browser: every width, both themes, both languages, with axe, and how much they load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.core.texts import LANGUAGES
from tests.support.browsing import drop, is_as_wide_as_the_screen, settled

pytestmark = pytest.mark.browser

WIDTHS = (320, 390, 768, 1440, 2560)
THEMES = ("light", "dark")
_BELOW = """all => all.map((one) => {
    const end = (name) => one.querySelector(name).getBoundingClientRect().bottom;
    return end(".sureness") - end(".card-picture");
})"""
PAGES = ("start", "face", "groups", "none", "group", "several", "photo", "missing", "help", "status", "unknown")
STATIC = Path(__file__).parents[3] / "app" / "static"


@dataclass(frozen=True)
class Site:
    """Addresses of pages, by name; those of photographs that are dropped are None."""

    pages: dict[str, str | None]
    pictures: Path

    def open(self, page: Page, name: str, lang: str = "en") -> None:
        """Open a page and wait for all of it."""
        where = self.pages[name]
        page.goto(f"{where or '/'}{'&' if '?' in (where or '') else '?'}lang={lang}")
        if where is None:
            chosen = ("two.png",) if name == "group" else ("grouped-101.png", "grouped-102.png", "grouped-103.png")
            drop(page, [self.pictures / one for one in chosen])
        if where is None or name in ("face", "groups", "none"):
            settled(page)
        page.wait_for_load_state("networkidle")


@pytest.fixture(scope="module")
def site(client: httpx.Client, pictures: Path) -> Site:
    return Site(_pages(client, pictures), pictures)


def _pages(client: httpx.Client, pictures: Path) -> dict[str, str | None]:
    start, found, *_ = _matches(client, pictures / "grouped-101.png")
    gone, *_ = _matches(client, pictures / "gone.png")
    assert not Path(gone["path"]).exists()
    face = f"/face/{start['face_id']}"
    photo = f"/photo/{found['image_id']}?face={found['face_id']}&s=0.61&from={face}"
    return {
        "start": "/",
        "face": face,
        "groups": f"{face}?group=image",
        "none": f"{face}?from=1920&to=1921",
        "group": None,
        "several": None,
        "photo": photo,
        "missing": f"/photo/{gone['image_id']}",
        "help": f"/help/similarity?s=0.47&a={start['face_id']}&b={found['face_id']}",
        "status": "/status",
        "unknown": f"/photo/{'0' * 64}",
    }


def _matches(client: httpx.Client, picture: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.post("/search", files={"image": picture.read_bytes()}).json()["faces"]
    return list(found[0]["matches"])


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious_and_no_page_is_wider_than_the_screen(page: Page, site: Site, name: str) -> None:
    """In one test, because to open a page is most of the work."""
    site.open(page, name)
    require_that_axe_finds_nothing_serious(page)
    for lang in ("en", *(one for one in LANGUAGES if one != "en")):  # in English it is open
        if lang != "en":
            site.open(page, name, lang)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            for theme in THEMES:
                page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
                assert is_as_wide_as_the_screen(page), (lang, theme, width)


def require_that_axe_finds_nothing_serious(page: Page) -> None:
    menus = page.locator("#export-menu, .filters, .exact").all()
    before = [menu.evaluate("menu => menu.open") for menu in menus]
    for menu in menus:
        menu.evaluate("menu => { menu.open = true }")
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        assert _serious(Axe().run(page).response) == [], theme
    for menu, is_open in zip(menus, before, strict=True):
        menu.evaluate("(menu, open) => { menu.open = open }", is_open)


def _serious(response: dict[str, Any]) -> list[tuple[str, list[str]]]:
    found = [one for one in response["violations"] if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]


def test_all_scripts_together_are_under_60_kb() -> None:
    assert sum(path.stat().st_size for path in STATIC.glob("*.js")) < 60_000


def test_a_photograph_fits_on_the_screen(page: Page, site: Site) -> None:
    site.open(page, "photo")
    for width, height in ((390, 844), (1440, 900), (2560, 1440)):
        page.set_viewport_size({"width": width, "height": height})
        picture, bar = page.locator("[data-photo]").bounding_box(), page.locator(".topbar").bounding_box()
        outline = page.locator(".outline rect").first.bounding_box()
        assert picture is not None
        assert bar is not None
        assert outline is not None
        assert picture["height"] <= height - bar["height"] + 1
        assert picture["x"] <= outline["x"]
        assert outline["x"] + outline["width"] <= picture["x"] + picture["width"]


def test_on_a_phone_the_arrows_are_not_on_the_picture(page: Page, site: Site) -> None:
    site.open(page, "photo")
    for width in (320, 360, 768):
        page.set_viewport_size({"width": width, "height": 740})
        picture = page.locator("[data-photo]").bounding_box()
        assert picture is not None
        arrows = [one.bounding_box() for one in page.locator(".photo-turn").all()]
        assert arrows
        for arrow in arrows:
            assert arrow is not None
            assert arrow["y"] >= picture["y"] + picture["height"] - 1
            assert min(arrow["width"], arrow["height"]) >= 44


def test_the_text_of_every_card_has_the_same_lines(page: Page, site: Site) -> None:
    for lang in LANGUAGES:
        site.open(page, "face", lang)
        for width in (360, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            for one in ("card-title", "card-meta", "sureness"):
                heights = page.locator(f".card-link .{one}").evaluate_all("all => all.map(one => one.clientHeight)")
                assert len(heights) > 1
                assert max(heights) < 30, (lang, width, one)  # one line
            depths = page.locator(".card-link:not(:has(.card-name))").evaluate_all(_BELOW)
            assert max(depths, default=0) - min(depths, default=0) < 1, (lang, width)


def test_pages_are_right_in_a_language_that_is_read_from_the_right(page: Page, site: Site) -> None:
    for name in ("start", "face", "photo"):
        site.open(page, name)
        page.evaluate("document.documentElement.dir = 'rtl'")
        for width in (320, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert is_as_wide_as_the_screen(page), (name, width)
    expect(page.locator(".photo-panel")).to_be_visible()
