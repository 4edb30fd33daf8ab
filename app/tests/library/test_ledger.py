"""ledger: results that survive."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.errors import OceanoError
from app.library.ledger import Ledger
from app.library.mounts import Mount
from app.library.records import FileRecord, Totals
from app.library.writer_lock import only_writer
from tests.support.damage import lose_rows


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state" / "ledger.sqlite3", "faces__a__1")


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


def test_all_paths_of_an_image_are_listed(ledger: Ledger) -> None:
    ledger.record([_done("/b"), FileRecord("/a", 1, 1, "i1", "duplicate"), _done("/c", "i2")])
    assert ledger.paths_of("i1") == ["/a", "/b"]


def test_collections_do_not_see_each_other(tmp_path: Path) -> None:
    one = Ledger(tmp_path / "l.sqlite3", "faces__a__1")
    other = Ledger(tmp_path / "l.sqlite3", "faces__b__2")
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


def test_superseded_images_of_collections_do_not_mix(tmp_path: Path) -> None:
    one, other = (Ledger(tmp_path / "l.sqlite3", name) for name in ("faces__a__1", "faces__b__2"))
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


def test_a_ledger_of_the_first_version_is_brought_up_to_date_with_its_rows_intact(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "l.sqlite3") as db:
        db.executescript("""
            CREATE TABLE files (
                collection TEXT NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
                image_id TEXT,
                status TEXT NOT NULL CHECK (status IN ('done', 'no_face', 'failed', 'duplicate')),
                reason TEXT, message TEXT, faces INTEGER NOT NULL DEFAULT 0, updated_at TEXT NOT NULL,
                PRIMARY KEY (collection, path)
            ) WITHOUT ROWID;
            CREATE INDEX files_by_image ON files (collection, image_id);
            INSERT INTO files VALUES
                ('c', CAST('/a' AS BLOB), 10, 20, 'i1', 'done', NULL, NULL, 3, '2025-01-01T00:00:00+00:00'),
                ('c', X'2F62FF', 1, 2, NULL, 'failed', 'unreadable', 'no', 0, '2025-01-01T00:00:00+00:00');
            PRAGMA user_version = 1;
        """)
    db.close()
    for _ in ("the first time", "again"):
        ledger = Ledger(tmp_path / "l.sqlite3", "c")
        assert list(ledger.files("/")) == [
            FileRecord("/a", 10, 20, "i1", "done", 3),
            FileRecord(os.fsdecode(b"/b\xff"), 1, 2, None, "failed", 0, "unreadable", "no"),
        ]
        assert ledger.replaced() == []
        assert ledger._database._connection.execute("PRAGMA user_version").fetchone()[0] == 5
        assert ledger.mounts() == []
        ledger.close()
    ledger = Ledger(tmp_path / "l.sqlite3", "c")
    ledger.record([_done("/a", "i2")])
    assert ledger.replaced() == [("i1", 3)]


def test_mounts_are_noted_once_whatever_their_names_and_a_backup_brings_them(ledger: Ledger, tmp_path: Path) -> None:
    odd = os.fsdecode(b"/media/\xff")
    stick, link, strange = Mount("/media/b", "/media/b"), Mount("/photos", "/media/b"), Mount(odd, odd)
    ledger.record_mounts([stick, link, strange])
    ledger.record_mounts([stick])
    assert ledger.mounts() == [stick, strange, link]
    ledger.backup(tmp_path / "kept.sqlite3")
    other = Ledger(tmp_path / "other.sqlite3", "c")
    other.record_mounts([Mount("/media/a", "/media/a")])
    other.merge(tmp_path / "kept.sqlite3")
    assert other.mounts() == [Mount("/media/a", "/media/a"), stick, strange, link]


def test_the_journal_is_truncate_and_fully_synchronised(ledger: Ledger) -> None:
    assert ledger._database._connection.execute("PRAGMA journal_mode").fetchone()[0] == "truncate"
    assert ledger._database._connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_second_connection_reads_while_the_first_stays_open(tmp_path: Path) -> None:
    writer = Ledger(tmp_path / "l.sqlite3", "c")
    reader = Ledger(tmp_path / "l.sqlite3", "c")
    writer.record([_done("/a")])
    assert reader.totals() == Totals(done=1, faces=1)


def test_a_file_that_is_no_database_is_ledger_unavailable(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite3").write_bytes(b"rubbish" * 1000)
    with pytest.raises(OceanoError) as raised:
        Ledger(tmp_path / "l.sqlite3", "c")
    assert raised.value.code == "ledger_unavailable"


def test_a_ledger_of_a_newer_oceano_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "l.sqlite3") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OceanoError, match="newer"):
        Ledger(tmp_path / "l.sqlite3", "c")


def test_a_full_disk_is_said_as_disk_full(ledger: Ledger) -> None:
    pages = ledger._database._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._database._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OceanoError) as raised:
        ledger.record([_done(f"/{place:0100}", str(place)) for place in range(1000)])
    assert raised.value.code == "disk_full"
    assert ledger.totals() == Totals()


def test_a_second_ingest_at_the_same_time_is_refused(tmp_path: Path) -> None:
    with only_writer(tmp_path / "state"):
        with pytest.raises(OceanoError) as raised, only_writer(tmp_path / "state"):
            pass
        assert raised.value.code == "ingest_in_progress"
    with only_writer(tmp_path / "state"):
        pass


def test_a_write_that_fails_leaves_no_transaction_open(ledger: Ledger) -> None:
    ledger.record([_done("/a", "i1")])
    with pytest.raises(OceanoError, match="ledger_unavailable"):
        ledger.delete_images([object()])  # type: ignore[list-item]
    assert not ledger._database._connection.in_transaction
    assert len(list(ledger.files("/"))) == 1


def test_a_ctime_is_kept_and_only_a_missing_one_is_filled_in(ledger: Ledger) -> None:
    ledger.record([replace(_done("/a", "i1"), ctime_ns=5), _done("/b", "i2")])
    ledger.record_ctimes({"/a": 6, "/b": 7, "/c": 8})
    assert [(one.path, one.ctime_ns) for one in ledger.files("/")] == [("/a", 5), ("/b", 7)]


def _damage(path: Path) -> None:
    """Damage a ledger with 2,000 rows."""
    ledger = Ledger(path, "c")
    ledger.record([_done(f"/{place:0200}", f"{place}") for place in range(2000)])
    ledger.check()
    ledger.close()
    lose_rows(path)


def test_a_damaged_ledger_is_found_by_the_check(tmp_path: Path) -> None:
    _damage(tmp_path / "l.sqlite3")
    with closing(Ledger(tmp_path / "l.sqlite3", "c")) as ledger, pytest.raises(OceanoError) as raised:
        ledger.check()
    assert raised.value.code == "ledger_unavailable"


def test_a_ledger_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    Ledger(tmp_path / "state" / "l.sqlite3", "c").close()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / "l.sqlite3").stat().st_mode & 0o777 == 0o600


def test_without_locks_an_ingest_is_refused_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("app.core.locks.fcntl.flock", unsupported)
    with pytest.raises(OceanoError, match="without locks") as raised, only_writer(tmp_path / "state"):
        pass
    assert (raised.value.code, raised.value.exit_code) == ("ledger_unavailable", 3)
