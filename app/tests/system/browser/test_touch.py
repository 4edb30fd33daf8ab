"""Fingers on the page of a photograph, as the touch sequences that a phone sends to Chromium."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.support.browsing import as_new, faultless, opened, settled

pytestmark = pytest.mark.browser

SCREEN: ViewportSize = {"width": 390, "height": 844}
PHONE = {"viewport": SCREEN, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
STEPS = 8

Point = tuple[float, float]


@pytest.fixture(scope="module")
def result(client: httpx.Client, pictures: Path) -> str:
    """The address of a result with several hits."""
    asked = client.post("/search", files={"image": (pictures / "one-101.png").read_bytes()}).json()
    return f"/face/{asked['faces'][0]['matches'][0]['face_id']}"


class Fingers:
    """Touches the photograph; places are shares of its width and height."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._session = page.context.new_cdp_session(page)

    def move(self, *ways: tuple[Point, Point]) -> None:
        """Move a finger from one place to another, several at a time."""
        box = self._page.locator(".photo-stage").bounding_box()
        assert box is not None
        starts, ends = ([self._at(box, way[end]) for way in ways] for end in (0, 1))
        self._send("touchStart", starts)
        for step in range(1, STEPS + 1):
            share = step / STEPS
            between = zip(starts, ends, strict=True)
            self._send("touchMove", [(x + (u - x) * share, y + (v - y) * share) for (x, y), (u, v) in between])
        self._send("touchEnd", [])

    @staticmethod
    def _at(box: dict[str, float], place: Point) -> Point:
        return box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"]

    def _send(self, kind: str, points: Sequence[Point]) -> None:
        touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        self._session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})


LEFT, RIGHT = ((0.85, 0.5), (0.15, 0.5)), ((0.15, 0.5), (0.85, 0.5))


@pytest.fixture(scope="module")
def phone(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address, **PHONE) as phone:
        yield phone


@pytest.fixture
def page(phone: Page, address: str, result: str) -> Iterator[Page]:
    """The second hit of a result, on a phone."""
    as_new(phone, address)
    with faultless(phone, address) as page:
        page.set_viewport_size(SCREEN)
        page.goto(result)
        settled(page)
        page.locator(".card-link").nth(1).tap()
        expect(page.locator("[data-place]")).to_contain_text("2")
        page.wait_for_load_state("networkidle")
        yield page


def image(page: Page) -> str:
    return page.locator("main.photo").get_attribute("data-image") or ""


def test_a_swipe_leads_to_the_next_hit_and_back(page: Page) -> None:
    second, fingers = image(page), Fingers(page)
    fingers.move(LEFT)
    expect(page.locator("[data-place]")).to_contain_text("3")
    third = image(page)
    assert third != second
    page.wait_for_load_state("networkidle")
    Fingers(page).move(RIGHT)
    expect(page.locator("[data-place]")).to_contain_text("2")
    assert image(page) == second
    page.go_back()
    assert "/face/" in page.url, "Back leads to the result, however many hits were looked at"


def test_other_movements_turn_nothing(page: Page) -> None:
    shown, fingers = image(page), Fingers(page)
    address = page.url
    fingers.move(((0.5, 0.9), (0.45, 0.2)))  # scrolls
    fingers.move(((0.5, 0.5), (0.55, 0.5)))  # trembles
    fingers.move(((0.8, 0.3), (0.2, 0.95)))  # goes aslant
    page.evaluate("scrollTo(0, 0)")
    fingers.move(((0.45, 0.5), (0.05, 0.5)), ((0.55, 0.5), (0.95, 0.5)))  # enlarges
    page.wait_for_function("visualViewport.scale > 1.05")
    fingers.move(LEFT)  # moves the enlarged picture
    page.wait_for_timeout(300)
    assert (page.url, image(page)) == (address, shown)


def test_a_swipe_that_begins_on_a_face_turns_and_a_tap_on_it_searches(page: Page) -> None:
    box = page.locator(".outline").first.bounding_box()
    stage = page.locator(".photo-stage").bounding_box()
    assert box is not None
    assert stage is not None
    x = (box["x"] + box["width"] / 2 - stage["x"]) / stage["width"]
    y = (box["y"] + box["height"] / 2 - stage["y"]) / stage["height"]
    Fingers(page).move(((x, y), (x - 0.4, y)))
    expect(page.locator("[data-place]")).to_contain_text("3")
    page.locator(".outline").first.tap()
    page.wait_for_url("**/face/*")
