"""`oceano worker`: take part in queued ingests until it is stopped."""

from __future__ import annotations

from threading import Event

from app.catalog import ENDED, Job
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
    lines = _Lines()
    with open_worker(settings, stop, lines.say_job, say) as worker:
        if not once:
            say("waiting for queued ingests; Ctrl-C ends the worker after the current files")
        worker.run(once=once)
    if stop.is_set():
        return EXIT_INTERRUPTED
    say("no ingest is queued any more" if lines.any_job else "no ingest is queued")
    return EXIT_OK


class _Lines:
    """Says which jobs the worker begins and leaves.

    A worker that finds nothing to do for some seconds leaves a job and begins it again, which is said only once.
    """

    def __init__(self) -> None:
        self.any_job = False
        self._said: set[tuple[str, str, str]] = set()

    def say_job(self, job: Job, what: str) -> None:
        """Say that the worker has begun or left a job."""
        self.any_job = True
        line = (job.id, what, job.state)
        if line not in self._said:
            say(f"{what} job {job.id} ({plain(readable(job.folder))}): {job.state}, {progress(job)}")
        self._said.add(line)
        if job.state in ENDED:  # it may be resumed
            self._said = {one for one in self._said if one[0] != job.id}
