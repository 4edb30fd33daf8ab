"""Walks through the product in a real browser, with real photographs and the free model pack."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests.conftest import folder_from
from tests.support.browsing import drop, opened, paths, settled
from tests.support.running import environment, ingest, service

pytestmark = [pytest.mark.browser, pytest.mark.real]

_DATE, _EXIF = 0x9003, 0x8769
_PEOPLE = 3
_PORTRAITS = 5


@dataclass(frozen=True)
class Archive:
    """A service over photographs of a few persons.

    Attributes:
        address: of the service.
        folder: of the photographs.
        people: of each person, photographs from 2019 to 2023: those to 2021 in one folder, the others in another.
        both: a photograph of the first two persons.
        recompressed: the first person's first photograph once more, recompressed.
        queries: photographs of the first person.
    """

    address: str
    folder: Path
    people: tuple[tuple[Path, ...], ...]
    both: Path
    recompressed: Path
    queries: tuple[Path, ...]

    @property
    def first(self) -> set[str]:
        return {*map(str, self.people[0]), str(self.both), str(self.recompressed)}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    pack, faces = folder_from("FREE_PACK_DIR"), folder_from("REAL_FACES_DIR")
    folder = tmp_path_factory.mktemp("archive")
    sources = [sorted(one.iterdir())[:_PORTRAITS] for one in sorted((faces / "people").iterdir())[:_PEOPLE]]
    people = tuple(tuple(_dated(folder, *one) for one in enumerate(person)) for person in sources)
    both, recompressed = folder / "copies" / "both.jpg", folder / "copies" / "small.jpg"
    both.parent.mkdir()
    _beside(sources[0][3], sources[1][3]).save(both, quality=95)
    with Image.open(people[0][0]) as original:
        original.save(recompressed, quality=70)
    env = environment(tmp_path_factory.mktemp("data"), MODEL_NAME=pack)
    assert ingest(folder, env)["failed"] == 0
    with service(env) as client:
        yield Archive(str(client.base_url), folder, people, both, recompressed, tuple(sources[0][:3]))


def _dated(folder: Path, number: int, source: Path) -> Path:
    target = folder / ("wedding" if number < 3 else "beach") / source.with_suffix(".jpg").name
    target.parent.mkdir(exist_ok=True)
    exif = Image.Exif()
    exif.get_ifd(_EXIF)[_DATE] = f"{2019 + number}:06:12 10:42:00"
    with Image.open(source) as picture:
        picture.convert("RGB").save(target, quality=92, exif=exif)
    return target


def _beside(one: Path, other: Path) -> Image.Image:
    with Image.open(one) as left, Image.open(other) as right:
        picture = Image.new("RGB", (800, 400))
        picture.paste(left.convert("RGB").resize((400, 400)))
        picture.paste(right.convert("RGB").resize((400, 400)), (400, 0))
        return picture


def _card(page: Page, path: Path) -> Locator:
    return page.locator(".card", has=page.locator(f'.card-title[title="{path}"]'))


def test_from_three_photographs_of_a_person_to_somebody_else_and_back(browser: Browser, archive: Archive) -> None:
    with opened(browser, archive.address, reduced_motion="no-preference") as page:
        page.goto("/")
        drop(page, archive.queries)
        settled(page)
        expect(page.locator(".rail .example img")).to_have_count(3)
        found = paths(page)
        assert set(found) == archive.first
        assert len(found) == len(set(found))
        result = page.url

        page.locator(".bar[aria-label^='2021']").click()
        settled(page)
        assert "from=2021" in page.url
        assert paths(page) == [str(archive.people[0][2])]
        page.locator(".chips .chip").click()
        settled(page)
        page.locator(".folder-link", has_text="beach").click()
        settled(page)
        assert set(paths(page)) == {str(path) for path in archive.people[0][3:]}
        page.locator(".chips .chip").click()
        settled(page)
        assert page.url == result
        assert paths(page) == found

        _card(page, archive.both).locator(".card-link").click()
        expect(page.locator(".outline")).to_have_count(2)
        expect(page.locator(".outline.is-chosen")).to_have_count(1)
        expect(page.locator("[data-photo]")).to_have_js_property("complete", True)
        assert page.locator("[data-photo]").evaluate("photo => photo.naturalWidth") >= 640
        expect(page.locator("[data-searched]")).to_be_visible()  # the crop that only this browser has
        expect(page.locator("[data-searched]")).to_have_js_property("naturalWidth", 112)
        photograph = page.url

        page.locator(".people li:not(.is-chosen) a[data-face]").click()
        settled(page)
        assert "/face/" in page.url
        assert {str(path) for path in archive.people[1]} <= set(paths(page))

        page.go_back()
        expect(page).to_have_url(photograph)
        page.go_back()
        settled(page)
        assert page.url == result
        assert paths(page) == found
        page.reload()
        settled(page)
        assert paths(page) == found
        expect(page.locator(".rail .example img")).to_have_count(3)


def test_arrows_go_through_the_hits_and_escape_leads_back(browser: Browser, archive: Archive) -> None:
    with opened(browser, archive.address) as page:
        page.goto("/")
        drop(page, archive.queries)
        settled(page)
        result, found = page.url, paths(page)
        page.locator(".card-link").first.click()
        for place, path in enumerate(found[:3], 1):
            expect(page.locator("[data-place]")).to_have_text(f"{place} of {len(found)}")
            expect(page.locator("[data-copy]").first).to_have_attribute("data-copy", path)
            page.keyboard.press("ArrowRight")
        expect(page.locator("[data-place]")).to_have_text(f"4 of {len(found)}")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("[data-place]")).to_have_text(f"3 of {len(found)}")
        page.keyboard.press("f")
        expect(page.locator(".outlines")).to_have_css("opacity", "0")
        page.keyboard.press("Escape")
        settled(page)
        assert page.url == result
        assert paths(page) == found


def test_near_identical_photographs_once_then_a_selection_as_zip_and_all_as_csv(
    browser: Browser, archive: Archive
) -> None:
    with opened(browser, archive.address) as page:
        page.goto("/")
        drop(page, archive.queries)
        settled(page)
        page.locator("[name=group]").select_option("alike")
        settled(page)
        shown = paths(page)
        twins = {str(archive.people[0][0]), str(archive.recompressed)}
        assert len(twins & set(shown)) == 1
        assert set(shown) | twins == archive.first
        (kept,) = twins & set(shown)
        expect(_card(page, Path(kept)).locator(".badge")).to_contain_text("1")

        chosen = [archive.people[0][1], archive.people[0][2]]
        for path in chosen:
            _card(page, path).hover()
            _card(page, path).locator("[name=id]").check()
        expect(page.locator("[data-selected]")).to_have_text("2 selected")
        page.locator("[data-open=export]").click()
        with zipfile.ZipFile(_exported(page, "zip")) as packed:
            assert packed.testzip() is None
            contents = sorted(packed.read(name) for name in packed.namelist())
        assert contents == sorted(path.read_bytes() for path in chosen)

        page.locator("#export-menu > summary").click()
        page.locator("[data-select-none]").dispatch_event("click")
        expect(page.locator("[data-selection]")).to_be_hidden()
        if not page.locator("#export-menu").evaluate("menu => menu.open"):
            page.locator("#export-menu > summary").click()
        with _exported(page, "csv").open(encoding="utf-8-sig", newline="") as table:
            rows = list(csv.DictReader(table))
        assert [row["path"] for row in rows] == shown
        similarities = [float(row["similarity"]) for row in rows]
        assert similarities == sorted(similarities, reverse=True)


def _exported(page: Page, kind: str) -> Path:
    page.locator(f"#export [name=format][value={kind}]").check()
    with page.expect_download() as download:
        page.locator("#export [type=submit]").click()
    return Path(download.value.path())


def test_the_same_without_javascript(browser: Browser, archive: Archive) -> None:
    with opened(browser, archive.address, java_script_enabled=False) as page:
        page.goto("/")
        page.set_input_files("#image", archive.queries)
        page.locator("#search [type=submit]").click()
        expect(page.locator(".rail .example img")).to_have_count(3)
        assert set(paths(page)) == archive.first

        page.locator("[name=from]").fill("2021")
        page.locator("[name=to]").fill("2021")
        page.locator(".rail-actions [type=submit]").click()
        assert paths(page) == [str(archive.people[0][2])]
        page.locator(".chips .chip").click()
        assert set(paths(page)) == archive.first
        page.locator("[name=group]").select_option("alike")
        page.locator(".toolbar-tools > [type=submit]").click()
        assert len(paths(page)) == len(archive.first) - 1

        chosen = _card(page, archive.both)
        chosen.locator("[name=id]").check()
        page.locator("#export-menu > summary").click()
        with zipfile.ZipFile(_exported(page, "zip")) as packed:
            (name,) = packed.namelist()
            assert packed.read(name) == archive.both.read_bytes()

        chosen.locator(".card-link").click()
        expect(page.locator(".outline")).to_have_count(2)
        page.locator(".people li:not(.is-chosen) a[data-face]").click()
        assert {str(path) for path in archive.people[1]} <= set(paths(page))
        result = page.url
        page.locator("[name=folder]").last.fill(str(archive.folder / "wedding"))
        page.locator(".rail-actions [type=submit]").click()
        assert {Path(path).parent for path in paths(page)} == {archive.folder / "wedding"}
        page.go_back()
        assert page.url == result
        page.reload()
        assert {str(path) for path in archive.people[1]} <= set(paths(page))
