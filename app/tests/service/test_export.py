"""Results as files: each is opened again by another program's reader."""

from __future__ import annotations

import csv
import io
import json
import os
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from pypdf import PdfReader

from app.catalog import FileRecord, Ledger, Person
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import Match
from app.images import ThumbStore, image_id_of
from app.library import Pictures
from app.service import SURENESSES, ListedMatch, bands_of, open_ledger
from app.service.export import MAX_ON_SHEET, contact_sheet, csv_rows, json_rows, path_lines, zip_archive, zip_size
from tests.support.fakes import FAKE_PACK, MemoryIndex
from tests.support.pictures import RED, encoded, point

BANDS = bands_of(FAKE_PACK, 0)
WORDS = dict(zip(SURENESSES, ("yes", "perhaps", "look"), strict=True))
HOSTILE = (
    b"line\nbreak.png", b'quote".png', b"=cmd().png", b"semi;colon,comma.png", b"\xff\xfe.png", b"a.png", b"A.png",
    b"n" * 251 + b".png", "\N{LATIN SMALL LETTER E WITH ACUTE}".encode() * 125 + b"a.png", b" .hidden", b"CON.png",
    b"dot." + b"s" * 200,
)  # fmt: skip


def people(ids: Sequence[str]) -> dict[str, Person]:
    """Somebody for every id; the name is the id after "id of "."""
    return {one: _person(one) for one in ids if one.startswith("id of ")}


def _person(person_id: str) -> Person:
    at = "2026-01-01T00:00:00+00:00"
    return Person(person_id, person_id.removeprefix("id of "), False, None, None, None, 1, at, at, 1)


def listed(number: int = 1, similarity: float = 0.9, *, group_size: int = 1, **payload: object) -> ListedMatch:
    one = point(number, **payload)
    return ListedMatch(Match(one.face_id, similarity, one.payload), group_size)


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    settings.state_dir.mkdir(parents=True)
    with closing(open_ledger(settings, FAKE_PACK)) as opened:
        yield opened


class Library:
    """Files on disk that the ledger knows."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder = folder
        self.ledger = ledger
        self.contents: dict[str, bytes] = {}

    def add(self, name: bytes, data: bytes) -> ListedMatch:
        path = self.folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        image_id, status = image_id_of(data), path.stat()
        self.contents[str(path)] = data
        self.ledger.record([FileRecord(str(path), status.st_size, status.st_mtime_ns, image_id, "done", 1)])
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        return listed(len(self.contents), image_id=image_id, path=shown)

    def pictures(self, roots: Iterable[Path] | None = None) -> Pictures:
        return Pictures(MemoryIndex(), self.ledger, None if roots is None else [*roots])


@pytest.fixture
def library(tmp_path: Path, ledger: Ledger) -> Library:
    folder = tmp_path / "photos"
    folder.mkdir()
    return Library(folder, ledger)


def picture(number: int) -> bytes:
    return encoded(RED, (32, 20 + number))


def opened_zip(parts: Iterable[bytes]) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(b"".join(parts)))
    assert archive.testzip() is None
    return archive


# --- tables


def test_a_csv_row_has_what_the_match_has() -> None:
    match = listed(
        similarity=0.75, group_size=3, path="/photos/a, b.jpg", taken_at="2021-02-03T04:05:06", person="id of Ada"
    )
    data = b"".join(csv_rows([match], BANDS, people))
    assert data.startswith(b"\xef\xbb\xbf")
    (row,) = csv.DictReader(io.StringIO(data.decode("utf-8-sig")))
    assert row == {
        "path": "/photos/a, b.jpg", "folder": "/photos", "taken_at": "2021-02-03T04:05:06", "similarity": "0.75",
        "sureness": "very_likely", "person": "Ada", "face_id": match.match.face_id,
        "image_id": match.match.payload.image_id, "x1": "1.0", "y1": "2.0", "x2": "30.5", "y2": "40.2", "width": "640",
        "height": "480", "page": "0", "group_size": "3", "person_id": "id of Ada",
    }  # fmt: skip


@pytest.mark.parametrize("person", ["=cmd()", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_a_cell_that_a_spreadsheet_would_run_is_text(person: str) -> None:
    (row,) = csv.DictReader(
        io.StringIO(b"".join(csv_rows([listed(person=f"id of {person}")], BANDS, people)).decode("utf-8-sig"), "")
    )
    assert row["person"] == f"'{person}"


def test_a_face_of_somebody_who_was_deleted_has_no_name_and_each_person_is_looked_up_once() -> None:
    asked: list[str] = []

    def known(ids: Sequence[str]) -> dict[str, Person]:
        asked.extend(ids)
        return people(ids)

    matches = [listed(1, person="id of Ada"), listed(2, person="gone"), listed(3, person="id of Ada"), listed(4)]
    rows = json.loads(b"".join(json_rows(matches, BANDS, known)))
    assert [(row["person"], row["person_id"]) for row in rows] == [
        ("Ada", "id of Ada"), (None, None), ("Ada", "id of Ada"), (None, None),
    ]  # fmt: skip
    assert asked == ["id of Ada", "gone"]


def test_a_negative_similarity_stays_a_number() -> None:
    (row,) = csv.DictReader(
        io.StringIO(b"".join(csv_rows([listed(similarity=-0.25)], BANDS, people)).decode("utf-8-sig"))
    )
    assert float(row["similarity"]) == -0.25


@pytest.mark.parametrize("name", HOSTILE)
def test_csv_and_json_have_the_same_readable_path_for_any_name(name: bytes) -> None:
    path = os.fsdecode(b"/photos/" + name)
    text = b"".join(csv_rows([listed(path=path)], BANDS, people)).decode("utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    (other,) = json.loads(b"".join(json_rows([listed(path=path)], BANDS, people)))
    assert row["path"] == other["path"] == os.fsencode(path).decode("utf-8", "backslashreplace")


def test_no_matches_are_an_empty_table() -> None:
    assert list(csv.DictReader(io.StringIO(b"".join(csv_rows([], BANDS, people)).decode("utf-8-sig")))) == []
    assert json.loads(b"".join(json_rows([], BANDS, people))) == []


def test_rows_are_made_while_they_are_read() -> None:
    def matches() -> Iterator[ListedMatch]:
        yield listed(1)
        raise AssertionError("read too far")

    for rows in (csv_rows(matches(), BANDS, people), json_rows(matches(), BANDS, people)):
        assert next(rows)
    assert next(csv_rows(matches(), BANDS, people))


def test_paths_are_the_bytes_of_the_files_each_image_once(library: Library) -> None:
    matches = [library.add(name, picture(number)) for number, name in enumerate(HOSTILE)]
    data = b"".join(path_lines([*matches, *matches], library.pictures(), end=b"\0"))
    assert data.split(b"\0")[:-1] == [os.fsencode(library.folder) + b"/" + name for name in HOSTILE]


def test_every_path_is_one_line_and_quoted_as_git_does_if_it_has_control_characters(library: Library) -> None:
    names = {
        b'plain "a" \\n.png': b'/plain "a" \\n.png',
        b"line\nbreak.png": b"/line\\nbreak.png",
        b'tab\t"q"\\x\r\x07\x7f.png': b'/tab\\t\\"q\\"\\\\x\\r\\007\\177.png',
        b"\xff\n.png": b"/\xff\\n.png",
    }
    matches = [library.add(name, picture(number)) for number, name in enumerate(names)]
    lines = b"".join(path_lines(matches, library.pictures())).split(b"\n")
    folder = os.fsencode(library.folder)
    assert lines == [
        folder + line if place == 0 else b'"' + folder + line + b'"' for place, line in enumerate(names.values())
    ] + [b""]


def test_a_path_that_only_looks_escaped_stays_as_it_is(library: Library) -> None:
    match = library.add(b"\\xff.png", picture(1))
    assert b"".join(path_lines([match], library.pictures())) == os.fsencode(library.folder) + b"/\\xff.png\n"


def test_a_path_that_the_ledger_does_not_know_is_that_of_the_index(library: Library) -> None:
    assert b"".join(path_lines([listed(path="/lost/\\xff.png")], library.pictures())) == b"/lost/\\xff.png\n"


# --- archives


def test_an_archive_has_every_file_whatever_its_name(library: Library) -> None:
    matches = [library.add(name, picture(number)) for number, name in enumerate(HOSTILE)]
    with opened_zip(zip_archive([*matches, *matches], library.pictures())) as archive:
        assert sorted(map(archive.read, archive.namelist())) == sorted(library.contents.values())
        names = archive.namelist()
    assert len({name.casefold() for name in names}) == len(HOSTILE)
    assert all(len(name.encode()) <= 255 and "/" not in name and name.isprintable() for name in names)


def test_same_names_of_many_folders_are_numbered(library: Library) -> None:
    matches = [library.add(b"%d/IMG_1.png" % number, picture(number)) for number in range(3)]
    with opened_zip(zip_archive(matches, library.pictures())) as archive:
        assert archive.namelist() == ["IMG_1.png", "IMG_1 (2).png", "IMG_1 (3).png"]


def test_what_cannot_be_read_is_named_and_the_rest_is_there(library: Library, tmp_path: Path) -> None:
    gone, hidden, there = (library.add(name, picture(number)) for number, name in enumerate((b"a", b"b", b"c/c.png")))
    changed = library.add(b"c/d.png", picture(9))
    (library.folder / "c/d.png").write_bytes(b"x" * len(picture(9)))
    with opened_zip(zip_archive([gone, hidden, there, changed], library.pictures([library.folder / "c"]))) as archive:
        assert archive.namelist() == ["c.png", "not-included.txt"]
        lines = archive.read("not-included.txt").decode().splitlines()
    assert [line.split(":")[0] for line in lines] == [one.match.payload.path for one in (gone, hidden, changed)]


def test_a_photograph_that_is_named_like_the_list_keeps_its_name(library: Library) -> None:
    one = library.add(b"not-included.txt", picture(1))
    with opened_zip(zip_archive([one, listed(path="/lost.png")], library.pictures())) as archive:
        assert archive.namelist() == ["not-included.txt", "not-included (2).txt"]
        assert archive.read("not-included.txt") == picture(1)


def test_an_old_file_is_archived(library: Library) -> None:
    match = library.add(b"old.png", picture(1))
    path = library.folder / "old.png"
    os.utime(path, (0, 0))
    library.ledger.record([FileRecord(str(path), path.stat().st_size, 0, image_id_of(picture(1)), "done", 1)])
    with opened_zip(zip_archive([match], library.pictures())) as archive:
        assert archive.read("old.png") == picture(1)


def test_previews_are_drawn_in_place_of_the_originals(library: Library) -> None:
    matches = [library.add(b"a.heic", picture(1)), library.add(b"b.png", picture(2))]

    def draw(payload: object) -> bytes:
        if payload is matches[1].match.payload:
            raise OceanoError("invalid_image", "cannot be decoded")
        return b"a preview"

    with opened_zip(zip_archive(matches, library.pictures(), draw=draw)) as archive:
        assert archive.namelist() == ["a.jpg", "not-included.txt"]
        assert archive.read("a.jpg") == b"a preview"


def test_an_archive_that_is_left_has_no_file_open(library: Library) -> None:
    match = library.add(b"large.png", picture(1) + bytes(5_000_000))
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the links lead nowhere
    parts = zip_archive([match], library.pictures())
    assert next(parts)
    parts.close()  # type: ignore[attr-defined]
    assert set(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_an_archive_is_made_while_it_is_read(library: Library) -> None:
    match = library.add(b"a.png", picture(1))

    def matches() -> Iterator[ListedMatch]:
        yield match
        raise AssertionError("read too far")

    assert next(zip_archive(matches(), library.pictures()))


def test_thousands_of_files_with_one_name_take_no_time() -> None:
    from app.service.export.archive import _Names

    names, start = _Names(), time.perf_counter()
    assert len({names.of(f"/{number}/IMG_1.jpg") for number in range(20_000)}) == 20_000
    assert time.perf_counter() - start < 5


def test_the_size_of_an_archive_counts_what_it_would_have(library: Library) -> None:
    inside, outside = library.add(b"in/a.png", picture(1)), library.add(b"b.png", picture(2))
    found = zip_size([inside, inside, outside], library.pictures([library.folder / "in"]))
    assert found == (1, len(picture(1)))


# --- contact sheets


def test_a_contact_sheet_has_a_thumbnail_and_the_words_of_each_match(tmp_path: Path) -> None:
    thumbs = ThumbStore(tmp_path)
    matches = [listed(number, path=f"/photos/wedding/{number}.jpg", taken_at="2021-02-03") for number in range(1, 46)]
    thumbs.write(matches[0].match.face_id, encoded(kind="JPEG"))
    reader = PdfReader(io.BytesIO(contact_sheet(matches, thumbs, BANDS, WORDS, "A title")))
    texts = [page.extract_text() for page in reader.pages]
    assert len(texts) == 2
    assert all("A title" in text for text in texts)
    assert all(any(f"{number}.jpg" in text for text in texts) for number in range(1, 46))
    assert "yes (0.90)" in texts[0]
    assert "2021-02-03 wedding" in texts[0]
    assert [len(page.images) for page in reader.pages] == [1, 0]


def test_a_contact_sheet_begins_with_the_person_and_the_filters_on_its_first_page_only(tmp_path: Path) -> None:
    matches = [listed(number, path=f"/photos/{number}.jpg") for number in range(1, 46)]
    crops = [encoded(kind="JPEG"), encoded((9, 90, 9), kind="JPEG")]
    sheet = contact_sheet(
        matches, ThumbStore(tmp_path), BANDS, WORDS, "A title", crops=crops, lines=["Filters: 2021"],
        decimal=lambda number: number.replace(".", ","),
    )  # fmt: skip
    first, second = PdfReader(io.BytesIO(sheet)).pages
    assert [len(page.images) for page in (first, second)] == [2, 0]
    assert "Filters: 2021" in first.extract_text()
    assert "Filters: 2021" not in second.extract_text()
    assert "yes (0,90)" in first.extract_text()
    texts = first.extract_text() + second.extract_text()
    assert all(f"{number}.jpg" in texts for number in range(1, 46))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_contact_sheet_takes_any_name(name: bytes, tmp_path: Path) -> None:
    match = listed(path=os.fsdecode(b"/photos/" + name))
    assert len(PdfReader(io.BytesIO(contact_sheet([match], ThumbStore(tmp_path), BANDS, WORDS, "t"))).pages) == 1


@pytest.mark.parametrize("fonts", [(), None])
def test_letters_that_the_font_lacks_stop_nothing(
    fonts: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fonts is not None:
        monkeypatch.setattr("app.service.export.sheet_pdf._FONTS", fonts)
    match = listed(path="/photos/\N{HIRAGANA LETTER A}\N{ARABIC LETTER ALEF}\N{GRINNING FACE}.jpg")
    assert PdfReader(io.BytesIO(contact_sheet([match], ThumbStore(tmp_path), BANDS, WORDS, "\N{GRINNING FACE}"))).pages


def test_a_contact_sheet_ends_at_its_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ON_SHEET == 2000
    monkeypatch.setattr("app.service.export.sheet.MAX_ON_SHEET", 2)
    matches = (listed(number, path=f"/photos/name{number}.jpg") for number in range(1, 5))
    text = (
        PdfReader(io.BytesIO(contact_sheet(matches, ThumbStore(tmp_path), BANDS, WORDS, "t"))).pages[0].extract_text()
    )
    assert "name2.jpg" in text
    assert "name3.jpg" not in text
