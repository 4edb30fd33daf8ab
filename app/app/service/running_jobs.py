"""The jobs that have not ended, for the page and the metrics: how far they are, each and together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from app.catalog import Job
from app.library import Progress
from app.metrics import Metrics

_STATES: Final = ("queued", "running", "stopping")
_WORKED_ON: Final = ("running", "stopping")


def progress_of(job: Job) -> Progress:
    """Return how many files a job is done with, and of how many; these are not known while its folder is listed."""
    finished = job.images + job.counts.get("skipped", 0) + job.counts.get("ignored", 0)
    if not job.shared:
        return Progress(finished, job.counts.get("total"))
    return Progress(finished, job.counts.get("files", 0) if job.phase != "scan" else None)


def common_progress(jobs: Iterable[Job]) -> Progress | None:
    """Return how far the jobs that workers work on are together; None if there are none."""
    each = [progress_of(job) for job in jobs if job.state in _WORKED_ON]
    if not each:
        return None
    totals = [one.total for one in each]
    known = [total for total in totals if total is not None]
    return Progress(sum(one.finished for one in each), sum(known) if len(known) == len(totals) else None)


def set_job_metrics(metrics: Metrics, jobs: Sequence[Job]) -> None:
    """Set the gauges of the jobs that have not ended.

    Args:
        metrics: the gauges.
        jobs: all jobs that have not ended.
    """
    for state in _STATES:
        metrics.jobs.labels(state).set(sum(job.state == state for job in jobs))
    metrics.job_workers.set(sum(job.workers for job in jobs))
    each = [progress_of(job) for job in jobs]
    metrics.job_files.set(sum(one.total or 0 for one in each))
    metrics.job_files_finished.set(sum(one.finished for one in each))
    metrics.job_images.set(sum(job.images for job in jobs))
    metrics.job_problems.set(sum(job.problems for job in jobs))
    metrics.job_rate.set(sum(job.rate or 0 for job in jobs if job.state in _WORKED_ON))
