"""People in a real browser: naming from results, suggestions with keys, split, merge, undo; without JavaScript, too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.core.texts import LANGUAGES
from app.demo import draw_portrait
from tests.support.browsing import as_new, faultless, is_as_wide_as_the_screen, opened, settled
from tests.support.running import environment, ingest, service
from tests.system.browser.test_pages import THEMES, require_that_axe_finds_nothing_serious

pytestmark = pytest.mark.browser

PORTRAITS = 6
WIDTHS = (320, 768, 1440)
NAMED, SUGGESTED, SPLIT, GROUPED, SHOWN, PAGED = PEOPLE = range(6)  # a person for each test


@dataclass(frozen=True)
class Gallery:
    """A service over portraits of a few people, whom the tests name.

    Attributes:
        client: of the service.
        faces: face_ids of each person.
    """

    client: httpx.Client
    faces: tuple[tuple[str, ...], ...]

    @property
    def address(self) -> str:
        return str(self.client.base_url)

    def add(self, name: str, face_ids: Sequence[str]) -> str:
        """Add a person; return the address of the page."""
        answer = self.client.post("/people", json={"name": name, "face_ids": [*face_ids]})
        assert answer.status_code == 200, answer.text
        return f"/person/{answer.json()['person']['id']}"

    def remove(self, address: str) -> None:
        """Delete a person with a page."""
        match = {"If-Match": f'"{self.of(address)["version"]}"'}
        assert self.client.delete(address.replace("person", "people"), headers=match).status_code == 200

    def of(self, address: str) -> dict[str, Any]:
        """What REST says of a person with a page."""
        found: dict[str, Any] = self.client.get(f"/people/{address.rpartition('/')[2]}").json()["person"]
        return found


@pytest.fixture(scope="module")
def gallery(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    folder = tmp_path_factory.mktemp("gallery")
    for person in PEOPLE:
        for variant in range(PORTRAITS):
            cv2.imwrite(str(folder / f"person-{person}-{variant}.png"), draw_portrait(person, variant))
    settings = {"MODEL_NAME": demo_models / "demo", "DET_SIZE": "320,320"}
    env = environment(tmp_path_factory.mktemp("data"), **settings)
    assert ingest(folder, env)["failed"] == 0
    with service(env) as client:
        yield Gallery(client, tuple(_faces(client, folder, person) for person in PEOPLE))


def _faces(client: httpx.Client, folder: Path, person: int) -> tuple[str, ...]:
    image = (folder / f"person-{person}-0.png").read_bytes()
    found = client.post("/search", files={"image": image}, data={"threshold": "0", "limit": "100"}).json()["faces"]
    of_path = {Path(one["path"]).name: str(one["face_id"]) for one in found[0]["matches"]}
    return tuple(of_path[f"person-{person}-{variant}.png"] for variant in range(PORTRAITS))


@pytest.fixture(scope="module")
def tab(browser: Browser, gallery: Gallery) -> Iterator[Page]:
    with opened(browser, gallery.address) as tab:
        yield tab


@pytest.fixture
def page(tab: Page, gallery: Gallery) -> Iterator[Page]:
    as_new(tab, gallery.address)
    with faultless(tab, gallery.address) as page:
        yield page


def _toast(page: Page, text: str) -> Locator:
    """Wait for what the toast says; return its button."""
    expect(page.locator("[data-toast] p")).to_have_text(re.compile(f"^\\W*{text}"))
    return page.locator("[data-toast] form button")


def test_one_face_a_selection_and_all_matches_are_named_from_a_result(page: Page, gallery: Gallery) -> None:
    result = f"/face/{gallery.faces[NAMED][0]}"
    page.goto(result)
    settled(page)
    card = page.locator(f'.card[data-face-id="{gallery.faces[NAMED][1]}"]')
    card.hover()
    card.locator(".card-menu summary").click()
    card.get_by_text("Name this face…").click()
    page.locator("input[name=name]").fill("Ana")
    page.keyboard.press("Enter")
    undo = _toast(page, "Ana")
    assert page.url.endswith(result), "the result, without what is told once"
    expect(page.locator(".card-person")).to_have_text(["Ana"])
    undo.click()
    _toast(page, "Undone")
    settled(page)
    expect(page.locator(".card-person")).to_have_count(0)

    page.locator(".card-link").first.focus()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    expect(page.locator("[data-selected]")).to_have_text("2 selected")
    page.locator("[data-selection] [formaction]").click()
    expect(page.locator("h1")).to_have_text("Whose faces are these?")
    page.locator("input[name=name]").fill("Ana")
    page.keyboard.press("Enter")
    _toast(page, "Ana")

    page.locator("#name-menu summary").click()
    expect(page.locator("#name-matches [name=above]").first).to_be_checked()
    page.locator("#name-matches [name=exactly]").fill("0.3")
    expect(page.locator("#name-matches [value=exactly]")).to_be_checked()
    page.locator("#name-matches button").click()
    rest = page.locator(".above p").inner_text()
    assert int(rest.split()[0]) >= PORTRAITS - 2
    page.locator(".name-form [name=name]").fill("ana")
    page.keyboard.press("Enter")
    page.locator("button[name=person]").click()  # the name is known: it is asked whether it is the same person
    _toast(page, f"{rest.split()[0]} faces named")
    settled(page)
    page.locator(".card-person").first.click()
    expect(page.locator("h1")).to_have_text("Ana")


def test_suggestions_are_confirmed_and_rejected_with_one_key_each(page: Page, gallery: Gallery) -> None:
    address = gallery.add("Berta", gallery.faces[SUGGESTED][:2])
    page.goto(address)
    offered = page.locator(".suggestion")
    before = offered.count()
    assert before >= 3
    page.keyboard.press("y")
    _toast(page, "1 face confirmed as")
    expect(offered).to_have_count(before - 1)
    assert page.evaluate("document.activeElement.closest('.suggestion') !== null"), "the next one has the focus"
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.closest('.card').dataset.faceId")
    page.keyboard.press("n")
    undo = _toast(page, "1 face marked as not")
    expect(page.locator(f'.suggestion[data-face-id="{second}"]')).to_have_count(0)
    assert gallery.of(address)["faces"] == 3
    undo.click()
    _toast(page, "Undone")
    expect(page.locator(f'.suggestion[data-face-id="{second}"]')).to_have_count(1)
    page.reload()
    expect(page.locator("[data-toast]")).to_have_count(0)


def test_a_range_is_moved_and_merged_again_after_being_asked(page: Page, gallery: Gallery) -> None:
    address = gallery.add("Clara", gallery.faces[SPLIT])
    page.goto(address)
    boxes = page.locator("[name=id]")
    expect(page.locator("#faces")).to_be_hidden()
    boxes.nth(0).check(force=True)
    boxes.nth(2).click(modifiers=["Shift"], force=True)
    expect(page.locator("[data-selected]")).to_have_text("3 selected")
    page.locator("#faces [name=name]").fill("Dora")
    page.keyboard.press("Enter")
    _toast(page, "Dora\\W* added with 3 faces")
    expect(boxes).to_have_count(3)
    page.get_by_role("link", name="Merge…").click()
    page.locator("[name=q]").fill("dora")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Dora").click()
    expect(page.locator("label.person-choice .note")).to_have_text(["3 faces", "3 faces"])
    assert gallery.of(address)["faces"] == 3
    page.get_by_role("button", name="Merge").click()
    _toast(page, "Dora")
    expect(boxes).to_have_count(6)


def test_more_faces_are_added_to_the_page_and_what_is_selected_stays(page: Page, gallery: Gallery) -> None:
    """A person of the test has few faces: the next page is the same one again."""
    address = gallery.add("Ines", gallery.faces[PAGED][:1])
    page.goto(address)
    page.evaluate(
        """() => {
            const link = document.createElement("a");
            Object.assign(link, { rel: "next", href: location.href, textContent: "More" });
            document.querySelector("[data-pages]").append(link);
        }"""
    )
    boxes = page.locator("[name=id]")
    expect(boxes).to_have_count(1)
    boxes.first.check(force=True)
    page.get_by_role("link", name="More", exact=True).click()
    expect(boxes).to_have_count(2)
    expect(page.locator("[data-selected]")).to_have_text("1 selected")
    expect(page.get_by_role("link", name="More", exact=True)).to_have_count(0)
    assert page.evaluate("document.activeElement.closest('.card') !== null")
    page.locator("[data-select-all]").click()
    expect(page.locator("[data-selected]")).to_have_text("2 selected")
    gallery.remove(address)


def test_a_wrong_birth_date_is_told_where_it_was_typed(page: Page, gallery: Gallery) -> None:
    address = gallery.add("Greta", gallery.faces[SHOWN][2:3])
    page.goto(address)
    page.locator(".person-actions summary").click()
    field = page.locator("[name=birth_date]")
    field.fill("soon")
    page.locator("[name=notes]").fill("by train")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("is not a date")
    expect(field).to_be_focused()
    expect(field).to_be_in_viewport()
    expect(field).to_have_value("soon")
    expect(field).to_have_accessible_description(re.compile("is not a date"))
    expect(page.locator("[name=notes]")).to_have_value("by train")
    field.fill("1970-05")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".person-head")).to_contain_text("1970")
    expect(page.locator(".person-notes")).to_have_text("by train")
    gallery.remove(address)


@pytest.mark.parametrize("locale", ["en", "es"])
def test_on_a_phone_the_bar_of_a_selection_has_two_rows_and_no_keys_are_told(
    browser: Browser, gallery: Gallery, locale: str
) -> None:
    address = gallery.add("Hanna", gallery.faces[GROUPED][:3])
    phone = {"width": 390, "height": 844}
    context = browser.new_context(
        base_url=gallery.address, viewport=phone, has_touch=True, is_mobile=True, locale=locale
    )  # type: ignore[arg-type]
    try:
        page = context.new_page()
        page.goto(address)
        expect(page.locator(".suggestion")).not_to_have_count(0)
        expect(page.locator("kbd").locator("visible=true")).to_have_count(0)
        grid = page.locator(".maybe .grid")
        assert grid.evaluate("grid => getComputedStyle(grid).overflowY") == "visible", "nothing is cut"
        for button in page.locator(".answers button").all():
            place = button.bounding_box()
            assert place is not None
            assert 0 < place["x"] < place["x"] + place["width"] < 390
        page.locator("[name=id]").first.check(force=True)
        bar = page.locator("#faces")
        box = bar.bounding_box()
        assert box is not None
        assert box["height"] < 110, "two rows"
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        cover = page.locator("#faces [value=cover]")
        expect(cover).to_be_hidden()
        page.locator("[data-more]").tap()
        expect(page.locator("[data-more]")).to_have_attribute("aria-expanded", "true")
        expect(cover).to_be_visible()
        cover.tap()
        expect(page.locator("[data-toast]")).to_be_visible()
    finally:
        context.close()
        gallery.remove(address)


def test_what_was_typed_stays_when_somebody_else_was_faster(page: Page, gallery: Gallery) -> None:
    address = gallery.add("Flora", gallery.faces[SHOWN][:2])
    page.goto(address)
    page.locator(".person-actions summary").click()
    page.locator("[name=notes]").fill("at the lake")
    seen = gallery.of(address)["version"]
    gallery.client.patch(f"/people/{address.rpartition('/')[2]}", json={"name": "Fiona", "version": seen})
    page.get_by_role("button", name="Save").click()
    expect(page.locator("main .warning")).to_contain_text("renamed to")
    expect(page.locator("[name=notes]")).to_have_value("at the lake")
    page.get_by_role("button", name="Save").click()
    _toast(page, "Fiona")
    expect(page.locator(".person-notes")).to_have_text("at the lake")
    gallery.remove(address)


def test_dismissed_faces_are_brought_back_with_the_keyboard_and_from_a_photograph(page: Page, gallery: Gallery) -> None:
    faces = gallery.faces[GROUPED][4:6]
    gallery.client.post("/faces/dismiss", json={"face_ids": [*faces], "kind": "set_aside"})
    page.goto("/people?tab=aside")
    cards = page.locator(".card[data-face-id]")
    expect(cards).to_have_count(2)
    expect(page.locator("#faces")).to_be_hidden()
    page.locator(".card-link").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    expect(page.locator("[data-selected]")).to_have_text("1 selected")
    page.get_by_role("button", name="Not a face").press("Enter")
    _toast(page, "1 face marked as not a face")
    expect(cards).to_have_count(1)
    assert page.evaluate("document.activeElement.closest('.card') !== null"), "the face at this place has the focus"
    page.keyboard.press("x")
    page.get_by_role("button", name="Bring back").press("Enter")
    undo = _toast(page, "1 face brought back")
    expect(page.get_by_role("heading", name="Nothing is set aside")).to_be_visible()
    undo.press("Enter")
    _toast(page, "Undone")
    expect(cards).to_have_count(1)

    page.get_by_role("link", name="Not a face").click()
    page.locator(".card-link").first.click()
    expect(page.locator(".people-number")).to_have_text("Face 1 · Not a face")
    require_that_axe_finds_nothing_serious(page)
    page.get_by_role("button", name="Bring back").press("Enter")
    _toast(page, "1 face brought back")
    expect(page.locator(".people-number")).to_have_text("Face 1")
    gallery.client.post("/faces/dismiss", json={"face_ids": [*faces], "kind": None})


LINES = """element => {
  const text = document.createRange();
  text.selectNodeContents(element.firstChild);
  return new Set([...text.getClientRects()].map((one) => Math.round(one.top))).size;
}"""


def test_names_of_faces_have_room_beside_a_photograph(page: Page, gallery: Gallery) -> None:
    face = gallery.faces[SHOWN][5]
    image = gallery.client.get(f"/faces/{face}").json()["image_id"]
    gallery.add("Maximiliane von Hohenzollern", [face])
    for width in (320, 390, 768, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(f"/photo/{image}")
        assert page.locator(".people-name bdi").evaluate(LINES) <= 2, width
        assert page.locator(".people-words .people-together").evaluate(LINES) == 1, width
        assert is_as_wide_as_the_screen(page)


@pytest.mark.parametrize("with_javascript", [True, False])
def test_boxes_are_seen_and_what_cannot_be_pressed_looks_so(
    browser: Browser, gallery: Gallery, with_javascript: bool
) -> None:
    address = gallery.add("Klara", gallery.faces[GROUPED][:3])
    with opened(browser, gallery.address, java_script_enabled=with_javascript) as page:
        page.goto(address)
        box, cover = page.locator(".card-select").last, page.locator("#faces [value=cover]")
        opacity = "one => Number(getComputedStyle(one).opacity)"
        assert box.evaluate(opacity) >= (0.5 if with_javascript else 1)
        page.locator(".card-select").first.check()
        assert box.evaluate(opacity) == 1, "once something is selected"
        assert cover.evaluate(opacity) == 1
        if with_javascript:
            box.check()
            expect(cover).to_be_disabled()
            assert cover.evaluate(opacity) < 1
    gallery.remove(address)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_title_lists_and_history_have_one_row(page: Page, lang: str) -> None:
    page.set_viewport_size({"width": 1024, "height": 800})
    for tab in ("named", "aside"):
        page.goto(f"/people?tab={tab}&lang={lang}")
        height = page.locator("header.people-head").evaluate("one => one.getBoundingClientRect().height")
        assert height < 45


@pytest.mark.parametrize("with_javascript", [True, False])
def test_an_undo_that_is_refused_says_so_at_its_line_which_is_on_the_screen(
    browser: Browser, gallery: Gallery, with_javascript: bool
) -> None:
    address = gallery.add("Gerda", [])
    person = address.rpartition("/")[2]
    for number in range(20):
        version = gallery.of(address)["version"]
        gallery.client.patch(f"/people/{person}", json={"name": f"Gerda {number}", "version": version})
    with opened(browser, gallery.address, java_script_enabled=with_javascript) as page:
        page.goto(f"/changes?person_id={person}")
        page.locator(".change").nth(15).get_by_role("button").click()
        alert = page.locator(".change [role=alert]")
        expect(alert).to_contain_text("because of a later change")
        expect(alert).to_be_in_viewport()
        assert page.locator("[data-refused]").evaluate("line => line === document.activeElement")
    gallery.client.request("DELETE", f"/people/{person}", json={"version": gallery.of(address)["version"]})


def test_the_message_covers_no_field_and_not_the_selection(page: Page, gallery: Gallery) -> None:
    address = gallery.add("Hanna", gallery.faces[SUGGESTED][5:])
    newest = gallery.client.get("/changes?limit=1").json()["changes"][0]["number"]
    for height in range(380, 900, 40):
        page.set_viewport_size({"width": 600, "height": height})
        page.goto(f"/people?tab=groups&done={newest}")
        toast = page.locator("[data-toast]")
        expect(toast).to_contain_text("Go to")
        covered = """() => {
            const box = document.querySelector("[data-toast]").getBoundingClientRect();
            return [...document.querySelectorAll("main input:not([type=hidden])")].some((one) => {
                const other = one.getBoundingClientRect();
                const isBeside = other.right <= box.left || other.left >= box.right;
                return !isBeside && other.top < box.bottom && other.bottom > box.top;
            });
        }"""
        assert not page.evaluate(covered), height
    page.goto(f"{address}?done={newest}")
    toast = page.locator("[data-toast]")
    expect(toast).to_be_visible()
    page.locator("[name=id]").first.check(force=True)
    expect(page.locator("#faces")).to_be_visible()
    expect(toast).to_be_hidden()
    page.locator("#faces [data-select-none]").click()
    expect(toast).to_be_visible()
    page.reload()
    expect(page.locator("[data-toast]")).to_have_count(0)


def test_back_and_reload_of_a_question_send_nothing_again(page: Page, gallery: Gallery) -> None:
    gallery.add("Ida", [])
    page.goto(f"/naming?id={gallery.faces[NAMED][4]}")
    page.locator("input[name=name]").fill("ida")
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_contain_text("Is it the same person")
    page.reload()
    expect(page.locator("button[name=person]")).to_have_count(1)
    page.go_back()
    expect(page.locator("input[name=name]")).to_be_visible()


def test_back_after_a_change_shows_what_is_true_now(page: Page, gallery: Gallery) -> None:
    address = gallery.add("First", gallery.faces[SHOWN][:3])
    result = f"/face/{gallery.faces[SHOWN][0]}"
    for start, names, old, new in (
        ("/people", ".person-tile", "First", "Second"),
        (result, ".card-person", "Second", "Third"),
    ):
        page.goto(start)
        shown = page.locator(names)
        expect(shown.filter(has_text=old).first).to_be_visible()
        page.goto(address)
        page.locator(".person-actions [data-menu] summary").click()
        page.locator("[name=name]").first.fill(new)
        page.keyboard.press("Enter")
        _toast(page, rf"{old}\W* renamed")
        page.go_back()
        expect(shown.filter(has_text=new).first).to_be_visible()
        expect(shown.filter(has_text=old)).to_have_count(0)
    gallery.remove(address)


def test_what_is_typed_or_ticked_stays_after_another_form_and_after_back(page: Page, gallery: Gallery) -> None:
    address = gallery.add("Ines", gallery.faces[SHOWN][:2])
    page.goto(address)
    page.locator(".person-actions [data-menu] summary").click()
    notes = page.locator("[name=notes]")
    notes.fill("at the lake")
    page.locator("[data-grid=faces] [name=id]").first.check()
    page.locator(".suggestion [name=yes]").first.click()
    _toast(page, "1 face confirmed")
    expect(notes).to_have_value("at the lake")
    expect(page.locator("[name=id]:checked")).to_have_count(1)
    expect(page.locator("[data-selected]")).to_have_text("1 selected")

    version = gallery.of(address)["version"]
    page.evaluate("localStorage.setItem('oceano:changed', String(Date.now() + 1000))")
    page.goto("/status")
    page.go_back()
    expect(page.locator("[name=id]:checked")).to_have_count(1)
    expect(page.locator("#faces")).to_be_visible()
    assert gallery.of(address)["version"] == version
    gallery.remove(address)


def test_the_same_without_javascript(browser: Browser, gallery: Gallery) -> None:
    with opened(browser, gallery.address, java_script_enabled=False) as page:
        page.goto(f"/face/{gallery.faces[GROUPED][0]}")
        for face in gallery.faces[GROUPED][:3]:
            page.locator(f'[name=id][value="{face}"]').check()
        page.locator("#name-menu summary").click()
        page.locator("#name-menu button[form=export]").click()
        page.locator("input[name=name]").fill("Elsa")
        page.keyboard.press("Enter")
        _toast(page, "Elsa")
        page.locator(".card-person").first.click()
        before = page.locator(".suggestion").count()
        page.locator(".suggestion [name=yes]").first.click()
        undo = _toast(page, "1 face confirmed as")
        expect(page.locator(".suggestion")).to_have_count(before - 1)
        undo.click()
        _toast(page, "Undone")
        expect(page.locator(".suggestion")).to_have_count(before)
        page.locator("#faces [name=id], .card-select").first.check()
        page.locator("#faces [value=reject]").click()
        _toast(page, "1 face marked as not")
        page.goto("/changes")
        page.locator(".changes form button").first.click()
        _toast(page, "Undone")


@pytest.fixture(scope="module")
def shown(gallery: Gallery) -> tuple[str, str]:
    """The addresses of a person with a long name in two directions, and of one with a short name."""
    name = "\N{ARABIC LETTER ALEF}" * 30 + " | " + "long" * 60
    return gallery.add(name, gallery.faces[SHOWN][2:4]), gallery.add("Zoë", gallery.faces[SHOWN][4:5])


@pytest.mark.parametrize("lang", LANGUAGES)
def test_axe_finds_nothing_serious_and_no_page_is_wider_than_the_screen(
    page: Page, gallery: Gallery, shown: tuple[str, str], lang: str
) -> None:
    address, other = shown
    ids = "&".join(f"id={face}" for face in gallery.faces[SHOWN][4:])
    pages = (
        "/people?", "/people?tab=groups&", "/people?tab=single&", "/people?tab=aside&", "/people?tab=hidden&",
        f"{address}?", f"{address}/merge?",
        f"{address}/merge?with={other.rpartition('/')[2]}&", f"{address}/delete?", "/changes?", f"/naming?{ids}&",
    )  # fmt: skip
    for one in pages:
        page.goto(f"{one}lang={lang}")
        page.wait_for_load_state("networkidle")
        for menu in page.locator("main [data-menu]").all():
            menu.evaluate("menu => { menu.open = true }")
        require_that_axe_finds_nothing_serious(page)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            for theme in THEMES:
                page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
                assert is_as_wide_as_the_screen(page), (one, theme, width)
