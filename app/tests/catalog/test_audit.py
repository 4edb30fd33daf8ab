"""The audit log in the catalog: numbers, digests, several writers, pruning, copies."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from app.catalog import (
    NO_DIGEST,
    AuditEntry,
    AuditFilter,
    AuditLog,
    Database,
    Ledger,
    NewEntry,
    audit_time,
    back_up,
    chained,
    migrate,
    open_postgresql,
    open_sqlite,
    restore,
)
from app.catalog.database import rows
from app.catalog.tables import AUDIT
from app.core.errors import OceanoError
from tests.support.catalogs import KINDS, new_catalog

DAY = "2026-01-%02dT00:00:00.000+00:00"


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A second empty catalog of either kind."""
    with new_catalog(request.param, tmp_path / "other") as opened:
        yield opened


def entry(text: str = "", **values: str | None) -> NewEntry:
    fields: dict[str, str | None] = {
        "at": audit_time(), "who": "key ana", "address": "10.0.0.7", "action": "search", "purpose": None,
        "details": json.dumps({"text": text}),
    }  # fmt: skip
    return NewEntry(**(fields | values))  # type: ignore[arg-type]


def all_of(database: Database) -> list[AuditEntry]:
    return list(AuditLog(database).all(AuditFilter()))


def require_chain(database: Database, before: str = NO_DIGEST, first: int = 1) -> list[AuditEntry]:
    """Require numbers without gaps, and of each entry the digest of itself and the one before."""
    found = all_of(database)
    assert [one.number for one in found] == [*range(first, first + len(found))]
    for one in found:
        texts = [one.at, one.who, one.address, one.action, one.purpose, one.details]
        assert one.digest == chained(one.number, texts, before), one.number
        before = one.digest
    return found


def test_entries_get_the_next_numbers_and_the_digest_of_the_one_before(database: Database) -> None:
    log = AuditLog(database)
    first = log.append([entry("a"), entry("b", purpose="a case")])
    second = log.append([entry("ñ 猫", address=None)])
    assert [one.number for one in (*first, *second)] == [1, 2, 3]
    assert require_chain(database) == [*first, *second]
    assert log.newest() == second[0]
    assert log.append([]) == []


def test_what_a_database_cannot_store_is_replaced_before_the_digest(database: Database) -> None:
    AuditLog(database).append([entry(who="a\0b\udcff", purpose="\0")])
    (found,) = require_chain(database)
    assert (found.who, found.purpose) == ("a\ufffdb?", "\ufffd")


def test_entries_are_found_by_who_action_and_time_newest_first(database: Database) -> None:
    log = AuditLog(database)
    log.append(
        [
            entry(at=DAY % 1, who="user ana", action="search"),
            entry(at=DAY % 2, who="user ana", action="search.more"),
            entry(at=DAY % 3, who="user a%a", action="export"),
            entry(at=DAY % 4, who="key ana", action="search"),
        ]
    )

    def numbers(limit: int = 9, before: int | None = None, **wanted: str) -> list[int]:
        return [one.number for one in log.find(AuditFilter(**wanted), limit=limit, before=before)]

    assert numbers() == [4, 3, 2, 1]
    assert numbers(limit=2) == [4, 3]
    assert numbers(limit=2, before=3) == [2, 1]
    assert numbers(who="user ana") == [2, 1]
    assert numbers(who="user*") == [3, 2, 1]
    assert numbers(who="user a%*") == [3]
    assert numbers(action="search") == [4, 1]
    assert numbers(action="search*") == [4, 2, 1]
    assert numbers(since=DAY % 2, until=DAY % 4) == [3, 2]
    assert numbers(who="nobody") == []
    assert [one.number for one in log.all(AuditFilter(action="search*"))] == [1, 2, 4]


def test_threads_never_fork_the_chain(database: Database) -> None:
    def write(writer: int) -> None:
        for turn in range(10):
            AuditLog(database).append([entry(f"{writer}.{turn}.{n}") for n in range(1 + (writer + turn) % 3)])

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = require_chain(database)
    assert (
        len({one.details for one in found}) == len(found) == sum(1 + n % 3 for w in range(4) for n in range(w, w + 10))
    )


def write_in_process(name: str, writer: int) -> None:
    opened = open_postgresql(name) if name.startswith("postgresql") else open_sqlite(Path(name))
    with closing(opened) as database:
        for turn in range(10):
            AuditLog(database).append([entry(f"{writer}.{turn}")])


def test_processes_never_fork_the_chain_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    with closing(open_sqlite(path)) as database:
        run_processes(str(path))
        assert len(require_chain(database)) == 40


def test_processes_never_fork_the_chain_of_a_server(postgresql_url: str) -> None:
    with closing(open_postgresql(postgresql_url)) as database:
        run_processes(postgresql_url)
        assert len(require_chain(database)) == 40


def run_processes(name: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_in_process, args=(name, writer)) for writer in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4


def test_pruning_says_what_it_deleted_and_the_chain_goes_on(database: Database) -> None:
    log = AuditLog(database)
    old = log.append([entry(at=DAY % day) for day in (1, 2, 3)])
    log.append([entry(at=DAY % 5), entry(at=DAY % 2)])  # the clock of another machine was wrong
    assert log.prune(DAY % 4, "oceano") == 3
    found = require_chain(database, old[2].digest, first=4)
    assert [one.action for one in found] == ["search", "search", "audit.pruned"]
    assert json.loads(found[-1].details) == {"through": 3, "digest": old[2].digest, "entries": 3}
    pruned = log.pruned()
    assert pruned is not None
    assert (pruned.through, pruned.digest) == (3, old[2].digest)
    assert log.pruned(3) == pruned
    assert log.pruned(2) is None
    assert log.prune(DAY % 4, "oceano") == 0
    assert len(all_of(database)) == 3


def test_numbers_go_on_after_everything_was_pruned(database: Database) -> None:
    log = AuditLog(database)
    old = log.append([entry(at=DAY % 1), entry(at=DAY % 2)])
    assert log.prune(DAY % 9, "oceano") == 2
    log.append([entry()])
    found = require_chain(database, old[1].digest, first=3)
    assert [one.action for one in found] == ["audit.pruned", "search"]


def test_a_log_of_prunings_alone_is_not_pruned_again_and_again(database: Database) -> None:
    log = AuditLog(database)
    log.append([entry(at=DAY % 1)])
    assert log.prune("2999", "oceano") == 1
    assert log.prune("2999", "oceano") == 0
    assert log.oldest() == log.newest_number() == 2


def test_many_entries_are_pruned_in_several_transactions(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.catalog.audit._PRUNED_AT_ONCE", 4)
    log = AuditLog(database)
    log.append([entry(at=DAY % 1) for _ in range(10)])
    last = log.append([entry(at=DAY % 5)])
    assert log.prune(DAY % 4, "oceano") == 10
    found = all_of(database)
    assert found[0] == last[0]
    assert [json.loads(one.details)["through"] for one in found[1:]] == [4, 8, 10]


def test_a_catalog_that_is_closed_is_unavailable(tmp_path: Path) -> None:
    database = open_sqlite(tmp_path / "catalog.sqlite3")
    log = AuditLog(database)
    log.append([entry()])
    database.close()
    with pytest.raises(OceanoError) as raised:
        log.append([entry()])
    assert raised.value.code == "ledger_unavailable"


@pytest.mark.parametrize("is_pruned", [False, True])
def test_the_chain_goes_on_after_a_backup_and_restore(
    database: Database, target: Database, tmp_path: Path, is_pruned: bool
) -> None:
    log = AuditLog(database)
    old = log.append([entry(at=DAY % 1, who="ana\udcff"), entry(purpose="ñ")])
    if is_pruned:
        log.prune(DAY % 2, "oceano")
    (tmp_path / "backup").mkdir()
    back_up(database, tmp_path / "backup" / "catalog.sqlite3")
    assert restore(Ledger(target, "c"), tmp_path / "backup", tmp_path).audit
    assert all_of(target) == all_of(database)
    AuditLog(target).append([entry("after")])
    before, first = (old[0].digest, 2) if is_pruned else (NO_DIGEST, 1)
    assert len(require_chain(target, before, first)) == 3


@pytest.mark.parametrize("is_pruned", [False, True])
def test_the_chain_goes_on_after_a_migration_and_back(
    database: Database, target: Database, tmp_path: Path, is_pruned: bool
) -> None:
    log = AuditLog(database)
    old = log.append([entry(at=DAY % 1), entry()])
    if is_pruned:
        log.prune(DAY % 2, "oceano")
    before, first = (old[0].digest, 2) if is_pruned else (NO_DIGEST, 1)
    migrate(database, target, tmp_path)
    AuditLog(target).append([entry("there")])
    require_chain(target, before, first)
    migrate(target, database, tmp_path)
    assert all_of(database) == all_of(target)
    log.append([entry("back")])
    assert len(require_chain(database, before, first)) == 4


def test_a_restore_into_a_log_that_was_pruned_since_keeps_the_chain(
    database: Database, target: Database, tmp_path: Path
) -> None:
    log = AuditLog(database)
    log.append([entry(at=DAY % day) for day in (1, 2, 3)])
    (tmp_path / "backup").mkdir()
    back_up(database, tmp_path / "backup" / "catalog.sqlite3")
    log.prune(DAY % 3, "oceano")
    found = all_of(database)
    restored = restore(Ledger(database, "c"), tmp_path / "backup", tmp_path)
    assert not restored.audit
    assert all_of(database) == found
    assert rows(target, select(AUDIT)) == []
