"""The ledger of earlier versions becomes a catalog, once, and is kept."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app import __version__
from app.catalog import FileRecord, Mount, open_ledger, opening
from app.core.errors import OceanoError
from tests.support.damage import damage_bytes

_FIRST = """
CREATE TABLE files (
    collection TEXT NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, image_id TEXT,
    status TEXT NOT NULL CHECK (status IN ('done', 'no_face', 'failed', 'duplicate')),
    reason TEXT, message TEXT, faces INTEGER NOT NULL DEFAULT 0, updated_at TEXT NOT NULL,
    PRIMARY KEY (collection, path)
) WITHOUT ROWID;
CREATE INDEX files_by_image ON files (collection, image_id);
INSERT INTO files VALUES
    ('c', CAST('/a' AS BLOB), 10, 20, 'i1', 'done', NULL, NULL, 3, '2025-01-01T00:00:00+00:00'),
    ('c', CAST('/copy' AS BLOB), 10, 20, 'i1', 'duplicate', NULL, NULL, 0, '2025-01-01T00:00:00+00:00'),
    ('c', X'2F62FF', 1, 2, NULL, 'failed', 'unreadable', 'no', 0, '2025-01-01T00:00:00+00:00'),
    ('other', CAST('/a' AS BLOB), 10, 20, 'i1', 'no_face', NULL, NULL, 0, '2025-01-01T00:00:00+00:00');
"""
_FIFTH = """
ALTER TABLE files ADD COLUMN ctime_ns INTEGER;
UPDATE files SET ctime_ns = 30 WHERE collection = 'c' AND image_id = 'i1' AND status = 'done';
CREATE TABLE superseded (
    collection TEXT NOT NULL, image_id TEXT NOT NULL, path BLOB NOT NULL, faces INTEGER NOT NULL,
    PRIMARY KEY (collection, image_id)
) WITHOUT ROWID;
INSERT INTO superseded VALUES ('c', 'i0', CAST('/a' AS BLOB), 2);
CREATE TABLE mounts (place BLOB NOT NULL, point BLOB NOT NULL, PRIMARY KEY (place, point)) WITHOUT ROWID;
INSERT INTO mounts VALUES (CAST('/photos' AS BLOB), CAST('/media/b' AS BLOB));
CREATE TABLE unsettled (
    collection TEXT NOT NULL, image_id TEXT NOT NULL, PRIMARY KEY (collection, image_id)
) WITHOUT ROWID;
INSERT INTO unsettled VALUES ('c', 'i9');
"""
VERSIONS = {1: _FIRST, 5: _FIRST + _FIFTH}


@pytest.fixture(params=sorted(VERSIONS))
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a ledger of a version."""
    write(tmp_path / "ledger.sqlite3", request.param)
    return tmp_path


def write(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSIONS.get(version, _FIRST) + f"PRAGMA user_version = {version};")


def test_all_rows_are_taken_over_and_the_ledger_is_kept(state: Path) -> None:
    original = (state / "ledger.sqlite3").read_bytes()
    is_fifth = b"superseded" in original
    for _ in range(2):
        with closing(open_ledger(state / "catalog.sqlite3", "c")) as ledger:
            assert list(ledger.files("/")) == [
                FileRecord("/a", 10, 20, "i1", "done", 3, ctime_ns=30 if is_fifth else None),
                FileRecord(os.fsdecode(b"/b\xff"), 1, 2, None, "failed", 0, "unreadable", "no"),
                FileRecord("/copy", 10, 20, "i1", "duplicate"),
            ]
            assert ledger.replaced() == ([("i0", 2)] if is_fifth else [])
            assert ledger.mounts() == ([Mount("/photos", "/media/b")] if is_fifth else [])
            assert ledger.unsettled(9) == (["i9"] if is_fifth else ["i1"])
    with closing(open_ledger(state / "catalog.sqlite3", "other")) as ledger:
        assert [one.status for one in ledger.files("/")] == ["no_face"]
    assert (state / f"ledger.sqlite3.before-{__version__}").read_bytes() == original
    assert not (state / "ledger.sqlite3").exists()


@pytest.mark.parametrize("moment", ["rows", "rename"])
def test_a_kill_while_it_is_taken_over_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class KilledError(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise KilledError

    write(tmp_path / "ledger.sqlite3", 5)
    with monkeypatch.context() as patched:
        patched.setattr(
            "app.catalog.adoption._copy_table" if moment == "rows" else "app.catalog.opening.put_aside", kill
        )
        with pytest.raises(KilledError):
            open_ledger(tmp_path / "catalog.sqlite3", "c")
    with closing(open_ledger(tmp_path / "catalog.sqlite3", "c")) as ledger:
        assert [one.path for one in ledger.files("/")] == ["/a", os.fsdecode(b"/b\xff"), "/copy"]
    assert sorted(path.name for path in tmp_path.glob("*ledger*")) == [f"ledger.sqlite3.before-{__version__}"]


def test_a_ledger_of_a_newer_oceano_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    write(tmp_path / "ledger.sqlite3", 99)
    before = (tmp_path / "ledger.sqlite3").read_bytes()
    for _ in range(2):
        with pytest.raises(OceanoError, match=r"newer Oceano \(version 99\)"):
            open_ledger(tmp_path / "catalog.sqlite3", "c")
    assert (tmp_path / "ledger.sqlite3").read_bytes() == before


def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_bytes(b"rubbish" * 1000)
    with pytest.raises(OceanoError, match=r"ledger\.sqlite3 cannot be read") as raised:
        open_ledger(tmp_path / "catalog.sqlite3", "c")
    assert raised.value.code == "ledger_unavailable"


def test_a_ledger_whose_schema_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE files (path)")
        old.commit()
    damage_bytes(path, b"CREATE TABLE files", b"CREATE \xffABLE files")
    with pytest.raises(OceanoError, match=r"ledger\.sqlite3 cannot be read") as raised:
        open_ledger(tmp_path / "catalog.sqlite3", "c")
    assert raised.value.code == "ledger_unavailable"


def test_the_name_of_the_earlier_file_is_that_of_earlier_versions() -> None:
    assert opening.EARLIER_LEDGER == "ledger.sqlite3"


def test_a_transaction_that_was_cut_off_is_not_taken_over(tmp_path: Path) -> None:
    source, state = tmp_path / "source", tmp_path / "state"
    source.mkdir()
    state.mkdir()
    write(source / "ledger.sqlite3", 5)
    names = ("ledger.sqlite3", "ledger.sqlite3-journal")
    with closing(sqlite3.connect(source / names[0], isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = 1")  # pages are written before the commit
        connection.executemany(
            "INSERT INTO files VALUES ('d', CAST(? AS BLOB), 1, 2, 'i', 'done', NULL, NULL, 1, '', NULL)",
            [(f"/{number}",) for number in range(40)],
        )
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE files SET status = 'failed', message = printf('%.5000c', 'x')")
        for name in names:  # as if the process was killed now
            shutil.copyfile(source / name, state / name)
    assert b"x" * 1000 in (state / names[0]).read_bytes()
    with closing(open_ledger(state / "catalog.sqlite3", "c")) as ledger:
        assert [one.status for one in ledger.files("/")] == ["done", "failed", "duplicate"]
    kept = f"ledger.sqlite3.before-{__version__}"
    assert sorted(path.name for path in state.glob("*ledger*")) == [kept, f"{kept}-journal"]
