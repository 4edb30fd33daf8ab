"""Backups, restores and migrations between catalogs of either kind."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, insert, select, text, update

from app.catalog import (
    FileRecord,
    Ledger,
    Mount,
    Stopped,
    back_up,
    migrate,
    open_ledger,
    open_postgresql,
    open_sqlite,
    require_no_workers,
    restore,
)
from app.catalog.copying import COPIED, NOT_COPIED, digest_of
from app.catalog.database import Database, rows
from app.catalog.tables import (
    ASSIGNMENTS,
    AUDIT,
    CHANGED_PEOPLE,
    CHANGED_ROWS,
    CHANGES,
    CLAIMS,
    COPIED_NAMES,
    DISMISSALS,
    FACES,
    FILES,
    INDEXES,
    JOBS,
    KEYS,
    METADATA,
    PEOPLE,
    PROBLEMS,
    REJECTIONS,
    RESERVATIONS,
    SUPPRESSION,
    UNSETTLED,
    WORKERS,
)
from app.core.errors import OceanoError
from tests.support.catalogs import KINDS, new_catalog

RECORDS = [
    FileRecord("/a", 1, 2, "i1", "done", 3, ctime_ns=4),
    FileRecord("/b", 1, 2, "i1", "duplicate"),
    FileRecord("/c\udcff\n'\"\\", 1 << 40, -5, None, "failed", 0, "unreadable", "no"),
]
AT = "2026-01-02T03:04:05+00:00"
STATES = ("queued", "running", "stopping", "done", "failed", "interrupted")


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A second empty catalog of either kind."""
    with new_catalog(request.param, tmp_path / "other") as opened:
        yield opened


def job(name: str, **others: object) -> dict[str, object]:
    ended = AT if name in ("done", "failed", "interrupted") else None
    return {
        "id": f"job-{name}", "collection": "c", "kind": "ingest", "folder": b"/photos\xff", "options": "{}",
        "state": name, "shared": 1, "phase": "files", "holder": "w1", "counts": '{"done": 7}', "started_by": "ana",
        "created_at": AT, "started_at": AT, "ended_at": ended, "error": None, "message": None, **others,
    }  # fmt: skip


def fill(database: Database) -> None:
    """Write rows into every table, of two collections."""
    ledger = Ledger(database, "c")
    ledger.record([FileRecord("/a", 1, 2, "i0", "done", 2)])
    ledger.record(RECORDS)
    ledger.record_mounts([Mount("/photos", "/media/b")])
    Ledger(database, "d").record(RECORDS[:1])
    claim = {"job_id": "job-running", "size": 1, "mtime_ns": 2}
    added: list[tuple[Table, list[dict[str, Any]]]] = [
        (JOBS, [job(state) for state in STATES]),
        (PROBLEMS, [{"job_id": "job-done", "key": b"k", "path": b"/c\xff", "code": "invalid_image", "message": "no"}]),
        (WORKERS, [{"id": "w1", "name": "host 7", "job_id": "job-running", "leased_until": 5}]),
        (CLAIMS, [{**claim, "number": n, "key": b"%d" % n, "path": b"/%d" % n, "worker": "w1"} for n in range(3)]),
        (RESERVATIONS, [{"collection": "c", "image_id": "i5", "worker": "w1"}]),
        (INDEXES, [{"collection": "c", "id": "x", "name": "QDRANT_URL=http://host:6333", "added_at": AT}]),
        (PEOPLE, [{"id": f"p{n}", "name": f"Ana Núñez {n}"} for n in (1, 2)]),
        (ASSIGNMENTS, [{"id": f"a{n}", "person_id": "p1", "source": "manual", "x1": 0.1 * n} for n in range(4)]),
        (REJECTIONS, [{"id": "r1", "person_id": "p2", "image_id": "i1"}]),
        (DISMISSALS, [{"id": "d1", "kind": "set_aside", "image_id": "i1"}]),
        (CHANGES, [{"number": n, "who": "ana", "kind": "assign"} for n in (1, 2)]),
        (CHANGED_ROWS, [{"change": 2, "place": n, "table_name": "people", "row_id": "p1"} for n in (0, 1)]),
        (CHANGED_PEOPLE, [{"change": 2, "person_id": "p1"}]),
        (COPIED_NAMES, [{"collection": "c", "change": 2}]),
        (FACES, [{"collection": name, "face_id": "f1", "person_id": "p1"} for name in ("c", "d")]),
        (KEYS, [{"id": "k1", "digest": "d1", "role": "reader"}]),
        (AUDIT, audit(3)),
        (SUPPRESSION, [{"id": "s1", "embedding": bytes(range(256))}]),
    ]
    with database.writing() as connection:
        for table, values in added:
            connection.execute(insert(table), [row(table, **one) for one in values])


def row(table: Table, **values: object) -> dict[str, object]:
    """Add the columns that must have a value and that no test looks at."""
    needed = [column for column in table.columns if not (column.nullable or column.server_default)]
    return {column.name: column.type.python_type() for column in needed if column.name not in values} | values


def audit(entries: int, *, since: int = 1, chain: str = "") -> list[dict[str, Any]]:
    numbers = range(since, since + entries)
    return [
        {"number": n, "at": AT, "who": "ana", "action": "search", "details": "{}", "digest": f"{chain}{n}"}
        for n in numbers
    ]


def content(database: Database, table: Table) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in rows(database, select(table))}


def require_copy(original: Database, copy: Database, *, restored: bool = False) -> None:
    """Require all rows in the copy, except workers and their parts; jobs have ended."""
    assert {table.name for table in (*COPIED, *NOT_COPIED)} == set(METADATA.tables)
    for table in COPIED:
        expected = content(original, table)
        assert expected, f"the test has no row of {table.name}"
        if restored and table in (FACES, FILES):
            expected = {row for row in expected if row[0] == "c"}
        if restored and table is UNSETTLED:
            expected |= {("c", "i1")}  # it has two files
        if table is not JOBS:
            assert content(copy, table) == expected, table.name
    assert {table.name for table in NOT_COPIED if content(copy, table)} == set()
    jobs = {row.id: row for row in rows(copy, select(JOBS))}
    assert {name: row.state for name, row in jobs.items()} == {
        "job-queued": "interrupted", "job-running": "interrupted", "job-stopping": "interrupted",
        "job-done": "done", "job-failed": "failed", "job-interrupted": "interrupted",
    }  # fmt: skip
    assert all(row.ended_at for row in jobs.values())
    resumable = [row for row in jobs.values() if row.state != "done"]
    assert {(row.phase, row.holder, row.shared, row.counts) for row in resumable} == {("scan", None, 0, '{"done": 7}')}
    done = jobs["job-done"]
    assert (done.phase, done.shared, done.folder, done.ended_at) == ("files", 1, b"/photos\xff", AT)


def test_the_database_numbers_no_rows_by_itself() -> None:
    """Else a copy had to let PostgreSQL's sequences go on after the copied rows."""
    assert [table.name for table in METADATA.sorted_tables if table.autoincrement_column is not None] == []


def test_a_backup_of_either_kind_restores_everything_into_an_empty_catalog_of_either_kind(
    database: Database, target: Database, tmp_path: Path
) -> None:
    fill(database)
    backup = tmp_path / "backup"
    backup.mkdir()
    back_up(database, backup / "catalog.sqlite3")
    assert [path.name for path in backup.iterdir()] == ["catalog.sqlite3"]
    before = (backup / "catalog.sqlite3").read_bytes()
    (tmp_path / ".catalog-copy-killed").mkdir()
    assert restore(Ledger(target, "c"), backup, tmp_path).audit
    assert (backup / "catalog.sqlite3").read_bytes() == before
    require_copy(database, target, restored=True)
    assert list(tmp_path.glob(".catalog-copy-*")) == []


def test_a_backup_is_of_one_moment(database: Database, tmp_path: Path) -> None:
    fill(database)
    (tmp_path / "backup").mkdir()
    back_up(database, tmp_path / "backup" / "catalog.sqlite3")
    Ledger(database, "c").record([], delete=["/a"])
    with closing(open_ledger(tmp_path / "backup" / "catalog.sqlite3", "c")) as copy:
        assert list(copy.files("/")) == RECORDS
        assert copy.replaced() == [("i0", 2)]
        assert copy.unsettled(9) == ["i0"]
        assert copy.mounts() == [Mount("/photos", "/media/b")]
    with closing(open_ledger(tmp_path / "backup" / "catalog.sqlite3", "d")) as copy:
        assert list(copy.files("/")) == RECORDS[:1]
        assert content(copy.database, CLAIMS) == set()


def test_rows_written_during_a_backup_of_postgresql_are_not_in_it(postgresql_url: str, tmp_path: Path) -> None:
    written = False

    def write() -> bool:  # asked between the tables and pages
        nonlocal written
        if not written:
            with closing(open_postgresql(postgresql_url)) as second, second.writing() as connection:
                connection.execute(insert(PEOPLE), row(PEOPLE, id="p9", name="Eva"))
                connection.execute(update(ASSIGNMENTS).values(person_id="p9"))
            written = True
        return False

    with closing(open_postgresql(postgresql_url)) as database:
        fill(database)
        people, assignments = content(database, PEOPLE), content(database, ASSIGNMENTS)
        back_up(database, tmp_path / "catalog.sqlite3", write)
    assert written
    with closing(open_sqlite(tmp_path / "catalog.sqlite3")) as copy:
        assert (content(copy, PEOPLE), content(copy, ASSIGNMENTS)) == (people, assignments)


def test_a_restore_into_a_used_catalog_adds_only_what_is_missing(database: Database, tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "backup" / "catalog.sqlite3")) as backup:
        fill(backup)
        Ledger(backup, "d").record(RECORDS)
        backed_up = {table: content(backup, table) for table in (PEOPLE, ASSIGNMENTS, KEYS)}
    newer = FileRecord("/a", 5, 6, "i2", "no_face")
    ledger = Ledger(database, "c")
    ledger.record([newer])
    ledger.record_mounts([Mount("/media/a", "/media/a")])
    with database.writing() as connection:
        connection.execute(insert(JOBS), [job("running", state="done", counts="{}")])
        connection.execute(insert(PEOPLE), row(PEOPLE, id="p1", name="Renamed"))
        connection.execute(insert(KEYS), row(KEYS, id="k7", digest="d1"))
    assert restore(ledger, tmp_path / "backup", tmp_path).audit
    assert list(ledger.files("/")) == [newer, *RECORDS[1:]]
    assert ledger.mounts() == [Mount("/media/a", "/media/a"), Mount("/photos", "/media/b")]
    assert list(Ledger(database, "d").files("/")) == []
    kept = rows(database, select(JOBS.c.state, JOBS.c.counts).where(JOBS.c.id == "job-running"))
    assert [tuple(row) for row in kept] == [("done", "{}")]
    assert len(content(database, JOBS)) == len(STATES)
    assert {row.name for row in rows(database, select(PEOPLE.c.name))} == {"Renamed", "Ana Núñez 2"}
    assert content(database, ASSIGNMENTS) == backed_up[ASSIGNMENTS]
    assert {row[0] for row in content(database, KEYS)} == {"k7"}


@pytest.mark.parametrize(
    ("present", "restored", "numbers"),
    [
        (audit(0), True, [1, 2, 3]),
        (audit(2), True, [1, 2, 3]),
        (audit(3), True, [1, 2, 3]),
        (audit(2, chain="x"), False, [1, 2]),
        (audit(5), False, [1, 2, 3, 4, 5]),
    ],
)
def test_an_audit_is_continued_but_never_mixed_with_another(
    database: Database, tmp_path: Path, present: list[dict[str, Any]], restored: bool, numbers: list[int]
) -> None:
    with closing(open_sqlite(tmp_path / "backup" / "catalog.sqlite3")) as backup:
        fill(backup)
    if present:
        with database.writing() as connection:
            connection.execute(insert(AUDIT), [row(AUDIT, **entry) for entry in present])
    assert restore(Ledger(database, "c"), tmp_path / "backup", tmp_path).audit is restored
    found = rows(database, select(AUDIT.c.number, AUDIT.c.digest).order_by(AUDIT.c.number))
    assert [entry.number for entry in found] == numbers
    assert restored or [entry.digest for entry in found] == [entry["digest"] for entry in present]


def test_copies_in_a_restored_backup_become_unsettled(database: Database, tmp_path: Path) -> None:
    with closing(open_ledger(tmp_path / "backup" / "catalog.sqlite3", "c")) as backup:
        backup.record(RECORDS)
    ledger = Ledger(database, "c")
    restore(ledger, tmp_path / "backup", tmp_path)
    assert ledger.unsettled(9) == ["i1"]


def test_a_stopped_restore_changes_nothing_and_can_be_repeated(database: Database, tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "backup" / "catalog.sqlite3")) as backup:
        fill(backup)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 6

    ledger = Ledger(database, "c")
    with pytest.raises(Stopped):
        restore(ledger, tmp_path / "backup", tmp_path, stop)
    assert len(asked) == 7
    assert [table.name for table in METADATA.sorted_tables if content(database, table)] == []
    assert restore(ledger, tmp_path / "backup", tmp_path).audit
    assert list(ledger.files("/")) == RECORDS


def test_a_migration_carries_everything_to_either_kind_and_leaves_the_original(
    database: Database, target: Database, tmp_path: Path
) -> None:
    fill(database)
    before = {table: content(database, table) for table in METADATA.sorted_tables}
    digests = migrate(database, target, tmp_path)
    require_copy(database, target)
    assert {table: content(database, table) for table in METADATA.sorted_tables} == before
    assert {name: digest.rows for name, digest in digests.items() if digest.rows > 2} == {
        "files": 4, "jobs": 6, "assignments": 4, "audit": 3,
    }  # fmt: skip
    assert migrate(database, target, tmp_path) == digests  # once more: all rows are there
    assert list(tmp_path.glob(".catalog-copy-*")) == []


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("files", "UPDATE files SET size = size + 1 WHERE status = 'done'"),
        ("files", "INSERT INTO files (collection, path, size, mtime_ns, status, updated_at) "
                  "SELECT collection, folder, 1, 1, 'failed', '' FROM jobs WHERE id = 'job-done'"),
        ("people", "UPDATE people SET name = 'Eva' WHERE id = 'p2'"),
        ("problems", "UPDATE problems SET code = 'other'"),
        ("jobs", "UPDATE jobs SET counts = '{}' WHERE id = 'job-done'"),
        ("keys", "UPDATE keys SET role = 'admin'"),
        ("keys", "UPDATE keys SET id = 'k2'"),
        ("audit", "UPDATE audit SET digest = 'x' WHERE number = 2"),
    ],
)  # fmt: skip
def test_a_target_with_other_rows_is_refused_and_unchanged(
    database: Database, tmp_path: Path, table: str, change: str
) -> None:
    with closing(open_sqlite(tmp_path / "source.sqlite3")) as source:
        fill(source)
        migrate(source, database, tmp_path)
        with database.writing() as connection:
            connection.execute(text(change))
            connection.execute(text("DELETE FROM suppression"))
        before = {table: content(database, table) for table in METADATA.sorted_tables}
        with pytest.raises(OceanoError, match=f"other rows in the table {table} .*Nothing was changed") as raised:
            migrate(source, database, tmp_path)
    assert raised.value.code == "invalid_request"
    assert {table: content(database, table) for table in METADATA.sorted_tables} == before


def test_a_target_may_have_rows_of_other_collections(database: Database, target: Database, tmp_path: Path) -> None:
    fill(database)
    Ledger(target, "e").record(RECORDS)
    Ledger(target, "e").record_mounts([Mount("/photos", "/media/e")])
    with target.writing() as connection:
        connection.execute(insert(JOBS), job("done", id="job-e", collection="e"))
        problem = {"job_id": "job-e", "key": b"k", "path": b"/e", "code": "invalid_image", "message": "no"}
        connection.execute(insert(PROBLEMS), problem)
    migrate(database, target, tmp_path)
    assert list(Ledger(target, "c").files("/")) == RECORDS
    assert list(Ledger(target, "e").files("/")) == RECORDS
    assert len(content(target, PROBLEMS)) == 2


def test_a_stopped_migration_changes_nothing(database: Database, target: Database, tmp_path: Path) -> None:
    fill(database)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 15  # while the copies are compared

    with pytest.raises(Stopped):
        migrate(database, target, tmp_path, stop)
    assert [table.name for table in METADATA.sorted_tables if content(target, table)] == []


def test_the_current_catalog_under_another_address_is_no_target(postgresql_url: str, tmp_path: Path) -> None:
    by_name = postgresql_url.replace("127.0.0.1", "localhost")
    assert by_name != postgresql_url
    with closing(open_postgresql(postgresql_url)) as source, closing(open_postgresql(by_name)) as target:
        fill(source)
        with pytest.raises(OceanoError, match="is the current catalog under another address"):
            migrate(source, target, tmp_path)


def test_text_that_postgresql_cannot_store_is_carried_without_nul(
    database: Database, target: Database, tmp_path: Path
) -> None:
    if not database.has_many_writers:
        Ledger(database, "c").record([FileRecord("/a", 1, 2, None, "failed", 0, "invalid_image", "bad \0 byte")])
    Ledger(database, "c").record([FileRecord("/b", 1, 2, None, "failed", 0, "invalid_image", "bad � byte")])
    migrate(database, target, tmp_path)
    assert {record.message for record in Ledger(target, "c").files("/")} == {"bad � byte"}


def test_a_catalog_in_use_by_workers_is_refused(postgresql_url: str) -> None:
    with closing(open_postgresql(postgresql_url)) as database:
        fill(database)
        require_no_workers(database)  # the lease of the one that is there has ended
        with database.writing() as connection:
            connection.execute(update(WORKERS).values(leased_until=1 << 40))
        with pytest.raises(OceanoError, match=r"1 ingests or workers use .*\(host 7\); stop them first") as raised:
            require_no_workers(database)
        assert raised.value.code == "ingest_in_progress"


def test_many_files_are_carried_to_postgresql_and_back_with_little_memory(postgresql_url: str, tmp_path: Path) -> None:
    number, random_bytes = 8000, random.Random(7).randbytes
    values = [
        {
            "collection": "c", "path": b"/photos/%d/" % (n % 300) + random_bytes(60) + b"/%d" % n, "size": n,
            "mtime_ns": n, "image_id": f"{n:064x}", "status": "done", "faces": 1, "updated_at": AT,
        }
        for n in range(number)
    ]  # fmt: skip
    with (
        closing(open_sqlite(tmp_path / "source.sqlite3")) as source,
        closing(open_postgresql(postgresql_url)) as there,
        closing(open_sqlite(tmp_path / "back.sqlite3")) as back,
    ):
        with source.writing() as connection:
            connection.execute(insert(FILES), values)
        del values
        tracemalloc.start()
        try:
            digests = migrate(source, there, tmp_path)
            back_up(there, tmp_path / "backup.sqlite3")
            assert migrate(there, back, tmp_path) == digests
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()
    assert digests["files"].rows == number
    with closing(open_sqlite(tmp_path / "backup.sqlite3")) as copy, copy.reading() as connection:
        assert digest_of(connection, FILES) == digests["files"]
