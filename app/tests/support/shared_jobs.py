"""Shared jobs in a PostgreSQL catalog: queue a folder, look at the job, compare results."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

from app.catalog import Job, Jobs, Ledger, open_postgresql
from app.core.types import collection_name
from app.service.jobs import options_of
from app.service.request import IngestRequest
from tests.support.fakes import FAKE_PACK

COLLECTION = collection_name("faces", FAKE_PACK)


def queue_folder(folder: Path, url: str) -> str:
    """Queue the ingest of a folder; the id of the job."""
    with closing(Ledger(open_postgresql(url), COLLECTION)) as ledger:
        return Jobs(ledger.database, COLLECTION).add(str(folder), options_of(IngestRequest(folder)), "tests")


def job_of(job_id: str, url: str) -> Job:
    """The job as it is now."""
    with closing(Ledger(open_postgresql(url), COLLECTION)) as ledger:
        return Jobs(ledger.database, COLLECTION).get(job_id)


def results_by_image(ledger: Ledger) -> dict[str | None, Counter[tuple[str, int]]]:
    """Status and faces of the files, by image; which of several copies represents an image may differ."""
    found: dict[str | None, Counter[tuple[str, int]]] = {}
    for one in ledger.files("/"):
        found.setdefault(one.image_id, Counter())[one.status, one.faces] += 1
    return found
