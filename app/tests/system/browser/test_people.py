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

from app.demo import draw_portrait
from app.web.i18n import LANGUAGES
from tests.support.browsing import as_new, faultless, is_as_wide_as_the_screen, opened, settled
from tests.support.running import environment, ingest, service
from tests.system.browser.test_pages import THEMES, require_that_axe_finds_nothing_serious

pytestmark = pytest.mark.browser

PORTRAITS = 6
WIDTHS = (320, 768, 1440)
NAMED, SUGGESTED, SPLIT, GROUPED, SHOWN = range(5)  # a person for each test


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

    def of(self, address: str) -> dict[str, Any]:
        """What REST says of a person with a page."""
        found: dict[str, Any] = self.client.get(f"/people/{address.rpartition('/')[2]}").json()["person"]
        return found


@pytest.fixture(scope="module")
def gallery(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    folder = tmp_path_factory.mktemp("gallery")
    for person in range(5):
        for variant in range(PORTRAITS):
            cv2.imwrite(str(folder / f"person-{person}-{variant}.png"), draw_portrait(person, variant))
    settings = {"MODEL_NAME": demo_models / "demo", "DET_SIZE": "320,320"}
    env = environment(tmp_path_factory.mktemp("data"), **settings)
    assert ingest(folder, env)["failed"] == 0
    with service(env) as client:
        yield Gallery(client, tuple(_faces(client, folder, person) for person in range(5)))


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
    expect(page.locator("h1")).to_have_text("Who is on these 2 faces?")
    page.locator("input[name=name]").fill("Ana")
    page.keyboard.press("Enter")
    _toast(page, "Ana")

    page.locator("#name-menu summary").click()
    page.locator("#name-matches [name=above]").fill("0.3")
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
    undo = _toast(page, "1 face is not")
    expect(page.locator(f'.suggestion[data-face-id="{second}"]')).to_have_count(0)
    assert gallery.of(address)["faces"] == 3
    undo.click()
    _toast(page, "Undone")
    expect(page.locator(f'.suggestion[data-face-id="{second}"]')).to_have_count(1)
    page.reload()
    expect(page.locator("[data-toast]")).to_have_count(0)


def test_a_range_is_split_off_and_merged_again_after_being_asked(page: Page, gallery: Gallery) -> None:
    address = gallery.add("Clara", gallery.faces[SPLIT])
    page.goto(address)
    boxes = page.locator("[name=id]")
    expect(page.locator("#faces")).to_be_hidden()
    boxes.nth(0).check(force=True)
    boxes.nth(2).click(modifiers=["Shift"], force=True)
    expect(page.locator("[data-selected]")).to_have_text("3 selected")
    page.locator("#faces [name=name]").fill("Dora")
    page.locator("#faces [value=split]").click()
    _toast(page, "3 faces moved from")
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
        _toast(page, "1 face is not")
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
        "/people?", "/people?tab=groups&", "/people?tab=hidden&", f"{address}?", f"{address}/merge?",
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
