"""The states of jobs, who may change them, and what is kept of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from app.catalog import ClaimedLedger, FileRecord, JobLedger, Jobs, Worker
from app.catalog import jobs as module
from app.catalog.database import Database
from app.core.errors import OceanoError
from app.core.types import File


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database, "c")


def _worker(jobs: Jobs, name: str = "one", lease_seconds: int = 60) -> Worker:
    worker = Worker(jobs.database, "c", name, lease_seconds=lease_seconds)
    worker._register()  # without a thread that renews the lease
    return worker


def _expire(jobs: Jobs, worker: Worker) -> None:
    with jobs.database.writing(urgent=True) as connection:
        connection.exec_driver_sql(f"UPDATE workers SET leased_until = 1 WHERE id = '{worker.id}'")


def _set(jobs: Jobs, job_id: str, values: str) -> None:
    with jobs.database.writing(urgent=True) as connection:
        connection.exec_driver_sql(f"UPDATE jobs SET {values} WHERE id = '{job_id}'")


def _ago(seconds: int) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")


def test_a_queued_job_runs_while_it_has_a_worker(jobs: Jobs) -> None:
    job_id = jobs.add("/photos", {"retry": True}, "ann@one")
    job = jobs.get(job_id)
    assert (job.state, job.shared, job.folder, job.options) == ("queued", True, "/photos", {"retry": True})
    assert (job.rate, job.started_at, job.workers) == (None, None, 0)
    worker = _worker(jobs)
    assert worker.take_job() == job_id
    job = jobs.get(job_id)
    assert (job.state, job.workers, job.rate) == ("running", 1, 0.0)
    worker.release_job()
    assert jobs.get(job_id).state == "queued"
    assert [one.id for one in jobs.running()] == [job_id]


def test_an_ingest_of_one_process_is_interrupted_with_it(jobs: Jobs) -> None:
    worker = _worker(jobs)
    job_id = jobs.add("/photos", {}, "ann", worker=worker.id)
    assert (jobs.get(job_id).state, jobs.get(job_id).shared) == ("running", False)
    _expire(jobs, worker)
    assert jobs.get(job_id).state == "interrupted", "before anybody has removed the dead worker"
    assert jobs.running() == []
    _worker(jobs, "two")
    assert jobs.get(job_id).ended_at is not None
    assert jobs.resume(job_id).state == "queued"
    assert jobs.get(job_id).shared


def test_the_first_resume_of_an_ingest_whose_process_was_killed_queues_it(jobs: Jobs) -> None:
    worker = _worker(jobs)
    job_id = jobs.add("/photos", {}, "ann", worker=worker.id)
    assert jobs.stop(job_id).state == "stopping"
    with pytest.raises(OceanoError, match="stopping"):
        jobs.resume(job_id)
    _expire(jobs, worker)
    assert jobs.resume(job_id).state == "queued"
    assert _worker(jobs, "two").take_job() == job_id


def test_a_stop_of_a_job_whose_workers_are_dead_interrupts_it_at_once(jobs: Jobs) -> None:
    worker = _worker(jobs)
    job_id = jobs.add("/photos", {}, "ann")
    assert worker.take_job() == job_id
    _expire(jobs, worker)
    job = jobs.stop(job_id)
    assert (job.state, job.ended_at is None) == ("interrupted", False)
    assert jobs.resume(job_id).state == "queued"


def test_settling_records_the_end_of_a_killed_ingest_when_it_was_last_seen(jobs: Jobs) -> None:
    worker = _worker(jobs)
    job_id = jobs.add("/photos", {}, "ann", worker=worker.id)
    _set(jobs, job_id, f"started_at = '{_ago(1000)}', counts = '{{\"done\": 300}}'")
    seen = int(time.time()) - 900
    with jobs.database.writing(urgent=True) as connection:
        connection.exec_driver_sql(f"UPDATE workers SET leased_until = {seen + 60}")
    jobs.settle()
    job = jobs.get(job_id)
    assert job.state == "interrupted"
    assert job.ended_at is not None
    assert datetime.fromisoformat(job.ended_at).timestamp() == seen
    assert job.rate == pytest.approx(3, rel=0.02), "100 s of work, however late the death is noticed"


def test_a_resume_that_its_last_process_does_not_allow_yet_is_refused(jobs: Jobs) -> None:
    worker = _worker(jobs)
    job_id = jobs.add("/photos", {}, "ann", worker=worker.id)
    jobs.end(job_id, "failed", OceanoError("disk_full", "no space left"))
    with pytest.raises(OceanoError, match="is ending") as caught:
        jobs.resume(job_id)
    assert caught.value.code == "invalid_request"
    assert jobs.get(job_id).state == "failed"
    worker.leave()
    assert jobs.resume(job_id).state == "queued"


def test_the_rate_of_a_resumed_job_is_that_of_its_last_run(jobs: Jobs) -> None:
    job_id = jobs.add("/photos", {}, "ann")
    worker = _worker(jobs)
    assert worker.take_job() == job_id
    _set(jobs, job_id, f"counts = '{{\"done\": 900, \"files\": 2000}}', started_at = '{_ago(5000)}'")
    jobs.stop(job_id)
    worker.release_job()
    assert jobs.resume(job_id).rate is None, "nobody works on it"
    worker.stop.clear()
    assert worker.take_job() == job_id
    job = jobs.get(job_id)
    assert (job.images, job.images_before, job.rate) == (900, 900, 0.0)
    _set(jobs, job_id, f"counts = '{{\"done\": 1000, \"files\": 2000}}', resumed_at = '{_ago(50)}'")
    assert jobs.get(job_id).rate == pytest.approx(2, rel=0.05)


def test_a_second_worker_does_not_begin_the_rate_anew(jobs: Jobs) -> None:
    job_id = jobs.add("/photos", {}, "ann")
    one, two = _worker(jobs, "one"), _worker(jobs, "two")
    assert one.take_job() == job_id
    _set(jobs, job_id, f"counts = '{{\"done\": 100}}', started_at = '{_ago(50)}'")
    assert two.take_job() == job_id
    job = jobs.get(job_id)
    assert (job.images_before, job.resumed_at) == (0, None)
    assert job.rate == pytest.approx(2, rel=0.05)


def test_the_rate_of_a_job_whose_workers_are_dead_does_not_sink(jobs: Jobs) -> None:
    job_id = jobs.add("/photos", {}, "ann")
    worker = _worker(jobs)
    assert worker.take_job() == job_id
    _set(jobs, job_id, f"counts = '{{\"done\": 100}}', started_at = '{_ago(50)}'")
    _expire(jobs, worker)
    assert (jobs.get(job_id).state, jobs.get(job_id).rate) == ("queued", None)


def test_an_ended_ingest_has_its_state_and_error(jobs: Jobs) -> None:
    worker = _worker(jobs)
    done, failed = (jobs.add("/photos", {}, "ann", worker=worker.id) for _ in range(2))
    jobs.end(done, "done")
    jobs.end(failed, "failed", OceanoError("disk_full", "no space left"))
    assert (jobs.get(done).state, jobs.get(done).error) == ("done", None)
    assert (jobs.get(failed).state, jobs.get(failed).error, jobs.get(failed).message) == (
        "failed", "disk_full", "no space left",
    )  # fmt: skip
    for change in (jobs.stop, jobs.resume):
        with pytest.raises(OceanoError, match="done") as caught:
            change(done)
        assert caught.value.code == "invalid_request"


def test_a_stop_ends_a_queued_job_at_once_and_a_running_one_after_its_worker(jobs: Jobs) -> None:
    queued = jobs.add("/photos", {}, "ann")
    assert jobs.stop(queued).state == "interrupted"
    job_id = jobs.add("/photos", {}, "ann")
    worker = _worker(jobs)
    assert worker.take_job() == job_id
    assert jobs.stop(job_id).state == "stopping"
    assert jobs.get(job_id).state == "stopping"
    assert not worker.stop.is_set()
    worker.renew()
    assert worker.stop.is_set()
    assert _worker(jobs, "two").take_job() is None, "nobody joins a job that is to stop"
    worker.release_job()
    assert jobs.get(job_id).state == "interrupted"
    assert jobs.resume(job_id).state == "queued"
    assert worker.take_job() == job_id


def test_a_worker_learns_that_its_lease_was_lost_and_joins_again(jobs: Jobs) -> None:
    worker = _worker(jobs)
    _expire(jobs, worker)
    _worker(jobs, "two")  # removes it
    lost = worker.id
    worker.renew()
    assert worker.stop.is_set()
    job_id = jobs.add("/photos", {}, "ann")
    assert worker.take_job() == job_id
    assert worker.id != lost


def test_an_ingest_that_lost_its_lease_changes_nothing_and_is_told(jobs: Jobs) -> None:
    lost, other = _worker(jobs), _worker(jobs, "other")
    job_id = jobs.add("/photos", {}, "ann", worker=lost.id)
    ledger = JobLedger(lost, job_id)
    jobs.set_total(job_id, 7, worker=lost.id)
    _expire(jobs, lost)
    jobs.resume(job_id)
    assert other.take_job() == job_id
    before = jobs.get(job_id)
    failed = OceanoError("disk_full", "no space left")
    for change in (
        lambda: jobs.set_total(job_id, 9, worker=lost.id),
        lambda: jobs.set_counts(job_id, {"done": 9}, worker=lost.id),
        lambda: jobs.end(job_id, "failed", failed, worker=lost.id),
        lambda: ledger.record([FileRecord("/a", 1, 2, "i1", "done", 1)], counts={"done": 1}),
        ledger.flush,
    ):
        with pytest.raises(OceanoError, match=f"others may do its job {job_id} now") as caught:
            change()
        assert caught.value.code == "ingest_in_progress"
    assert jobs.get(job_id) == before
    assert ledger.file("/a") is None
    if jobs.database.has_many_writers:
        with pytest.raises(OceanoError, match="others may do its job"):
            ledger.reserve("i1")
        assert JobLedger(other, job_id).reserve("i1"), "nobody has the image"


def test_workers_that_were_late_themselves_leave_the_others_time(jobs: Jobs) -> None:
    ingest, idle = _worker(jobs, "ingest"), _worker(jobs, "idle", lease_seconds=1)
    job_id = jobs.add("/photos", {}, "ann", worker=ingest.id)
    _expire(jobs, ingest)
    _expire(jobs, idle)  # the catalog was away
    idle.take_job()
    idle.renew()
    ingest.renew()
    assert (jobs.get(job_id).state, ingest.stop.is_set()) == ("running", False)
    _expire(jobs, ingest)
    time.sleep(1.1)
    idle.renew()  # late again
    time.sleep(1.1)
    _renew_in_time(jobs, idle)
    idle.renew()
    assert jobs.get(job_id).state == "interrupted"
    ingest.renew()
    assert ingest.stop.is_set()


def _renew_in_time(jobs: Jobs, worker: Worker) -> None:
    with jobs.database.writing(urgent=True) as connection:
        connection.exec_driver_sql(f"UPDATE workers SET leased_until = leased_until + 9 WHERE id = '{worker.id}'")


def test_what_a_dead_worker_had_is_free_for_others(jobs: Jobs) -> None:
    job_id = jobs.add("/photos", {}, "ann")
    dead, other = _worker(jobs, "dead"), _worker(jobs, "other")
    assert dead.take_job() == job_id
    assert dead.hold("scan")
    claimed = ClaimedLedger(dead, job_id)
    claimed.add([File(f"/{number}", 1, 2, 3) for number in range(4)], 4)
    assert len(claimed.take(3)) == 3
    assert claimed.reserve("i1")
    assert other.take_job() == job_id
    mine = ClaimedLedger(other, job_id)
    assert [one.path for one in mine.take(9)] == ["/3"], "two workers never have the same file"
    assert not other.hold("scan")
    _expire(jobs, dead)
    other.renew()
    assert [one.path for one in mine.take(9)] == ["/0", "/1", "/2"]
    assert mine.reserve("i1")
    assert other.hold("scan")
    assert not claimed.add([File("/5", 1, 2, 3)], 5), "the dead one scans no more"
    assert mine.unclaimed(["/0", "/5"]) == ["/5"]
    mine.add([File("/0", 1, 2, 3), File("/5", 1, 2, 3)], 5)
    assert [one.path for one in mine.take(9)] == ["/5"], "a second scan adds no file twice"


def test_a_job_is_finished_by_one_worker_after_its_last_file(jobs: Jobs) -> None:
    job_id = jobs.add("/photos", {}, "ann")
    one, two = _worker(jobs, "one"), _worker(jobs, "two")
    assert one.take_job() == job_id
    assert one.hold("scan")
    ledger = ClaimedLedger(one, job_id)
    ledger.add([File("/a", 1, 2, 3), File("/b", 1, 2, 3)], 2)
    assert not one.hold("finish")
    ledger.end_scan({"skipped": 7}, 9)
    assert len(ledger.take(9)) == 2
    ledger.skip("/b", "ignored")
    assert two.take_job() is None, "nothing is left to do for another worker"
    ledger.record([FileRecord("/a", 1, 2, "i", "failed", reason="invalid_image", message="no")], counts={"failed": 1})
    assert two.take_job() == job_id
    assert two.hold("finish")
    assert not one.hold("finish")
    ledger.end_job({"moved": 1})
    assert jobs.get(job_id).state == "running", "only who finishes the job ends it"
    ClaimedLedger(two, job_id).end_job({"moved": 1})
    job = jobs.get(job_id)
    assert (job.state, job.problems) == ("done", 1)
    assert job.counts == {"files": 9, "skipped": 7, "ignored": 1, "failed": 1, "moved": 1}
    assert [(one.path, one.code, one.message) for one in jobs.problems(job_id)] == [("/a", "invalid_image", "no")]


def test_a_deferred_file_is_free_again_after_some_seconds(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.catalog.claims._DEFER_SECONDS", 1)
    job_id = jobs.add("/photos", {}, "ann")
    worker = _worker(jobs)
    assert worker.take_job() == job_id
    ledger = ClaimedLedger(worker, job_id)
    assert worker.hold("scan")
    ledger.add([File("/a", 1, 2, 3)], 1)
    ledger.end_scan({}, 1)
    assert len(ledger.take(1)) == 1
    assert ledger.defer("/a")
    assert ledger.take(1) == []
    assert ledger.is_any_free()
    time.sleep(2.1)  # the clock has seconds
    assert [one.path for one in ledger.take(1)] == ["/a"]
    assert not ledger.is_any_free()


def test_ids_may_be_shortened_if_they_stay_clear(jobs: Jobs) -> None:
    job_id = jobs.add("/photos", {}, "ann")
    assert jobs.get(job_id[:8]).id == job_id
    for wrong in ("", "nothing", "%"):
        with pytest.raises(OceanoError) as caught:
            jobs.get(wrong)
        assert caught.value.code == "not_found"


def test_the_newest_jobs_are_kept_and_those_that_have_not_ended(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 3)
    queued = jobs.add("/photos", {}, "ann")
    for _ in range(6):
        jobs.stop(jobs.add("/photos", {}, "ann"))
    assert len(jobs.newest()) == 5
    assert jobs.get(queued).state == "queued"


def test_counts_of_one_process_are_written_in_time(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.catalog.claims.COUNTS_SECONDS", 60)
    worker = _worker(jobs)
    ledger = JobLedger(worker, jobs.add("/photos", {}, "ann", worker=worker.id))
    ledger.record([FileRecord("/a", 1, 2, "i", "done", 1)], counts={"done": 1})
    ledger.record([FileRecord("/b", 1, 2, "j", "done", 1)], counts={"done": 1})
    ledger.skip("/c", "skipped")
    assert jobs.newest()[0].counts == {"done": 1}
    ledger.flush()
    assert jobs.newest()[0].counts == {"done": 2, "skipped": 1}
