"""`oceano jobs`: list, show, stop and resume ingests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from itertools import islice
from typing import Any, Final

from app.catalog import LEASE_SECONDS, Job, Jobs, Problem
from app.commands.console import counted, plain, say
from app.core.config import Settings
from app.core.errors import EXIT_OK, OceanoError
from app.core.paths import readable
from app.service import find_model, open_ledger, progress_of

SHOWN_JOBS: Final = 50
SHOWN_PROBLEMS: Final = 20
_IN_THE_LINE: Final = "total"  # the count that the line of a job has already


def run_list(settings: Settings, *, as_json: bool) -> int:
    """Print the newest jobs, a line each, or as a JSON array."""
    with _jobs(settings) as jobs:
        newest = jobs.newest(SHOWN_JOBS + 1)
    newest, are_more = newest[:SHOWN_JOBS], len(newest) > SHOWN_JOBS
    if as_json:
        say(json.dumps([_as_json(job) for job in newest]))
    elif not newest:
        say("no ingests yet")
    else:
        for job in newest:
            say(_line(job))
        if are_more:
            say(f"and older ones; these are the newest {SHOWN_JOBS}")
    return EXIT_OK


def run_show(settings: Settings, job_id: str, *, as_json: bool) -> int:
    """Print a job with its problems: the first ones as text, or all of them in one JSON object.

    Raises:
        OceanoError: `not_found`.
    """
    with _jobs(settings) as jobs:
        job = jobs.get(job_id)
        problems = jobs.problems(job.id)
        if as_json:
            say(json.dumps(_as_json(job) | {"problems": [_problem(one) for one in problems]}))
            return EXIT_OK
        say(_line(job))
        say(f"  by {job.started_by}, {job.created_at}" + (f" to {job.ended_at}" if job.ended_at else ""))
        numbers = [(name, number) for name, number in sorted(job.counts.items()) if number and name != _IN_THE_LINE]
        counts = ", ".join(f"{number} {name}" for name, number in numbers)
        say(f"  {counts or 'nothing yet'}; {counted(job.workers, 'worker')}")
        if job.error:
            say(f"  {job.message} ({job.error})")
        for one in islice(problems, SHOWN_PROBLEMS):
            say(f"  {plain(readable(one.path))}: {plain(one.message)} ({one.code})")
        if job.problems > SHOWN_PROBLEMS:
            say(f"  and {job.problems - SHOWN_PROBLEMS} more; --json has all of them")
    return EXIT_OK


def run_stop(settings: Settings, job_id: str) -> int:
    """Stop a job after the current files.

    Raises:
        OceanoError: `not_found`, `invalid_request`.
    """
    with _jobs(settings) as jobs:
        job = jobs.stop(job_id)
    say(_line(job))
    continues = f"`oceano jobs resume {job.id}` continues it"
    if job.state == "stopping":
        continues = (
            f"it ends after the current files, or within {LEASE_SECONDS} s if its process was killed; then {continues}"
        )
    say(continues)
    return EXIT_OK


def run_resume(settings: Settings, job_id: str) -> int:
    """Queue a job again that was interrupted or failed.

    Raises:
        OceanoError: `not_found`, `invalid_request`.
    """
    with _jobs(settings) as jobs:
        say(_line(jobs.resume(job_id)))
        say("`oceano worker` continues it")
    return EXIT_OK


@contextmanager
def _jobs(settings: Settings) -> Iterator[Jobs]:
    with closing(open_ledger(settings, find_model(settings))) as ledger:
        jobs = Jobs(ledger.database, ledger.collection)
        with suppress(OceanoError):  # such as a full disk: the jobs can still be read
            jobs.settle()
        yield jobs


def progress(job: Job) -> str:
    """Return how many files of a job are done, and how many it has; those of earlier runs count."""
    known = progress_of(job)
    return f"{known.finished} files" if known.total is None else f"{known.finished} of {known.total} files"


def _line(job: Job) -> str:
    rate = "" if job.rate is None else f", {job.rate:.1f} images/s"
    return f"{job.id}  {job.state:<11}  {progress(job)}{rate}  {plain(readable(job.folder))}"


def _as_json(job: Job) -> dict[str, Any]:
    values = asdict(job)
    values["problem_count"] = values.pop("problems")
    return values | {"folder": readable(job.folder), "images": job.images, "rate": job.rate}


def _problem(one: Problem) -> dict[str, str]:
    return {"path": readable(one.path), "code": one.code, "message": one.message}
