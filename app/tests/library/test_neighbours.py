"""neighbours: natural order in a folder, and copies; by time see test_pictures."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from app.catalog import FileRecord, Ledger, open_ledger
from app.library import neighbours
from app.library.natural import natural_key
from app.library.neighbours import FolderOrder, Neighbours


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path / "catalog.sqlite3", "faces__a__1")


@pytest.fixture
def order(ledger: Ledger) -> FolderOrder:
    return FolderOrder(ledger)


def _done(path: str, image_id: str = "i1", faces: int = 1) -> FileRecord:
    return FileRecord(path, 10, 20, image_id, "done", faces)


def _both_sides(order: FolderOrder, path: str) -> tuple[str | None, str | None]:
    found = order.beside(path)
    return found.previous, found.next


def _walk(order: FolderOrder, first: str) -> list[str]:
    """The names from the first one to the last, by what is next; in these tests an image_id is a name."""
    names = [first]
    while (found := order.beside(f"/p/{names[-1]}").next) is not None:
        assert order.beside(f"/p/{found}").previous == names[-1]
        names.append(found)
    return names


# natural order


@pytest.mark.parametrize(
    "names",
    [
        ["IMG_2.jpg", "IMG_10.jpg", "IMG_100.jpg"],
        ["img_1.jpg", "IMG_2.JPG", "img_3.jpg", "Img_20.jpg"],
        ["a.jpg", "B.jpg", "c.jpg", "Ñ.jpg"],
        ["2.jpg", "10.jpg", "a.jpg"],
        ["1 of 9.jpg", "1 of 10.jpg", "2 of 9.jpg"],
        ["0.jpg", "1.jpg", "007.jpg", "08.jpg", "9.jpg"],
        ["a-1.jpg", "a1.jpg", "aa.jpg"],
        ["9" * 30 + ".jpg", "1" + "0" * 200 + ".jpg"],
        ["2019-06-09 photo 9.jpg", "2019-06-09 photo 10.jpg", "2019-06-10 photo 1.jpg"],
    ],
)
def test_the_neighbours_in_a_folder_are_in_natural_order(ledger: Ledger, order: FolderOrder, names: list[str]) -> None:
    shuffled = random.Random(1).sample(names, len(names))
    ledger.record([_done(f"/p/{name}", name) for name in shuffled])
    assert _walk(order, names[0]) == names


def test_names_that_differ_only_in_case_or_zeros_have_one_order(ledger: Ledger, order: FolderOrder) -> None:
    names = ["IMG_1.jpg", "IMG_01.JPG", "img_1.jpg", "img_001.jpg"]
    assert len({natural_key(name.encode()) for name in names}) == 1
    ledger.record([_done(f"/p/{name}", name) for name in names])
    assert _walk(order, "IMG_01.JPG") == sorted(names)


def test_the_order_of_a_folder_follows_the_ledger(
    tmp_path: Path, ledger: Ledger, order: FolderOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_FRESH_SECONDS", 0.0)
    ledger.record([_done("/p/1", "1"), _done("/p/10", "10")])
    assert _walk(order, "1") == ["1", "10"]
    open_ledger(tmp_path / "catalog.sqlite3", "faces__a__1").record([_done("/p/9", "9")])  # another process
    assert _walk(order, "1") == ["1", "9", "10"]
    ledger.record([_done("/p/2", "2")], delete=["/p/10"])
    assert _walk(order, "1") == ["1", "2", "9"]


def test_names_are_read_once_while_the_ledger_stays_as_it_is(
    ledger: Ledger, order: FolderOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.record([_done(f"/{folder}/{name}", name) for folder in "abc" for name in "xyz"])
    read = []
    names_in = ledger.names_in
    monkeypatch.setattr(ledger, "names_in", lambda folder: read.append(folder) or names_in(folder))
    monkeypatch.setattr(neighbours, "_FOLDERS", 2)
    for folder in "aabbac":
        assert order.beside(f"/{folder}/y") == Neighbours("x", "z")
    assert read == [b"/a", b"/b", b"/c"]
    order.beside("/b/y")
    assert read[3:] == [b"/b"], "only the last folders are kept"


def test_during_an_ingest_a_new_order_is_made_only_now_and_then(ledger: Ledger, order: FolderOrder) -> None:
    ledger.record([_done(f"/p/{name}", name) for name in "123"])
    assert order.beside("/p/1").next == "2"
    ledger.record([_done("/p/11", "11")], delete=["/p/2"])
    assert order.beside("/p/1").next == "3", "one that is gone is left out at once"


def test_a_folder_between_many_others_has_its_own_files_only(ledger: Ledger, order: FolderOrder) -> None:
    inside = [f"/p/{name}{end}" for name in range(0, 600, 2) for end in ("/a", "/b/c", "0", ".jpg")]
    ledger.record([_done(path, path[3:]) for path in inside])
    own = {path[3:] for path in inside if "/" not in path[3:]}
    assert set(_walk(order, "00")) == own


# copies


def test_the_images_beside_a_file_are_those_of_its_folder_by_name(ledger: Ledger, order: FolderOrder) -> None:
    names = ("/p/a.jpg", "/p/b.jpg", "/p/c.jpg", "/p/b/0.jpg", "/p/bz/0.jpg", "/p2/a.jpg", "/o/z.jpg", "/p.jpg")
    ledger.record([_done(name, name) for name in names])
    found = [_both_sides(order, f"/p/{name}.jpg") for name in "abc"]
    assert found == [(None, "/p/b.jpg"), ("/p/a.jpg", "/p/c.jpg"), ("/p/b.jpg", None)]
    assert _both_sides(order, "/p/bb.jpg") == ("/p/b.jpg", "/p/c.jpg")  # a file that is not known
    assert _both_sides(order, "/p.jpg") == (None, None)


def test_copies_of_images_with_faces_are_beside_a_file_and_others_are_not(ledger: Ledger, order: FolderOrder) -> None:
    ledger.record([_done("/p/m.jpg", "m"), _done("/far/away.jpg", "copied")])
    ledger.record([
        FileRecord("/p/n.jpg", 1, 1, "empty", "no_face"),
        FileRecord("/p/o.jpg", 1, 1, None, "failed", 0, "unreadable", "no"),
        FileRecord("/p/q.jpg", 1, 1, "empty", "duplicate"),
        FileRecord("/p/r.jpg", 1, 1, "copied", "duplicate"),
    ])  # fmt: skip
    assert _both_sides(order, "/p/m.jpg") == (None, "copied")


def test_files_of_any_bytes_and_in_the_topmost_folder_have_neighbours(ledger: Ledger, order: FolderOrder) -> None:
    names = [os.fsdecode(name) for name in (b"/1", b"/2\xff%_*'", b"/\xff\xff")]
    ledger.record([_done(name, f"i{place}") for place, name in enumerate(names)])
    assert [_both_sides(order, name) for name in names] == [(None, "i1"), ("i0", "i2"), ("i1", None)]


def test_a_copy_in_the_folder_of_its_image_does_not_lead_back_to_it(ledger: Ledger, order: FolderOrder) -> None:
    ledger.record([_done(f"/p/{name}.jpg", name) for name in "acf"])
    ledger.record([FileRecord(f"/p/{name}.jpg", 1, 1, "a", "duplicate") for name in "bde"])
    assert [_both_sides(order, f"/p/{name}.jpg") for name in "acf"] == [(None, "c"), ("a", "f"), ("c", None)]
