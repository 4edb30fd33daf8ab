"""Searches in a real browser, over a real service with the demo pack."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import pytest
from playwright.sync_api import Browser, Page, expect

from app.demo import draw_portrait, person_name
from tests.support.browsing import drop, opened, paths, settled
from tests.support.sub_path import proxied

pytestmark = pytest.mark.browser


@pytest.fixture
def page(page: Page) -> Page:
    """The start page."""
    page.goto("/")
    return page


def _search(page: Page, picture: Path) -> None:
    page.set_input_files("#image", picture)
    page.wait_for_selector("#result:not([aria-busy=true]) [data-outcome=result], .problem")


def test_a_chosen_photograph_shows_its_face_outlined_and_the_right_person_first(page: Page, pictures: Path) -> None:
    _search(page, pictures / "one-101.png")
    expect(page.locator(".picture .outline")).to_have_count(1)
    assert person_name(1) in paths(page)[0]
    expect(page.locator(".card img").first).to_have_js_property("naturalWidth", 192)


def test_every_face_of_a_group_has_its_own_results(page: Page, pictures: Path) -> None:
    _search(page, pictures / "two.png")
    expect(page.locator(".outline")).to_have_count(2)
    for place, person in enumerate((2, 3)):
        page.locator(".face-tab").nth(place).click()
        expect(page.locator(".face-tab").nth(place)).to_have_attribute("aria-current", "true")
        settled(page)
        assert person_name(person) in paths(page)[0]


def test_the_outline_of_a_face_chooses_it(page: Page, pictures: Path) -> None:
    _search(page, pictures / "two.png")
    page.locator(".outline").last.click()
    expect(page.locator(".face-tab").last).to_have_attribute("aria-current", "true")
    settled(page)
    assert person_name(3) in paths(page)[0]


def test_the_slider_filters_and_the_address_keeps_it(page: Page, pictures: Path) -> None:
    _search(page, pictures / "one-101.png")
    settled(page)
    before = paths(page)
    told = page.locator(".card .sureness").evaluate_all("all => all.map(one => one.title)")
    similarities = [float(re.findall(r"[01]\.\d\d", one)[0]) for one in told]
    assert len(similarities) == len(before) > 1
    least = min(similarities[1], 0.9)
    page.locator(".exact > summary").click()
    page.locator("#least").fill(f"{least:.2f}")
    page.locator("#least").dispatch_event("change")
    expect(page.locator(".chips")).to_be_visible()
    settled(page)
    kept = [path for path, similarity in zip(before, similarities, strict=True) if similarity >= least]
    assert paths(page) == kept
    after = paths(page)
    page.reload()
    settled(page)
    assert paths(page) == after
    page.go_back()
    settled(page)
    assert paths(page) == before


def test_a_pasted_and_a_dropped_photograph_are_searched(page: Page, pictures: Path) -> None:
    for how in ("paste", "drop"):
        page.goto("/")
        drop(page, [pictures / "one-101.png"], how=how)
        page.wait_for_selector("[data-outcome=result]")
        expect(page.locator(".outline")).to_have_count(1)


def test_a_photograph_that_is_dropped_on_the_result_is_a_further_example(page: Page, pictures: Path) -> None:
    _search(page, pictures / "one-101.png")
    drop(page, [pictures / "one-102.png"], target=".rail")
    expect(page.locator(".rail .example img")).to_have_count(2)
    settled(page)
    assert person_name(1) in paths(page)[0]
    page.locator(".rail .example .remove").first.click()
    expect(page.locator(".rail .example")).to_have_count(1)


@pytest.mark.parametrize(("name", "code"), [("none.png", "face_not_found"), ("rubbish.jpg", "invalid_image")])
def test_an_error_says_what_is_wrong_with_its_code(page: Page, pictures: Path, name: str, code: str) -> None:
    _search(page, pictures / name)
    expect(page.locator("[data-problem-code]")).to_have_text(code)
    expect(page.locator("[data-request-id]")).not_to_be_empty()


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(b"\xff\xd8\xff" + bytes(2_100_000))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    page.set_input_files("#image", tmp_path / "large.jpg")
    expect(page.locator(".problem")).to_be_visible()
    expect(page.locator("[data-problem-code]")).to_have_text("image_too_large")
    assert "POST" not in sent


def test_the_page_speaks_spanish_and_remembers_it(page: Page, pictures: Path) -> None:
    page.goto("/?lang=es")
    expect(page.locator("html")).to_have_attribute("lang", "es")
    page.goto("/")
    expect(page.locator("html")).to_have_attribute("lang", "es")
    _search(page, pictures / "none.png")
    expect(page.locator(".problem [data-message]")).to_contain_text("rostro")


def test_another_language_keeps_the_photograph_that_only_the_browser_has(page: Page, pictures: Path) -> None:
    _search(page, pictures / "one-101.png")
    settled(page)
    found = paths(page)
    page.locator("a[hreflang=es]").click()
    expect(page.locator("html")).to_have_attribute("lang", "es")
    settled(page)
    assert paths(page) == found


def test_the_page_says_that_it_is_a_demo(page: Page) -> None:
    expect(page.locator("aside.demo")).to_be_visible()


def test_matches_fill_a_wide_window_and_the_first_is_on_a_phones_first_screen(page: Page, pictures: Path) -> None:
    page.set_viewport_size({"width": 2560, "height": 1440})
    _search(page, pictures / "two.png")
    grid = page.locator(".grid").bounding_box()
    assert grid is not None
    assert grid["x"] + grid["width"] > 2560 - 100
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    settled(page)
    first = page.locator(".card").first.bounding_box()
    assert first is not None
    assert first["y"] < 844


def test_several_dropped_photographs_are_one_person(page: Page, pictures: Path) -> None:
    drop(page, [pictures / f"one-{variant}.png" for variant in (101, 102, 103)])
    settled(page)
    expect(page.locator(".rail .example img")).to_have_count(3)
    assert all(person_name(1) in path for path in paths(page)[:4])


def test_escape_cancels_a_search(page: Page, pictures: Path) -> None:
    page.route("**/results?lang=en", lambda route: None)  # never answered
    page.set_input_files("#image", pictures / "one-101.png")
    expect(page.locator("[data-outcome=loading]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("main")).to_have_attribute("data-state", "start")


def test_everything_can_be_done_with_keys(page: Page, pictures: Path) -> None:
    _search(page, pictures / "one-101.png")
    settled(page)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    cards = page.locator(".card-link")
    cards.first.focus()
    page.keyboard.press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    page.keyboard.press("x")
    expect(page.locator("[name=id]:checked")).to_have_count(1)
    page.keyboard.press("Space")
    expect(page.locator("#preview img")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    expect(page.locator("main.photo")).to_be_visible()
    page.keyboard.press("/")
    expect(page.locator("[data-key-search]")).to_be_focused()


def test_the_path_of_a_photograph_is_copied(browser: Browser, address: str, pictures: Path) -> None:
    with opened(browser, address, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto("/")
        _search(page, pictures / "one-101.png")
        path = paths(page)[0]
        page.locator(".card-link").first.click()
        page.locator("button[data-copy]").click()
        expect(page.locator("#status")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == path


def test_a_card_with_the_focus_is_not_under_the_toolbar(page: Page, pictures: Path) -> None:
    page.emulate_media(reduced_motion="reduce")
    for width in (390, 1024, 2560):
        page.set_viewport_size({"width": width, "height": 500})
        page.goto("/")
        _search(page, pictures / "one-101.png")
        settled(page)
        cards = page.locator(".card-link")
        cards.last.focus()
        for _ in range(cards.count()):
            page.keyboard.press("ArrowLeft")
        expect(cards.first).to_be_focused()
        card, bar = cards.first.bounding_box(), page.locator(".toolbar").bounding_box()
        assert card is not None
        assert bar is not None
        assert card["y"] >= bar["y"] + bar["height"] - 1


def test_photographs_that_are_too_many_are_named_and_the_others_searched(page: Page, pictures: Path) -> None:
    named = [
        {"name": f"{n}.png", "mimeType": "image/png", "buffer": (pictures / "one-101.png").read_bytes()}
        for n in range(12)
    ]
    page.set_input_files("#image", named)  # type: ignore[arg-type]
    page.wait_for_selector("[data-outcome=result]")
    expect(page.locator(".rail .example img")).to_have_count(10)
    told = "At most 10 photographs are searched together. 2 were left out: 10.png and 11.png."
    expect(page.locator("[data-dropped]")).to_have_text(told)
    page.reload()
    settled(page)
    expect(page.locator("[data-dropped]")).to_have_text(told)


def test_one_of_two_people_among_the_examples_is_searched_alone(page: Page, tmp_path: Path) -> None:
    people = [tmp_path / f"{person}-{variant}.png" for person in (1, 2) for variant in (101, 102)]
    for picture in people:
        person, variant = (int(number) for number in picture.stem.split("-"))
        cv2.imwrite(str(picture), draw_portrait(person, variant))
    page.set_input_files("#image", people[:2])
    settled(page)
    expect(page.locator("[data-only]")).to_have_count(0)
    page.goto("/")
    page.set_input_files("#image", people)
    settled(page)
    expect(page.locator("[data-only]")).to_have_count(2)
    both = page.url
    page.locator("[data-only] button").last.click()
    page.wait_for_url(lambda url: url != both)
    settled(page)
    expect(page.locator(".rail .example img")).to_have_count(2)
    assert person_name(2) in paths(page)[0]
    page.reload()
    settled(page)
    assert person_name(2) in paths(page)[0]
    expect(page.locator("[data-only]")).to_have_count(0)


def test_a_recent_search_has_the_name_of_its_photograph_and_can_be_forgotten(page: Page, pictures: Path) -> None:
    _search(page, pictures / "one-101.png")
    page.goto("/")
    page.set_input_files("#image", [pictures / "one-101.png", pictures / "one-102.png"])
    settled(page)
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_be_in_viewport()
    heading = page.get_by_role("heading", level=1).bounding_box()
    assert heading is not None
    assert heading["height"] > 10
    recent = page.locator("[data-recent] li")
    expect(recent.locator("strong")).to_have_text(["one-101.png and 1 more", "one-101.png"])
    expect(recent.locator("img").first).to_have_js_property("naturalWidth", 112)
    recent.first.get_by_role("button", name="Forget the search one-101.png and 1 more").click()
    expect(recent.locator("strong")).to_have_text(["one-101.png"])
    page.reload()
    expect(recent).to_have_count(1)
    recent.first.get_by_role("button").click()
    expect(page.locator("[data-recent]")).to_be_hidden()


def test_another_photograph_is_chosen_from_the_page_of_an_error(page: Page, pictures: Path) -> None:
    _search(page, pictures / "none.png")
    with page.expect_file_chooser() as chooser:
        page.locator("#result [data-choose]").click()
    chooser.value.set_files(pictures / "one-101.png")
    settled(page)
    expect(page.locator(".outline")).to_have_count(1)


def test_a_search_is_on_the_start_page_until_it_is_forgotten(page: Page, pictures: Path) -> None:
    _search(page, pictures / "one-101.png")
    settled(page)
    result = page.url
    page.locator("a.brand").click()
    page.locator("[data-recent] a").click()
    settled(page)
    assert page.url == result
    page.locator("[data-forget]").click()
    expect(page.locator("main")).to_have_attribute("data-state", "start")
    expect(page.locator("[data-recent]")).to_be_hidden()
    page.goto(result)
    expect(page.locator("[data-outcome=gone]")).to_be_visible()


def test_a_search_that_is_kept_on_purpose_opens_in_another_browser(
    browser: Browser, address: str, page: Page, pictures: Path
) -> None:
    _search(page, pictures / "one-101.png")
    settled(page)
    found = paths(page)
    page.locator("summary", has_text="Keep").click()
    page.locator("#keep [name=name]").fill("Ana at the lake")
    page.locator("#keep [type=submit]").click()
    expect(page).to_have_url(re.compile("/kept/"))
    with opened(browser, address) as other:
        other.goto(page.url)
        settled(other)
        expect(other.locator("#asked-title")).to_have_text("Ana at the lake")
        assert paths(other) == found
        other.get_by_role("button", name="Delete this kept search now").click()
        other.goto(page.url)
        expect(other.locator("[data-problem-code]").first).to_have_text(re.compile("kept|not_found"))


def test_it_works_without_javascript(browser: Browser, address: str, pictures: Path) -> None:
    with opened(browser, address, java_script_enabled=False) as page:
        page.goto("/")
        page.set_input_files("#image", pictures / "one-101.png")
        page.locator("#search button[type=submit]").click()
        expect(page.locator(".outline")).to_have_count(1)
        assert person_name(1) in paths(page)[0]


@pytest.mark.parametrize("root", ["/oceano", "/whole"])
@pytest.mark.parametrize("script", [True, False])
def test_it_works_under_a_path_of_a_proxy(
    browser: Browser, address: str, pictures: Path, tmp_path: Path, root: str, script: bool
) -> None:
    with proxied(tmp_path, int(address.rpartition(":")[2])) as proxy:
        usual = {"base_url": str(proxy.base_url), "locale": "en-GB", "reduced_motion": "reduce"}
        context = browser.new_context(java_script_enabled=script, **usual)  # type: ignore[arg-type]
        page = context.new_page()
        answered: dict[str, int] = {}
        page.on("response", lambda answer: answered.update({answer.url: answer.status}))
        page.goto(f"{root}/")
        assert page.locator("header").evaluate("header => getComputedStyle(header).display") != "block"
        page.set_input_files("#image", pictures / "one-101.png")
        if not script:
            page.locator("#search button[type=submit]").click()
        expect(page.locator(".outline")).to_have_count(1)
        expect(page.locator(".card img").first).to_have_js_property("naturalWidth", 192)
        page.locator(".card-link").first.click()
        expect(page.locator("[data-photo]")).to_be_visible()
        page.locator(".people a[data-face]").click()
        expect(page.locator(".card").first).to_be_visible()
        page.locator("a[hreflang=es]").click()
        page.goto(f"{root}/")
        expect(page.locator("html")).to_have_attribute("lang", "es")
        assert [cookie.get("path") for cookie in context.cookies()] == [root]
        page.locator("a.brand").click()
        assert page.url == f"{proxy.base_url}{root}/"
        context.close()
    assert {url: status for url, status in answered.items() if status != 200} == {}
    foreign = {url for url in answered if not url.startswith((f"{proxy.base_url}{root}/", "blob:", "data:"))}
    assert foreign == set()
