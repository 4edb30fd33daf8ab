"""The ingests that have not ended, in the JSON of `GET /status`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from app.catalog import Job
from app.core.paths import readable
from app.service import progress_of


class JobStatus(BaseModel):
    """An ingest that has not ended."""

    id: str
    folder: str
    state: Literal["queued", "running", "stopping"] = Field(
        description="`queued`: it waits for a worker, at its start or because all its workers are gone"
    )
    files: int | None = Field(description="files of the folder; null until it is listed, and if one process does all")
    finished: int = Field(description="files that it is done with, the unchanged ones included")
    images: int = Field(description="files whose content was processed")
    rate: float | None = Field(description="`images` per second since the start; null if it has not started")
    failed: int = Field(description="files whose processing failed, each time counted")
    problems: int = Field(description="files that failed; `oceano jobs show` has them")
    workers: int = Field(description="processes that work on it now")
    started_by: str = Field(description="user and machine")
    created_at: str = Field(description="ISO 8601 in UTC")
    started_at: str | None = Field(description="ISO 8601 in UTC; null if it has not started")
    error: str | None = Field(description="code of the last error of a worker; the ingest goes on")
    message: str | None = Field(description="one sentence about the error")

    @classmethod
    def of(cls, job: Job) -> JobStatus:
        """Describe a job that has not ended."""
        progress = progress_of(job)
        return cls.model_validate(
            {
                "id": job.id,
                "folder": readable(job.folder),
                "state": job.state,
                "files": progress.total,
                "finished": progress.finished,
                "images": job.images,
                "rate": None if job.rate is None else round(job.rate, 2),
                "failed": job.counts.get("failed", 0),
                "problems": job.problems,
                "workers": job.workers,
                "started_by": job.started_by,
                "created_at": job.created_at,
                "started_at": job.started_at,
                "error": job.error,
                "message": job.message,
            }
        )
