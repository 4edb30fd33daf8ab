"""`oceano audit`, and the entries that commands write."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from app.catalog import AuditEntry, AuditFilter, AuditLog, Database, open_ledger
from app.cli import main
from app.security import new_entry


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The catalog that the commands open, too."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data" / "state").mkdir(parents=True)
    with closing(open_ledger(tmp_path / "data" / "state" / "catalog.sqlite3", "")) as ledger:
        yield ledger.database


@pytest.fixture
def filled(database: Database) -> Database:
    actions = ("search", "search.more", "export", "sign_in")
    AuditLog(database).append([new_entry(action, f"user {n}", {"n": n}) for n, action in enumerate(actions)])  # type: ignore[arg-type]
    return database


def entries(database: Database) -> list[AuditEntry]:
    return list(AuditLog(database).all(AuditFilter()))


def test_entries_are_listed_newest_first_and_that_is_an_entry(
    filled: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "list", "--json", "--action", "search*", "--limit", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert (json.loads(line)["number"], json.loads(line)["details"]) == (2, {"n": 1})
    assert main(["audit", "list", "--who", "user 2"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "user 2  -  export  " in out
    *_, first, second = entries(filled)
    assert (first.action, second.action) == ("audit.view", "audit.view")
    assert first.who.startswith("command ")
    assert json.loads(first.details) == {"action": "search*", "entries": 1}


def test_control_characters_of_an_entry_reach_no_terminal(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    AuditLog(database).append([new_entry("search", "user \x1b[31mred")])
    assert main(["audit", "list"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["yesterday", "2026-13", "99999"])
def test_a_wrong_time_is_wrong_usage(database: Database, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "list", "--since", wrong]) == 2
    assert "since must be a year" in capsys.readouterr().err


def test_times_are_a_year_a_month_a_day_or_more_and_the_end_is_inclusive(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    log = AuditLog(database)
    for at in ("2026-01-31T23:59:59.999+00:00", "2026-02-01T00:00:00.000+00:00"):
        entry = new_entry("search", "local")
        log.append([type(entry)(at, entry.who, None, entry.action, None, "{}")])

    def numbers(*options: str) -> list[int]:
        assert main(["audit", "list", "--json", "--action", "search", *options]) == 0
        return [json.loads(line)["number"] for line in capsys.readouterr().out.splitlines()]

    assert numbers("--until", "2026-01") == [1]
    assert numbers("--until", "2026-01-31") == [1]
    assert numbers("--since", "2026-02") == [2]
    assert numbers("--since", "2026-02-01T01:00+01:00") == [2]
    assert numbers("--until", "2026-02-01T00:00:00") == [2, 1]
    assert numbers("--since", "2026", "--until", "2026") == [2, 1]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_export_has_all_entries_oldest_first(filled: Database, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"audit.{kind}"
    assert main(["audit", "export", str(path)]) == 0
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [*csv.DictReader(lines)] if kind == "csv" else [json.loads(line) for line in lines]
    assert [one["action"] for one in found] == ["search", "search.more", "export", "sign_in", "audit.export"]
    assert [one["digest"] for one in found] == [one.digest for one in entries(filled)]


def test_an_export_replaces_no_file_and_has_a_known_ending(
    filled: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "audit.csv"
    path.write_text("mine")
    assert main(["audit", "export", str(path)]) == 2
    assert path.read_text() == "mine"
    assert main(["audit", "export", str(tmp_path / "audit.txt")]) == 2
    assert main(["audit", "export", str(tmp_path / "missing" / "audit.csv")]) == 2
    err = capsys.readouterr().err
    assert ("already exists" in err, "must end in .csv or .jsonl" in err, "cannot be written" in err) == (True,) * 3
    assert len(entries(filled)) == 4


def test_verify_says_whether_anything_is_wrong(filled: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify"]) == 0
    assert "checked 4 entries (1 to 4)" in capsys.readouterr().out
    assert main(["audit", "verify", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["well"], told["entries"], told["anchors"], told["first_wrong"]) == (True, 4, 1, None)
    with filled.writing() as connection:
        connection.execute(text("UPDATE audit SET who = 'nobody' WHERE number = 3"))
    assert main(["audit", "verify"]) == 1
    assert "the first wrong entry is 3" in capsys.readouterr().out
    assert main(["audit", "verify", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first_wrong"] == 3


def test_verify_finds_a_cut_off_end(filled: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "verify"]) == 0
    with filled.writing() as connection:
        connection.execute(text("DELETE FROM audit WHERE number > 2"))
    assert main(["audit", "verify"]) == 1
    assert "the log ends at entry 2, but the anchor file has entry 4" in capsys.readouterr().out


def test_verify_of_a_catalog_that_cannot_be_read_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data" / "state").mkdir(parents=True)
    (tmp_path / "data" / "state" / "catalog.sqlite3").write_bytes(b"this is no database" * 100)
    assert main(["audit", "verify"]) == 3


def test_prune_deletes_what_is_too_old(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUDIT_DAYS", "30")
    entry = new_entry("search", "local")
    AuditLog(database).append([type(entry)("2020-01-01T00:00:00.000+00:00", "local", None, "search", None, "{}")])
    assert main(["audit", "prune"]) == 0
    assert "deleted 1 entry" in capsys.readouterr().out
    (left,) = entries(database)
    assert (left.action, left.who.startswith("command ")) == ("audit.pruned", True)
    assert main(["audit", "verify"]) == 0


def test_without_an_audit_a_command_writes_no_entry(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_DAYS", "0")
    assert main(["audit", "list"]) == 0
    assert len(entries(filled)) == 4
