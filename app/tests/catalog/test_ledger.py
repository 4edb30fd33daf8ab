"""ledger: results that survive."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from app.catalog import FileRecord, Ledger, Totals
from app.catalog.database import Database
from app.core.errors import OceanoError


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, "faces__a__1")


def _done(path: str, image_id: str = "i1", faces: int = 1) -> FileRecord:
    return FileRecord(path, 10, 20, image_id, "done", faces)


def test_what_was_recorded_is_found_by_path_and_by_image(ledger: Ledger) -> None:
    record = FileRecord("/a/1.jpg", 10, 20, "i1", "done", 3)
    ledger.record([record])
    assert ledger.file("/a/1.jpg") == record
    assert ledger.image("i1") == record
    assert ledger.file("/a/2.jpg") is None
    assert ledger.image("i2") is None


def test_a_later_result_of_the_same_path_replaces_the_earlier(ledger: Ledger) -> None:
    ledger.record([FileRecord("/a", 1, 1, None, "failed", 0, "unreadable", "no")])
    ledger.record([_done("/a")])
    assert ledger.totals() == Totals(done=1, faces=1)


def test_a_copy_or_a_failure_does_not_stand_for_an_image(ledger: Ledger) -> None:
    ledger.record([
        FileRecord("/copy", 1, 1, "i1", "duplicate"),
        FileRecord("/bad", 1, 1, "i2", "failed", 0, "invalid_image", "damaged"),
    ])  # fmt: skip
    assert ledger.image("i1") is None
    assert ledger.image("i2") is None


def test_the_files_that_represent_several_images_are_found_at_once(ledger: Ledger) -> None:
    ledger.record([
        _done("/b"), _done("/a"), FileRecord("/copy", 1, 1, "i1", "duplicate"),
        FileRecord("/none", 1, 1, "i2", "no_face"), FileRecord("/bad", 1, 1, "i3", "failed", 0, "invalid_image", "no"),
        *(_done(f"/many/{number}", f"many{number}") for number in range(600)),
    ])  # fmt: skip
    asked = ["i1", "i2", "i3", "i4", *(f"many{number}" for number in range(600))]
    found = ledger.originals(asked)
    assert found == {one: record for one in asked if (record := ledger.image(one)) is not None}
    assert len(found) == 602
    assert found["i1"].path == "/a"
    assert ledger.originals([]) == {}


def test_all_paths_of_an_image_are_listed(ledger: Ledger) -> None:
    ledger.record([_done("/b"), FileRecord("/a", 1, 1, "i1", "duplicate"), _done("/c", "i2")])
    assert ledger.paths_of("i1") == ["/a", "/b"]


def test_collections_do_not_see_each_other(database: Database) -> None:
    one = Ledger(database, "faces__a__1")
    other = Ledger(database, "faces__b__2")
    one.record([_done("/a")])
    assert other.file("/a") is None
    assert other.totals() == Totals()


def test_a_path_of_any_bytes_comes_back_as_it_was(ledger: Ledger) -> None:
    path = os.fsdecode(b"/a/\xff\xfe \n'\";.jpg")
    ledger.record([_done(path)])
    found = ledger.file(path)
    assert found is not None
    assert os.fsencode(found.path) == b"/a/\xff\xfe \n'\";.jpg"


def test_files_without_faces_are_listed_below_a_folder_only(ledger: Ledger) -> None:
    ledger.record([FileRecord(path, 1, 1, None, "failed", 0, "unreadable", "no") for path in ("/a/1", "/ab/2", "/a")])
    ledger.record([FileRecord("/a/3", 1, 1, "i", "no_face"), _done("/a/4")])
    assert [record.path for record in ledger.without_faces("/a")] == ["/a", "/a/1", "/a/3"]
    assert [record.path for record in ledger.without_faces("/")] == ["/a", "/a/1", "/a/3", "/ab/2"]


def test_long_listings_come_in_pages_without_gaps(ledger: Ledger) -> None:
    paths = [f"/a/{place:05}" for place in range(2500)]
    ledger.record([_done(path, path) for path in paths])
    assert [record.path for record in ledger.images()] == paths


def test_a_transaction_is_whole_or_not_at_all(ledger: Ledger) -> None:
    wrong = FileRecord("/b", 1, 1, None, "nonsense")  # type: ignore[arg-type]
    with pytest.raises(OceanoError) as raised:
        ledger.record([_done("/a"), wrong])
    assert raised.value.code == "ledger_unavailable"
    assert ledger.file("/a") is None
    ledger.record([_done("/a")])
    assert ledger.file("/a") is not None


def test_a_forgotten_image_is_forgotten_at_all_its_paths(ledger: Ledger) -> None:
    ledger.record([_done("/a"), FileRecord("/b", 1, 1, "i1", "duplicate"), _done("/c", "i2")])
    ledger.delete_images(["i1"])
    assert ledger.file("/a") is None
    assert ledger.file("/b") is None
    assert ledger.file("/c") is not None


def test_what_is_forgotten_and_what_is_recorded_are_one_transaction(ledger: Ledger) -> None:
    ledger.record([_done("/a"), FileRecord("/b", 1, 1, "i1", "duplicate"), _done("/c", "i2")])
    wrong = FileRecord("/d", 1, 1, None, "nonsense")  # type: ignore[arg-type]
    with pytest.raises(OceanoError):
        ledger.record([wrong], delete=["/a", "/c"])
    assert [one.path for one in ledger.files("/")] == ["/a", "/b", "/c"]
    ledger.record([_done("/b")], delete=["/a", "/never there"])
    assert list(ledger.files("/")) == [_done("/b"), _done("/c", "i2")]


def test_a_path_that_is_forgotten_and_recorded_is_there(ledger: Ledger) -> None:
    ledger.record([_done("/a")])
    ledger.record([_done("/a", "i2")], delete=["/a"])
    assert list(ledger.files("/")) == [_done("/a", "i2")]


def test_forgetting_takes_a_path_of_any_bytes(ledger: Ledger) -> None:
    path = os.fsdecode(b"/a/\xff.jpg")
    ledger.record([_done(path)])
    ledger.record([], delete=[path])
    assert list(ledger.files("/")) == []


def test_an_image_whose_file_became_another_one_is_superseded_until_it_is_seen_to(ledger: Ledger) -> None:
    ledger.record([_done("/a", "i1", faces=3), _done("/b", "i2", faces=2)])
    assert ledger.replaced() == []
    ledger.record([_done("/a", "i3"), FileRecord("/b", 1, 1, None, "failed", 0, "unreadable", "no")])
    assert ledger.replaced() == [("i1", 3), ("i2", 2)]
    ledger.delete_replaced("i1")
    ledger.delete_replaced("never there")
    assert ledger.replaced() == [("i2", 2)]


def test_only_an_image_with_faces_that_was_replaced_is_superseded(ledger: Ledger) -> None:
    ledger.record([
        _done("/same"),
        FileRecord("/copy", 1, 1, "i1", "duplicate"),
        FileRecord("/bad", 1, 1, None, "failed", 0, "unreadable", "no"),
        FileRecord("/empty", 1, 1, "i2", "no_face"),
        _done("/forgotten", "i3"),
    ])  # fmt: skip
    ledger.record(
        [FileRecord("/same", 10, 99, "i1", "done", 1), *(_done(path, "i4") for path in ("/copy", "/bad", "/empty"))],
        delete=["/forgotten"],
    )
    assert ledger.replaced() == []


def test_superseded_images_of_collections_do_not_mix(database: Database) -> None:
    one, other = (Ledger(database, name) for name in ("faces__a__1", "faces__b__2"))
    for ledger in (one, other):
        ledger.record([_done("/a", "i1")])
        ledger.record([_done("/a", "i2")])
    other.delete_replaced("i1")
    assert (one.replaced(), other.replaced()) == ([("i1", 1)], [])


def test_all_files_of_an_image_are_listed_with_their_results(ledger: Ledger) -> None:
    copy, bad = FileRecord("/a", 1, 1, "i1", "duplicate"), FileRecord("/c", 1, 1, "i1", "failed", 0, "internal", "oh")
    ledger.record([_done("/b"), copy, bad, _done("/d", "i2")])
    assert ledger.files_of("i1") == [copy, _done("/b"), bad]
    assert ledger.files_of("i3") == []


def test_all_files_are_listed_below_a_folder_only(ledger: Ledger) -> None:
    records = [
        _done("/a/1"),
        FileRecord("/a/2", 1, 1, "i1", "duplicate"),
        FileRecord("/a/b/3", 1, 1, "i3", "no_face", 0, "face_not_found", "none"),
        FileRecord("/a/b/4", 1, 1, None, "failed", 0, "unreadable", "no"),
        _done("/ab/5", "i5"),
    ]
    ledger.record(records)
    assert list(ledger.files("/a")) == list(ledger.files("/a/")) == records[:4]
    assert list(ledger.files("/a/b")) == records[2:4]
    assert list(ledger.files("/")) == records
    assert list(ledger.files("/%")) == []


def test_files_that_are_forgotten_while_they_are_listed_leave_no_gaps(ledger: Ledger) -> None:
    paths = [f"/a/{place:05}" for place in range(2500)]
    ledger.record([_done(path, path) for path in paths])
    seen = []
    for known in ledger.files("/a"):
        seen.append(known.path)
        if len(seen) % 100 == 0:
            ledger.record([], delete=seen[-100:])
    assert seen == paths
    assert list(ledger.files("/a")) == []


def test_a_ctime_is_kept_and_only_a_missing_one_is_filled_in(ledger: Ledger) -> None:
    ledger.record([replace(_done("/a", "i1"), ctime_ns=5), _done("/b", "i2")])
    ledger.record_ctimes({"/a": 6, "/b": 7, "/c": 8})
    assert [(one.path, one.ctime_ns) for one in ledger.files("/")] == [("/a", 5), ("/b", 7)]


def test_a_message_with_what_no_database_stores_is_recorded(ledger: Ledger) -> None:
    ledger.record([FileRecord("/a", 1, 2, None, "failed", reason="unreadable", message="a\0b \udcff \u00e9")])
    (record,) = ledger.files("/")
    assert record.message == "a\ufffdb ? \u00e9"
