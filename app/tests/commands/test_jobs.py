"""`oceano jobs` and `oceano ingest --queue`, with a fake model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.catalog import ClaimedLedger, Jobs, Ledger, Worker, open_ledger
from app.cli import main
from app.core.config import load_settings
from app.core.types import File
from app.service.factory import find_model
from app.service.factory import open_ledger as open_ledger_of
from tests.support.fakes import FAKE_PACK
from tests.support.packs import put
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
    (listed,) = json.loads(capsys.readouterr().out)
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


def test_without_a_job_the_list_says_so(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "list"]) == 0
    assert capsys.readouterr().out == "no ingests yet\n"
    assert main(["jobs", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_list_says_that_there_are_older_jobs(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.commands.jobs.SHOWN_JOBS", 2)
    for count in (2, 3):
        while len(jobs.newest()) < count:
            jobs.add("/photos", {}, "tests")
        assert main(["jobs", "list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert (len(lines), "these are the newest 2" in lines[-1]) == (count, count == 3)


def test_the_list_is_one_json_array(jobs: Jobs, job_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = jobs.add("/more", {}, "tests")
    assert main(["jobs", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {one["id"] for one in listed} == {job_id, other}
    assert listed[0]["rate"] is None


def test_the_same_folder_queued_again_is_the_same_job_until_it_is_listed(
    jobs: Jobs, ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def queue(*options: str) -> tuple[str, bool]:
        assert main(["ingest", "--queue", "--json", *options, str(tmp_path)]) == 0
        printed = json.loads(capsys.readouterr().out)
        return printed["job"], printed["new"]

    first, is_new = queue("--exclude", "*.gif")
    assert is_new
    assert queue("--exclude", "*.gif") == (first, False)
    assert main(["ingest", "--queue", "--exclude", "*.gif", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"queued already, with the same options: job {first}\n"
    assert queue("--retry")[1], "other options"
    assert queue("--limit", "5")[1]
    assert queue("--limit", "5")[1], "each ingests five other files"
    worker = Worker(ledger.database, COLLECTION, "tests")
    worker.join()
    assert worker.take_job() == first
    assert queue("--exclude", "*.gif") == (first, False), "it lists the folder now"
    assert worker.hold("scan")
    claimed = ClaimedLedger(worker, first)
    claimed.add([File("/a.png", 1, 2, 3)], 1)
    claimed.end_scan({}, 1)
    assert main(["ingest", "--queue", "--exclude", "*.gif", str(tmp_path)]) == 0
    assert f"Job {first}, of the same folder, has listed its files already" in capsys.readouterr().out
    assert len(jobs.newest()) == 5
    worker.leave()


def test_an_ingest_is_not_queued_in_a_catalog_of_another_index(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "small")
    monkeypatch.setenv("MODEL_NAME", str(tmp_path / "small"))
    monkeypatch.setenv("CATALOG_URL", postgresql_url)
    monkeypatch.setattr("app.core.config.REPOSITORY", tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for data, code in (("one", 0), ("one", 0), ("two", 2)):
        monkeypatch.setenv("DATA_DIR", str(tmp_path / data))
        assert main(["ingest", "--queue", str(pictures)]) == code
    assert "belongs to another index" in capsys.readouterr().err
    settings = load_settings()
    with closing(open_ledger_of(settings, find_model(settings))) as ledger:
        assert len(Jobs(ledger.database, ledger.collection).newest()) == 1
    monkeypatch.setenv("CATALOG_URL", "postgresql://o:p@db.example:5432/o")
    assert main(["ingest", "--queue", str(pictures)]) == 2
    assert "Set QDRANT_URL to a Qdrant server" in capsys.readouterr().err


def test_a_stop_says_how_the_ingest_is_continued(
    ledger: Ledger, jobs: Jobs, job_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", "stop", job_id]) == 0
    assert f"`oceano jobs resume {job_id}` continues it" in capsys.readouterr().out
    running = jobs.add("/photos", {}, "tests")
    worker = Worker(ledger.database, COLLECTION, "tests")
    worker.join()
    assert worker.take_job() == running
    assert main(["jobs", "stop", running]) == 0
    out = capsys.readouterr().out
    assert "ends after the current files" in out
    assert f"`oceano jobs resume {running}` continues it" in out
    worker.leave()


def test_a_killed_ingest_is_listed_as_interrupted_for_everybody_and_resumed_by_the_first_command(
    ledger: Ledger, jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = Worker(ledger.database, COLLECTION, "tests")
    worker._register()  # without the thread that renews the lease
    killed = jobs.add("/photos", {}, "tests", worker=worker.id)
    assert main(["jobs", "show", killed]) == 0
    assert "; 1 worker\n" in capsys.readouterr().out
    assert main(["jobs", "resume", killed]) == 2
    assert "a process that was killed counts for 60 s" in capsys.readouterr().err
    with ledger.database.writing(urgent=True) as connection:
        connection.exec_driver_sql("UPDATE workers SET leased_until = 1")
    assert main(["jobs", "list"]) == 0
    assert "interrupted" in capsys.readouterr().out
    with ledger.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT state FROM jobs").scalar_one() == "interrupted"
    assert main(["jobs", "resume", killed]) == 0
    assert jobs.get(killed).state == "queued"


def test_the_number_of_all_files_is_shown_once(ledger: Ledger, jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    worker = Worker(ledger.database, COLLECTION, "tests")
    worker.join()
    job_id = jobs.add("/photos", {}, "tests", worker=worker.id)
    jobs.set_counts(job_id, {"files": 40, "total": 40, "done": 40})
    worker.leave()
    assert main(["jobs", "show", job_id]) == 0
    out = capsys.readouterr().out
    assert "40 of 40 files" in out
    assert "  40 done, 40 files; 0 workers\n" in out


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
