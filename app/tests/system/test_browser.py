"""The page in a real browser, over a real service with the demo pack."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.demo import draw_group, draw_portrait, person_name, write_demo_gallery
from tests.support.running import environment, ingest, service
from tests.support.sub_path import proxied

pytestmark = pytest.mark.browser

PEOPLE = 5
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=[*QUIET, "--disable-sync"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures to search with; none of them is in the gallery."""
    folder = tmp_path_factory.mktemp("queries")
    cv2.imwrite(str(folder / "one.png"), draw_portrait(1, 101))
    cv2.imwrite(str(folder / "two.png"), draw_group([2, 3], variant=101))
    cv2.imwrite(str(folder / "none.png"), 255 - 0 * draw_portrait(1, 101))
    (folder / "rubbish.jpg").write_bytes(b"\xff\xd8\xff this is no picture")
    return folder


@pytest.fixture(scope="module")
def address(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    gallery = tmp_path_factory.mktemp("gallery")
    write_demo_gallery(gallery, people=PEOPLE, portraits=3, groups=0)
    env = environment(tmp_path_factory.mktemp("data"), MODEL_NAME=demo_models / "demo", MAX_UPLOAD_MB=2)
    assert ingest(gallery, env)["failed"] == 0
    with service(env) as client:
        yield str(client.base_url)


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    context = browser.new_context(base_url=address, viewport={"width": 1280, "height": 900}, locale="en-GB")
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    opened.goto("/")
    yield opened
    context.close()
    assert [text for text in wrong if "Failed to load resource" not in text] == []


def _search(page: Page, picture: Path) -> None:
    page.set_input_files("#image", picture)
    page.wait_for_selector("[data-outcome]")


def test_a_chosen_photograph_shows_its_face_outlined_and_the_right_person_first(page: Page, pictures: Path) -> None:
    _search(page, pictures / "one.png")
    expect(page.locator(".picture .outline")).to_have_count(1)
    first = page.locator(".match").first
    assert person_name(1) in (first.locator(".name").get_attribute("title") or "")
    expect(page.locator(".match .thumb img").first).to_have_js_property("naturalWidth", 192)


def test_every_face_of_a_group_has_its_own_results(page: Page, pictures: Path) -> None:
    _search(page, pictures / "two.png")
    expect(page.locator(".outline")).to_have_count(2)
    for place, person in enumerate((2, 3)):
        first = page.locator("[data-face]").nth(place).locator(".match").first
        assert person_name(person) in (first.locator(".name").get_attribute("title") or "")


def test_the_slider_filters_without_asking_the_server_again(page: Page, pictures: Path) -> None:
    _search(page, pictures / "two.png")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    before = page.locator(".match:visible").count()
    assert before > 0
    page.locator(".match").first.evaluate("match => { match.dataset.similarity = '0.50' }")
    page.locator("#threshold").fill("0.51")
    expect(page.locator(".match:visible")).to_have_count(before - 1)
    page.locator("#threshold").fill("0.4")
    expect(page.locator(".match:visible")).to_have_count(before)
    assert "POST" not in asked


def test_a_pasted_and_a_dropped_photograph_are_searched(page: Page, pictures: Path) -> None:
    data = list((pictures / "one.png").read_bytes())
    for event in ("paste", "drop"):
        page.goto("/")
        page.evaluate(
            """([kind, bytes]) => {
                const carried = new DataTransfer();
                carried.items.add(new File([new Uint8Array(bytes)], "one.png", {type: "image/png"}));
                const event = kind === "paste"
                    ? new ClipboardEvent("paste", {clipboardData: carried, bubbles: true, cancelable: true})
                    : new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true});
                document.body.dispatchEvent(event);
            }""",
            [event, data],
        )
        page.wait_for_selector("[data-outcome=faces]")
        expect(page.locator(".outline")).to_have_count(1)


@pytest.mark.parametrize(("name", "code"), [("none.png", "face_not_found"), ("rubbish.jpg", "invalid_image")])
def test_an_error_says_what_is_wrong_with_its_code(page: Page, pictures: Path, name: str, code: str) -> None:
    _search(page, pictures / name)
    expect(page.locator("[data-problem-code]")).to_have_text(code)
    expect(page.locator("[data-request-id]")).not_to_be_empty()


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(b"\xff\xd8\xff" + bytes(2_100_000))
    page.set_input_files("#image", tmp_path / "large.jpg")
    expect(page.locator(".problem")).to_be_visible()
    expect(page.locator("[data-problem-code]")).to_have_text("image_too_large")


def test_the_page_speaks_spanish_and_remembers_it(page: Page, pictures: Path) -> None:
    page.goto("/?lang=es")
    expect(page.locator("html")).to_have_attribute("lang", "es")
    page.goto("/")
    expect(page.locator("html")).to_have_attribute("lang", "es")
    _search(page, pictures / "none.png")
    expect(page.locator("[data-message]").first).to_contain_text("rostro")


def test_the_page_says_that_it_is_a_demo(page: Page) -> None:
    expect(page.locator("aside.demo")).to_be_visible()


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1280, 2560])
def test_nothing_is_wider_than_the_screen(page: Page, pictures: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    _search(page, pictures / "two.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1024, 1280, 2560])
def test_a_chosen_face_is_not_under_the_toolbar(page: Page, pictures: Path, width: int) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 500})
    _search(page, pictures / "two.png")
    page.locator(".jump a").last.click()
    page.wait_for_timeout(300)
    heading = page.locator("#face-2 h3").bounding_box()
    bar = page.locator("#search" if width >= 960 else ".control-threshold").bounding_box()
    assert heading is not None
    assert bar is not None
    assert heading["y"] >= bar["y"] + bar["height"]


def test_matches_fill_a_wide_window_and_the_first_is_on_a_phones_first_screen(page: Page, pictures: Path) -> None:
    page.set_viewport_size({"width": 2560, "height": 1440})
    _search(page, pictures / "two.png")
    grid = page.locator(".matches").first.bounding_box()
    assert grid is not None
    assert grid["x"] + grid["width"] > 2560 - 100
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate("scrollTo(0, 0)")
    first = page.locator(".match").first.bounding_box()
    assert first is not None
    assert first["y"] < 844


def test_of_several_dropped_photographs_the_page_says_that_it_takes_one(page: Page, pictures: Path) -> None:
    page.evaluate(
        """(bytes) => {
            const carried = new DataTransfer();
            for (const name of ["one.png", "two.png", "three.png"])
                carried.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
            const how = {dataTransfer: carried, bubbles: true, cancelable: true};
            document.body.dispatchEvent(new DragEvent("drop", how));
        }""",
        list((pictures / "one.png").read_bytes()),
    )
    page.wait_for_selector("[data-outcome=faces]")
    expect(page.locator("[data-only-first]")).to_have_text("Only one picture is used per search: the first of 3.")
    _search(page, pictures / "two.png")
    expect(page.locator("[data-only-first]")).to_be_hidden()


def test_escape_cancels_a_search(page: Page, pictures: Path) -> None:
    page.route("**/?lang=en", lambda route: None)  # never answered
    page.set_input_files("#image", pictures / "one.png")
    expect(page.locator("main")).to_have_attribute("data-state", "loading")
    page.keyboard.press("Escape")
    expect(page.locator("main")).to_have_attribute("data-state", "start")


def test_it_works_without_javascript(browser: Browser, address: str, pictures: Path) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto("/")
    page.set_input_files("#image", pictures / "one.png")
    page.locator("#search button[type=submit]").click()
    page.wait_for_load_state()
    expect(page.locator(".outline")).to_have_count(1)
    assert person_name(1) in (page.locator(".match .name").first.get_attribute("title") or "")
    context.close()


@pytest.mark.parametrize("root", ["/oceano", "/whole"])
@pytest.mark.parametrize("script", [True, False])
def test_it_works_under_a_path_of_a_proxy(
    browser: Browser, address: str, pictures: Path, tmp_path: Path, root: str, script: bool
) -> None:
    with proxied(tmp_path, int(address.rpartition(":")[2])) as proxy:
        context = browser.new_context(base_url=str(proxy.base_url), java_script_enabled=script, locale="en-GB")
        page = context.new_page()
        answered: dict[str, int] = {}
        page.on("response", lambda answer: answered.update({answer.url: answer.status}))
        page.goto(f"{root}/")
        assert page.locator("header").evaluate("header => getComputedStyle(header).display") != "block"
        page.set_input_files("#image", pictures / "one.png")
        if not script:
            page.locator("#search button[type=submit]").click()
        expect(page.locator(".outline")).to_have_count(1)
        expect(page.locator(".match .thumb img").first).to_have_js_property("naturalWidth", 192)
        page.locator("a[hreflang=es]").click()
        page.goto(f"{root}/")
        expect(page.locator("html")).to_have_attribute("lang", "es")
        assert [cookie.get("path") for cookie in context.cookies()] == [root]
        page.locator("a.brand").click()
        assert page.url == f"{proxy.base_url}{root}/"
        context.close()
    assert {url: status for url, status in answered.items() if status != 200} == {}
    assert {url for url in answered if not url.startswith((f"{proxy.base_url}{root}/", "blob:"))} == set()
