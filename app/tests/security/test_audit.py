"""The audit log: shared transactions, anchors, and a check that finds every change."""

from __future__ import annotations

import asyncio
import json
import random
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from app.catalog import NO_DIGEST, AuditEntry, AuditFilter, Database, NewEntry, audit_time, chained, open_sqlite
from app.catalog.database import rows
from app.catalog.tables import AUDIT
from app.core.errors import OceanoError
from app.security import Audit, AuditReport, new_entry
from app.security.anchors import Anchor, AnchorFile
from app.security.audit_export import audit_lines

NUMBERS = range(1, 13)


@pytest.fixture
def audit(database: Database, tmp_path: Path) -> Iterator[Audit]:
    with closing(Audit(database, tmp_path / "state", days=30)) as opened:
        yield opened


def fill(audit: Audit, count: int = len(NUMBERS)) -> None:
    audit.log.append([new_entry("search", "key ana", {"n": n}, address="::1", purpose="ñ") for n in range(count)])


def kinds(report: AuditReport) -> list[tuple[str, int]]:
    return [(one.kind, one.number) for one in report.findings]


def anchors_of(audit: Audit) -> list[Anchor | int]:
    return list(audit._anchors.read())


# --- writing


def test_an_entry_has_sorted_details_without_nothing_and_is_cut_if_it_is_huge() -> None:
    found = new_entry("search", "local", {"b": 1, "a": "ñ", "none": None}, purpose="")
    assert (found.details, found.purpose, found.address) == ('{"a":"ñ","b":1}', None, None)
    assert datetime.fromisoformat(found.at).tzinfo is not None
    huge = new_entry("search", "local", {"folders": ["x" * 50] * 500}, purpose="p" * 900)
    assert len(huge.details) < 4000
    assert "cut" in json.loads(huge.details)
    assert len(huge.purpose or "") == 500


def test_a_recorded_entry_is_in_the_database(audit: Audit, database: Database) -> None:
    audit.record(new_entry("sign_in", "user ana"))
    assert [(row.number, row.action) for row in rows(database, select(AUDIT))] == [(1, "sign_in")]


def test_entries_that_wait_together_are_one_transaction(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    append, sizes, go = audit.log.append, list[int](), threading.Event()

    def counted(entries: Sequence[NewEntry]) -> list[AuditEntry]:
        go.wait(10)
        sizes.append(len(entries))
        return append(entries)

    monkeypatch.setattr(audit.log, "append", counted)
    futures = [audit.submit(new_entry("search", f"key {n}")) for n in range(50)]
    assert not any(future.done() for future in futures)
    go.set()
    assert sorted(future.result(30) for future in futures) == [*range(1, 51)]
    assert len(sizes) <= 2
    assert sum(sizes) == 50
    assert audit.verify().is_well


def test_no_caller_gets_a_result_before_its_entry_is_durable(audit: Audit, database: Database) -> None:
    def write(writer: int) -> None:
        for turn in range(8):
            number = audit.submit(new_entry("search", f"key {writer}.{turn}")).result()
            with database.reading() as connection:
                who = connection.execute(select(AUDIT.c.who).where(AUDIT.c.number == number)).scalar_one()
            found.append(who == f"key {writer}.{turn}")

    found: list[bool] = []
    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 32
    assert (audit.verify().entries, audit.verify().is_well) == (32, True)


def test_a_request_that_leaves_does_not_stop_the_writer(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    append, go = audit.log.append, threading.Event()
    monkeypatch.setattr(audit.log, "append", lambda entries: (go.wait(10), append(entries))[1])

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.wrap_future(audit.submit(new_entry("search", "local")))

    asyncio.run(leave())
    go.set()
    assert audit.submit(new_entry("search", "local")).result(30) == 2


def test_if_the_log_cannot_be_written_every_caller_is_told_and_later_ones_can_go_on(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(audit.log, "append", lambda _: (_ for _ in ()).throw(OceanoError("disk_full", "no")))
        with pytest.raises(OceanoError, match="no") as raised:
            audit.record(new_entry("search", "local"))
        assert raised.value.code == "disk_full"
        patch.setattr(audit.log, "append", lambda _: 1 / 0)
        with pytest.raises(OceanoError, match="cannot be written") as raised:
            audit.record(new_entry("search", "local"))
        assert raised.value.code == "ledger_unavailable"
    audit.record(new_entry("search", "local"))
    assert audit.verify().entries == 1


def test_a_closed_log_refuses_entries_after_writing_those_that_wait(database: Database, tmp_path: Path) -> None:
    audit = Audit(database, tmp_path / "state", days=1)
    futures: list[Future[int]] = [audit.submit(new_entry("search", "local")) for _ in range(20)]
    audit.close()
    assert [future.result(0) for future in futures] == [*range(1, 21)]
    with pytest.raises(OceanoError) as raised:
        audit.record(new_entry("search", "local"))
    assert raised.value.code == "ledger_unavailable"
    assert [one.number for one in anchors_of(audit) if isinstance(one, Anchor)][-1] == 20


def test_without_days_no_entry_is_written(database: Database, tmp_path: Path) -> None:
    with closing(Audit(database, tmp_path / "state", days=0)) as audit:
        assert not audit.is_kept
        audit.record(new_entry("search", "local"))
        assert (audit.log.newest(), audit.verify().entries) == (None, 0)
        assert not (tmp_path / "state" / "audit.anchor").exists()


# --- anchors


def test_anchors_are_written_after_some_entries_and_at_the_end(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.security.audit.ANCHOR_ENTRIES", 3)
    for _ in range(7):
        audit.record(new_entry("search", "local"))
    audit.close()
    numbers = [one.number for one in anchors_of(audit) if isinstance(one, Anchor)]
    assert numbers == [3, 6, 7]
    assert stat.S_IMODE(audit._anchors.path.stat().st_mode) == 0o600


def test_an_anchor_is_written_some_time_after_the_last_entry(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.security.audit.ANCHOR_SECONDS", 0.1)
    audit.record(new_entry("search", "local"))
    deadline = time.monotonic() + 20
    while not anchors_of(audit) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [one.number for one in anchors_of(audit) if isinstance(one, Anchor)] == [1]


def test_an_anchor_file_that_cannot_be_written_stops_no_request(
    audit: Audit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(audit._anchors, "add", fail)
    monkeypatch.setattr("app.security.audit.ANCHOR_ENTRIES", 1)
    audit.record(new_entry("search", "local"))
    audit.record(new_entry("search", "local"))
    audit.close()
    assert "audit.anchor cannot be written" in caplog.text


def test_a_line_that_was_cut_off_is_left_out_and_the_next_one_is_whole(tmp_path: Path) -> None:
    file = AnchorFile(tmp_path / "audit.anchor")
    assert list(file.read()) == []
    file.add(1, "a" * 64)
    with file.path.open("ab") as opened:
        opened.write(b"2 " + b"b" * 20)
    assert list(file.read()) == [Anchor(1, "a" * 64)]
    file.add(3, "c" * 64)
    assert list(file.read()) == [Anchor(1, "a" * 64), Anchor(3, "c" * 64)]


def test_lines_that_are_no_anchors_are_told_by_their_numbers(tmp_path: Path) -> None:
    file = AnchorFile(tmp_path / "audit.anchor")
    file.add(1, "a" * 64)
    with file.path.open("ab") as opened:
        opened.write(b"x\n\xff\n" + b"y" * 500 + b"\n")
    found = list(file.read())
    assert found[:3] == [Anchor(1, "a" * 64), 2, 3]
    assert all(isinstance(one, int) for one in found[1:])


def test_several_processes_add_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.anchor"

    def write(writer: int) -> None:
        for turn in range(20):
            AnchorFile(path).add(writer * 100 + turn + 1, f"{writer:x}" * 64)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = list(AnchorFile(path).read())
    assert len(found) == 80
    assert all(isinstance(one, Anchor) for one in found)


# --- the check


def test_an_untouched_log_is_well_and_gets_an_anchor(audit: Audit) -> None:
    assert audit.verify() == AuditReport(0, 0, 0, 0, ())
    fill(audit)
    assert audit.verify() == AuditReport(12, 1, 12, 0, ())
    assert audit.verify() == AuditReport(12, 1, 12, 1, ())


def test_more_entries_than_a_page_are_checked(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.catalog.audit._PAGE", 5)
    fill(audit)
    assert (audit.verify().entries, audit.verify().is_well) == (12, True)


COLUMNS = ["at", "who", "address", "action", "purpose", "details", "digest"]


@pytest.mark.parametrize("column", COLUMNS)
def test_one_changed_character_is_found_in_every_column_of_every_entry(
    audit: Audit, database: Database, column: str
) -> None:
    fill(audit)
    audit.verify()
    chosen = random.Random(column)
    for number in (1, 5, 12):
        of_entry = AUDIT.c.number == number
        (row,) = rows(database, select(AUDIT.c[column]).where(of_entry))
        text = row[0]
        place = chosen.randrange(len(text))
        wrong = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
        change(database, update(AUDIT).where(of_entry).values({column: wrong}))
        report = audit.verify()
        assert report.first_wrong == number, report
        change(database, update(AUDIT).where(of_entry).values({column: text}))
    assert audit.verify().is_well


@pytest.mark.parametrize("column", ["address", "purpose"])
def test_a_text_that_is_gone_is_found(audit: Audit, database: Database, column: str) -> None:
    fill(audit)
    change(database, update(AUDIT).where(AUDIT.c.number == 4).values({column: None}))
    assert kinds(audit.verify()) == [("changed", 4)]


@pytest.mark.parametrize("number", [1, 6, 11])
def test_a_removed_entry_is_found(audit: Audit, database: Database, number: int) -> None:
    fill(audit)
    change(database, delete(AUDIT).where(AUDIT.c.number == number))
    assert kinds(audit.verify()) == [("missing", number)]


@pytest.mark.parametrize("number", [1, 6, 11])
def test_a_removed_entry_is_found_if_the_others_move_up(audit: Audit, database: Database, number: int) -> None:
    fill(audit)
    change(database, delete(AUDIT).where(AUDIT.c.number == number))
    for later in range(number + 1, 13):
        change(database, update(AUDIT).where(AUDIT.c.number == later).values(number=later - 1))
    assert audit.verify().first_wrong == number


@pytest.mark.parametrize("number", [1, 6, 12])
def test_an_inserted_entry_is_found(audit: Audit, database: Database, number: int) -> None:
    fill(audit)
    for later in range(12, number - 1, -1):
        change(database, update(AUDIT).where(AUDIT.c.number == later).values(number=later + 1))
    (row,) = rows(database, select(AUDIT).where(AUDIT.c.number == number + 1))
    change(database, insert(AUDIT).values({**row._mapping, "number": number, "who": "nobody"}))
    assert audit.verify().first_wrong == number


def test_an_entry_added_with_a_wrong_digest_is_found(audit: Audit, database: Database) -> None:
    fill(audit)
    (row,) = rows(database, select(AUDIT).where(AUDIT.c.number == 12))
    change(database, insert(AUDIT).values({**row._mapping, "number": 13}))
    assert kinds(audit.verify()) == [("changed", 13)]


@pytest.mark.parametrize("left", [11, 5, 0])
def test_a_cut_off_end_is_found_by_the_anchor(audit: Audit, database: Database, left: int) -> None:
    fill(audit)
    audit.verify()
    change(database, delete(AUDIT).where(AUDIT.c.number > left))
    assert kinds(audit.verify()) == [("cut_off", left + 1)]
    audit.log.append([new_entry("search", "local")])
    assert not audit.verify().is_well


def test_a_chain_that_was_computed_anew_is_found_by_the_anchor(audit: Audit, database: Database) -> None:
    fill(audit, 6)
    audit.verify()
    fill(audit, 6)
    audit.verify()
    rechain(database, 9)
    assert kinds(audit.verify()) == [("recomputed", 12)]
    rechain(database, 2)
    assert kinds(audit.verify()) == [("recomputed", 6), ("recomputed", 12)]


def test_a_beginning_that_no_entry_says_was_pruned_is_missing(audit: Audit, database: Database) -> None:
    fill(audit)
    prune(audit, 3)
    assert audit.verify().is_well
    change(database, delete(AUDIT).where(AUDIT.c.number <= 5))
    assert kinds(audit.verify()) == [("missing", 4)]


def anchor_of(audit: Audit, days_ago: float) -> None:
    """Write an anchor as if that were so many days ago."""
    with pytest.MonkeyPatch.context() as patch:
        then = audit_time(datetime.now(UTC) - timedelta(days=days_ago))
        patch.setattr("app.security.anchors.audit_time", lambda: then)
        audit.anchor()


def test_a_log_is_well_after_it_was_pruned_and_old_anchors_do_not_matter(audit: Audit, database: Database) -> None:
    fill(audit)
    anchor_of(audit, days_ago=31)
    prune(audit, 12)
    assert audit.verify() == AuditReport(1, 13, 13, 1, ())
    fill(audit)
    assert audit.verify().is_well
    change(database, update(AUDIT).where(AUDIT.c.number == 13).values(who="another"))
    assert kinds(audit.verify()) == [("changed", 13)]


def test_what_was_pruned_is_compared_with_the_anchor(audit: Audit, database: Database) -> None:
    fill(audit, 6)
    anchor_of(audit, days_ago=31)
    rechain(database, 2)
    prune(audit, 6)
    assert kinds(audit.verify()) == [("recomputed", 6)]


@pytest.mark.parametrize("days_ago", [0, 1, 28])
def test_entries_that_are_removed_as_if_they_were_old_are_found_by_an_anchor(audit: Audit, days_ago: float) -> None:
    fill(audit)
    anchor_of(audit, days_ago)
    prune(audit, 12)  # what someone who may write to the database can imitate
    assert kinds(audit.verify()) == [("pruned_early", 12)]


def test_entries_that_are_pruned_during_the_check_are_no_finding(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.catalog.audit._PAGE", 4)
    fill(audit)
    read, pages = audit.log.raw_page, list[int]()

    def raw_page(after: int, through: int) -> Any:
        pages.append(after)
        if len(pages) == 2:
            prune(audit, 6)
            fill(audit, 2)
        return read(after, through)

    monkeypatch.setattr(audit.log, "raw_page", raw_page)
    report = audit.verify()
    assert (report.findings, report.first, report.last) == ((), 7, 12)


def test_a_damaged_line_of_the_anchor_file_is_a_finding(audit: Audit) -> None:
    fill(audit)
    audit.verify()
    with audit._anchors.path.open("ab") as file:
        file.write(b"12 nothing\n")
    report = audit.verify()
    assert (kinds(report), report.first_wrong) == ([("anchor_damaged", 2)], None)


def test_text_that_is_not_utf_8_is_a_finding(tmp_path: Path) -> None:
    with (
        closing(open_sqlite(tmp_path / "catalog.sqlite3")) as database,
        closing(Audit(database, tmp_path, days=1)) as audit,
    ):
        fill(audit)
        with database.writing() as connection:
            connection.exec_driver_sql("UPDATE audit SET who = CAST(x'ff41' AS TEXT) WHERE number = 3")
        assert audit.verify().first_wrong == 3
        with database.writing() as connection:
            connection.exec_driver_sql("UPDATE audit SET who = CAST('key ana' AS BLOB) WHERE number = 3")
        assert audit.verify().first_wrong == 3


@pytest.mark.parametrize("seed", range(4))
def test_whatever_threads_append_is_well_and_any_change_is_found(audit: Audit, database: Database, seed: int) -> None:
    chosen = random.Random(seed)

    def write(lengths: Sequence[int]) -> None:
        for length in lengths:
            audit.log.append([new_entry("search", "key ana", {"n": n}, address="::1") for n in range(length)])
            audit.record(new_entry("export", "user éva", purpose="x"))

    threads = [threading.Thread(target=write, args=([chosen.randrange(3) for _ in range(4)],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert audit.verify().is_well
    for _ in range(6):
        before = [dict(row._mapping) for row in rows(database, select(AUDIT))]
        wrong = mutate(database, before, chosen)
        report = audit.verify()
        assert report.first_wrong == wrong, (wrong, report)
        with database.writing() as connection:
            connection.execute(delete(AUDIT))
            connection.execute(insert(AUDIT), before)
    assert audit.verify().is_well


def mutate(database: Database, entries: list[dict[str, Any]], chosen: random.Random) -> int:
    """Change the log in one way, and return the number of the first entry that is wrong."""
    last = len(entries)
    number = chosen.randrange(1, last + 1)
    kind = chosen.choice(["change", "remove", "cut", "swap"])
    if kind == "change":
        one = next(row for row in entries if row["number"] == number)
        column = chosen.choice([name for name in COLUMNS if one[name]])
        place = chosen.randrange(len(one[column]))
        text = one[column][:place] + chr(ord(one[column][place]) ^ 1) + one[column][place + 1 :]
        change(database, update(AUDIT).where(AUDIT.c.number == number).values({column: text}))
    elif kind == "remove":
        change(database, delete(AUDIT).where(AUDIT.c.number == number))
    elif kind == "cut":
        change(database, delete(AUDIT).where(AUDIT.c.number >= number))
    else:
        number = min(number, last - 1)
        for old, new in ((number, 0), (number + 1, number), (0, number + 1)):
            change(database, update(AUDIT).where(AUDIT.c.number == old).values(number=new))
    return number


def change(database: Database, statement: Any) -> None:
    with database.writing() as connection:
        assert connection.execute(statement).rowcount != 0


def rechain(database: Database, number: int) -> None:
    """Change an entry, and compute the digests of it and all later ones anew, as somebody with the database can."""
    found = rows(database, select(AUDIT).order_by(AUDIT.c.number))
    before = found[number - 2].digest if number > 1 else NO_DIGEST
    for row in found[number - 1 :]:
        values = dict(row._mapping)
        values["who"] = "nobody" if row.number == number else row.who
        before = chained(row.number, [values[name] for name in COLUMNS[:-1]], before)
        change(database, update(AUDIT).where(AUDIT.c.number == row.number).values(values | {"digest": before}))


def prune(audit: Audit, through: int) -> None:
    """Prune the entries up to a number, as if they were old."""
    with audit.log.database.writing() as connection:
        last = connection.execute(select(AUDIT.c.digest).where(AUDIT.c.number == through)).scalar_one()
        connection.execute(delete(AUDIT).where(AUDIT.c.number <= through))
    details = {"through": through, "digest": last}
    if audit.log.newest() is None:
        with audit.log.database.writing() as connection:
            entry = new_entry("audit.pruned", "oceano", details)
            texts = [getattr(entry, name) for name in NewEntry.__slots__]
            digest = chained(through + 1, texts, last)
            values = dict(zip(NewEntry.__slots__, texts, strict=True))
            connection.execute(insert(AUDIT).values(number=through + 1, digest=digest, **values))
    else:
        audit.log.append([new_entry("audit.pruned", "oceano", details)])


# --- retention and export


def test_entries_are_kept_for_whole_days(database: Database, tmp_path: Path) -> None:
    with closing(Audit(database, tmp_path / "state", days=2)) as audit:
        now = datetime.now(UTC)
        ages = (timedelta(days=9), timedelta(days=3, minutes=1), timedelta(days=1), timedelta())
        audit.log.append([NewEntry(audit_time(now - age), "local", None, "search", None, "{}") for age in ages])
        assert audit.prune("oceano") == 2
        assert audit.prune("oceano") == 0
        assert [one.action for one in audit.log.all(AuditFilter())] == ["search", "search", "audit.pruned"]
        assert audit.verify().is_well


def test_with_no_days_pruning_deletes_everything(database: Database, tmp_path: Path) -> None:
    with closing(Audit(database, tmp_path / "state", days=1)) as audit:
        fill(audit)
    with closing(Audit(database, tmp_path / "state", days=0)) as audit:
        time.sleep(0.002)
        assert audit.prune("command ana@host") == 12
        (left,) = audit.log.all(AuditFilter())
        assert (left.number, left.action, left.who) == (13, "audit.pruned", "command ana@host")
        assert audit.verify().is_well


def test_exports_have_every_entry_and_no_formula() -> None:
    entry = AuditEntry(1, "2026", "=cmd", None, "search", 'a "b",\nc', '{"n":1}', "d" * 64)
    assert json.loads(b"".join(audit_lines([entry], "jsonl"))) == {
        "number": 1, "at": "2026", "who": "=cmd", "address": None, "action": "search", "purpose": 'a "b",\nc',
        "details": {"n": 1}, "digest": "d" * 64,
    }  # fmt: skip
    csv = b"".join(audit_lines([entry], "csv")).decode()
    assert csv == (
        "number,at,who,address,action,purpose,details,digest\r\n"
        f'1,2026,\'=cmd,,search,"a ""b"",\nc","{{""n"":1}}",{"d" * 64}\r\n'
    )
    assert b"".join(audit_lines([], "csv")).startswith(b"number,at")
    assert list(audit_lines([], "jsonl")) == []
