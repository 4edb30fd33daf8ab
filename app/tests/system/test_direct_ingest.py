"""An ingest that is started again right after it was killed, with PostgreSQL, waits for what the dead one had."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from threading import Event, Timer

import cv2
import numpy as np
import pytest

from app.catalog import Ledger, Worker, open_postgresql
from app.catalog.claims import JobLedger
from app.catalog.jobs import Jobs
from app.images import ThumbStore, image_id_of
from app.ingest import Ingest, IngestOptions
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
