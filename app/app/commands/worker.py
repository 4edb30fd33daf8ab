"""`oceano worker`: take part in queued ingests until it is stopped."""

from __future__ import annotations

from threading import Event

from app.catalog import Job
from app.commands.console import plain, say
from app.commands.jobs import progress
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK
from app.core.paths import readable
from app.service import open_worker


def run_worker(settings: Settings, stop: Event, *, once: bool) -> int:
    """Work on jobs until `stop` is set.

    Args:
        settings: name the catalog, the index and the model.
        stop: once set, the current files are finished.
        once: end when no job is queued or running.

    Returns:
        The exit code: 0 if there are no more jobs, 130 if stopped.

    Raises:
        OceanoError: as `open_worker` and `IngestWorker.run` do.
    """
    with open_worker(settings, stop, _say_job) as worker:
        say("waiting for jobs; Ctrl-C ends the worker after the current files")
        worker.run(once=once)
    return EXIT_INTERRUPTED if stop.is_set() else EXIT_OK


def _say_job(job: Job, what: str) -> None:
    say(f"{what} job {job.id} ({plain(readable(job.folder))}): {job.state}, {progress(job)}")
