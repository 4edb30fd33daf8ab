"""A result that is left and opened again, in a real browser: ticks, scroll and focus; and fields with errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browsing import drop, settled

pytestmark = pytest.mark.browser


@pytest.fixture
def page(page: Page, pictures: Path) -> Page:
    """The result of a person with many photographs."""
    page.set_viewport_size({"width": 1000, "height": 500})
    page.goto("/")
    drop(page, [pictures / "many.png"])
    settled(page)
    return page


def _tick(page: Page, *places: int) -> list[str | None]:
    boxes = page.locator(".card-select")
    for place in places:
        boxes.nth(place).evaluate("box => box.click()")
    return sorted(boxes.nth(place).get_attribute("value") or "" for place in places)


def _ticked(page: Page) -> list[str]:
    return sorted(page.locator("[name=id]:checked").evaluate_all("all => all.map(one => one.value)"))


def _scrolled(page: Page, top: int) -> float:
    """Scroll, and return how far the ninth card is from the top of the window."""
    page.evaluate("top => scrollTo({top, behavior: 'instant'})", top)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return _top(page)


def _top(page: Page) -> float:
    box = page.locator(".card").nth(8).bounding_box()
    assert box is not None
    return box["y"]


def _face_address(page: Page) -> str:
    return f"/face/{page.locator('.card').first.get_attribute('data-face-id')}"


@pytest.mark.parametrize("start", ["photograph", "face"])
@pytest.mark.parametrize("way", ["history", "link"])
def test_back_from_a_photograph_shows_the_result_as_it_was_left(page: Page, start: str, way: str) -> None:
    if start == "face":
        page.goto(_face_address(page))
        settled(page)
    ticked = _tick(page, 1, 8)
    card = page.locator(".card").nth(8)
    face = card.get_attribute("data-face-id")
    card.locator(".card-link").focus()
    top = _scrolled(page, 330)
    page.keyboard.press("Enter")
    page.wait_for_selector("main.photo")
    if way == "history":
        page.go_back()
    else:
        page.evaluate("history.pushState(null, '', location.href)")  # so that the result is not the page before
        page.locator("[data-back]").click()
    settled(page)
    expect(page.locator(f'[data-face-id="{face}"] .card-link')).to_be_focused()
    assert _ticked(page) == ticked
    assert page.evaluate("scrollY") > 0
    assert _top(page) == pytest.approx(top, abs=2)
    expect(page.locator("[data-selected]")).to_have_text("2 selected")


def test_another_visit_of_the_result_begins_at_the_top(page: Page) -> None:
    where = page.url
    _scrolled(page, 330)
    page.goto("/help/similarity")
    page.goto(where)
    settled(page)
    assert page.evaluate("scrollY") == 0


def test_ticks_stay_through_other_orders_and_filters_until_they_are_cleared(page: Page) -> None:
    ticked = _tick(page, 0, 3)
    page.select_option("select[name=sort]", "newest")
    expect(page.locator("[data-selected]")).to_have_text("2 selected")
    settled(page)
    assert _ticked(page) == ticked
    page.locator("[name=id]:checked").first.evaluate("box => box.click()")
    expect(page.locator("[data-selected]")).to_have_text("1 selected")
    page.reload()
    settled(page)
    assert len(_ticked(page)) == 1
    page.locator("[data-select-none]").click()
    page.select_option("select[name=sort]", "")
    settled(page)
    assert _ticked(page) == []
    _tick(page, 2)
    page.goto(_face_address(page))
    settled(page)
    assert _ticked(page) == [], "another search has ticks of its own"


def test_back_to_other_filters_goes_to_the_place_where_these_were_left(page: Page) -> None:
    top = _scrolled(page, 300)
    page.locator("select[name=sort]").evaluate("one => { one.value = 'oldest'; one.form.requestSubmit(); }")
    page.wait_for_url("**sort=oldest**")
    settled(page)
    _scrolled(page, 0)
    page.go_back()
    page.wait_for_url(lambda address: "oldest" not in address)
    settled(page)
    assert page.evaluate("scrollY") > 0
    assert _top(page) == pytest.approx(top, abs=2)


@pytest.mark.parametrize("width", [1000, 360])
def test_a_folder_that_is_unknown_is_told_beside_its_field_which_has_the_focus(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    count = page.locator(".card").count()
    page.evaluate("document.querySelector('[data-filters]').open = true")
    page.locator(".folder-input").fill("no such folder")
    page.keyboard.press("Tab")
    told = page.locator("#folder-wrong")
    expect(told).to_be_visible()
    expect(told).to_be_in_viewport()
    expect(page.locator(".folder-input")).to_be_focused()
    assert page.locator(".card").count() == count
    assert page.locator(".problem").count() == 0


def test_one_sureness_alone_is_shown_and_the_last_tick_stays(page: Page) -> None:
    ticks = page.locator(".ticks .tick-link")
    counts = [int(one) for one in page.locator(".tick-count").filter(visible=True).all_inner_texts()[: ticks.count()]]
    ticks.first.click()
    page.wait_for_url("**sureness=**")
    settled(page)
    expect(page.locator("#count")).to_have_text(f"{sum(counts[1:])} matches")
    assert ticks.first.get_attribute("data-pressed") == "false"
    for place in range(1, ticks.count() - 1):
        ticks.nth(place).click()
        settled(page)
    expect(page.locator("span.tick-link")).to_have_count(1)
