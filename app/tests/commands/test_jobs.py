"""`oceano jobs` and `oceano ingest --queue`, with a fake model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.catalog import Jobs, Ledger, Worker, open_ledger
from app.cli import main
from tests.support.fakes import FAKE_PACK
from tests.support.shared_jobs import COLLECTION


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """The ledger that the commands open, too."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("CATALOG_URL", raising=False)
    path = tmp_path / "data" / "state" / "catalog.sqlite3"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr("app.commands.jobs.find_model", lambda _: FAKE_PACK)
    monkeypatch.setattr("app.commands.jobs.open_ledger", lambda *_: open_ledger(path, COLLECTION))
    monkeypatch.setattr("app.commands.ingest.find_model", lambda _: FAKE_PACK)
    monkeypatch.setattr("app.commands.ingest.open_ledger", lambda *_: open_ledger(path, COLLECTION))
    with closing(open_ledger(path, COLLECTION)) as ledger:
        yield ledger


@pytest.fixture
def jobs(ledger: Ledger) -> Jobs:
    return Jobs(ledger.database, COLLECTION)


@pytest.fixture
def job_id(jobs: Jobs) -> str:
    return jobs.add("/photos", {}, "tests")


def test_a_queued_ingest_is_listed_and_shown(jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", "--queue", "--json", "--prune", str(tmp_path)]) == 0
    job_id = json.loads(capsys.readouterr().out)["job"]
    assert main(["jobs", "list", "--json"]) == 0
    (listed,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (listed["id"], listed["state"], listed["folder"]) == (job_id, "queued", str(tmp_path))
    assert listed["options"]["prune"] is True
    assert main(["jobs", "show", job_id[:8]]) == 0
    assert job_id in capsys.readouterr().out
    assert jobs.get(job_id).shared


@pytest.mark.parametrize("command", ["show", "stop", "resume"])
@pytest.mark.parametrize("wrong", ["zzz", "%", "_"])
def test_an_id_of_no_job_is_refused_and_nothing_changes(
    command: str, wrong: str, jobs: Jobs, job_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", command, wrong]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert jobs.get(job_id).state == "queued"


@pytest.mark.parametrize("command", ["show", "stop", "resume"])
def test_an_empty_id_is_not_the_beginning_of_every_id(
    command: str, jobs: Jobs, job_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", command, ""]) == 2
    out, err = capsys.readouterr()
    assert (out, "the id is empty" in err) == ("", True)
    assert jobs.get(job_id).state == "queued"


def test_an_id_that_two_jobs_begin_with_is_refused(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = iter(["abc1", "abc2"])
    monkeypatch.setattr("app.catalog.jobs.uuid.uuid4", lambda: next(ids))
    for _ in range(2):
        jobs.add("/photos", {}, "tests")
    assert main(["jobs", "stop", "abc"]) == 2
    assert "several jobs have an id that begins with 'abc'" in capsys.readouterr().err
    assert main(["jobs", "stop", "abc1"]) == 0
    assert [jobs.get(one).state for one in ("abc1", "abc2")] == ["interrupted", "queued"]


def test_a_stopped_job_is_resumed(jobs: Jobs, job_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "resume", job_id]) == 2
    assert "not interrupted or failed" in capsys.readouterr().err
    assert main(["jobs", "stop", job_id]) == 0
    assert jobs.get(job_id).state == "interrupted"
    assert main(["jobs", "stop", job_id]) == 2
    assert main(["jobs", "resume", job_id]) == 0
    assert jobs.get(job_id).state == "queued"


def test_a_job_that_runs_is_asked_to_stop(ledger: Ledger, jobs: Jobs, job_id: str) -> None:
    worker = Worker(ledger.database, COLLECTION, "tests")
    worker.join()
    assert worker.take_job() == job_id
    assert main(["jobs", "stop", job_id]) == 0
    assert jobs.get(job_id).state == "stopping"
    worker.renew()
    assert worker.stop.is_set()
    worker.release_job()
    assert jobs.get(job_id).state == "interrupted"
    worker.leave()


@pytest.mark.parametrize("options", [["--watch"], ["--dry-run", "--prune"], ["--report", "report.csv"]])
def test_queue_excludes_options_of_a_process(
    options: list[str], jobs: Jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", "--queue", *options, str(tmp_path)]) == 2
    assert "--queue returns at once" in capsys.readouterr().err
    assert jobs.newest() == []


@pytest.mark.parametrize(
    ("url", "code"), [("mysql://u:secret@h/db", 2), ("postgresql://u:secret@127.0.0.1:1/oceano", 3)]
)
@pytest.mark.parametrize("command", [["list"], ["show", "a"], ["stop", "a"], ["resume", "a"]])
def test_a_catalog_that_cannot_be_opened_is_one_sentence_without_the_password(
    command: list[str],
    url: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CATALOG_URL", url)
    monkeypatch.setattr("app.commands.jobs.find_model", lambda _: FAKE_PACK)
    assert main(["jobs", *command]) == code
    err = capsys.readouterr().err
    assert "CATALOG_URL" in err
    assert "secret" not in err
    assert err.count("\n") == 1
