"""An ingest beside others on PostgreSQL: one that was killed or lost its lease, and what others do then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Timer

import cv2
import numpy as np
import pytest

from app.catalog import Ledger, Worker, open_postgresql
from app.catalog.claims import JobLedger
from app.catalog.jobs import Jobs
from app.core.errors import OceanoError
from app.core.types import Face, Picture
from app.images import ThumbStore, image_id_of
from app.ingest import Ingest, IngestOptions
from app.service.jobs import recorded_ingest
from app.service.request import IngestRequest
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.shared_jobs import COLLECTION


def test_images_of_a_dead_ingest_are_processed_once_its_lease_has_ended(
    tmp_path: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.catalog.workers.RENEW_SECONDS", 0.3)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "a.png"), np.full((48, 64, 3), (200, 40, 40), dtype=np.uint8))
    image_id = image_id_of((pictures / "a.png").read_bytes())
    with closing(Ledger(open_postgresql(postgresql_url), COLLECTION)) as ledger:
        jobs = Jobs(ledger.database, COLLECTION)
        dead = Worker(ledger.database, COLLECTION, "dead", lease_seconds=2)
        dead._register()  # without the thread that renews it
        assert JobLedger(dead, jobs.add("/", {}, "tests", worker=dead.id)).reserve(image_id)

        stop = Event()
        worker = Worker(ledger.database, COLLECTION, "again", stop=stop)
        worker.join()
        again = JobLedger(worker, jobs.add(str(pictures), {}, "tests", worker=worker.id))
        assert not again.reserve(image_id)
        thumbs = ThumbStore(tmp_path / "thumbs")
        timer = Timer(30, stop.set)  # else a failure would wait forever
        timer.start()
        counts = Ingest(FakeEngine(), MemoryIndex(), again, thumbs, IngestOptions(10**6), stop=stop).run(pictures)
        assert (counts.files, counts.done) == (1, 1)
        timer.cancel()
        worker.leave()
        assert [job.state for job in jobs.newest()] == ["interrupted", "interrupted"]


class DisturbedEngine(FakeEngine):
    """A fake engine that calls a function before each picture."""

    def __init__(self, disturb: Callable[[], None]) -> None:
        super().__init__()
        self._disturb = disturb

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        self._disturb()
        return super().analyze(pictures, timings)


@pytest.mark.parametrize("when", ["meanwhile", "at the end"])
def test_an_ingest_whose_lease_ended_fails_and_leaves_its_job_to_the_others(
    tmp_path: Path, postgresql_url: str, when: str
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "a.png"), np.full((48, 64, 3), (200, 40, 40), dtype=np.uint8))
    with closing(Ledger(open_postgresql(postgresql_url), COLLECTION)) as ledger:
        jobs = Jobs(ledger.database, COLLECTION)
        other = Worker(ledger.database, COLLECTION, "other")
        other._register()

        def lose_lease() -> None:
            """As if this process was suspended for a while, or cut off."""
            with ledger.database.writing(urgent=True) as connection:
                connection.exec_driver_sql("UPDATE workers SET leased_until = 1 WHERE name <> 'other'")
            jobs.resume(jobs.newest()[0].id)
            other.take_job()

        engine = DisturbedEngine(lose_lease if when == "meanwhile" else lambda: None)
        request = IngestRequest(pictures)
        with (
            pytest.raises(OceanoError, match="others may do its job") as caught,
            recorded_ingest(ledger, request, Event()) as recorded,
        ):
            ingest = Ingest(
                engine, MemoryIndex(), recorded.ledger, ThumbStore(tmp_path / "thumbs"), IngestOptions(10**6)
            )
            try:
                ingest.run(pictures)
            finally:
                if when == "at the end":
                    lose_lease()
                recorded.set_counts(ingest.counts, 1)
        assert (caught.value.code, caught.value.exit_code) == ("ingest_in_progress", 3)
        job = jobs.newest()[0]
        assert (job.state, job.shared, job.workers, job.counts, job.error) == ("running", True, 1, {}, None)
        assert ledger.totals().done == (1 if when == "at the end" else 0)
