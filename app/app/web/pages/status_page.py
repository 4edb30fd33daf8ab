"""The status as a page: `GET /status` for a browser; programs get JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from fastapi.requests import Request
from fastapi.responses import HTMLResponse

from app.core.texts import Translator, translator
from app.core.types import RUNTIME_NAMES
from app.library import Progress
from app.web.api.job_status import JobStatus
from app.web.api.responses import (
    DeviceStatus,
    GpuStatus,
    IndexStatus,
    IngestStatus,
    IngestUnavailable,
    RuntimeStatus,
    StatusResponse,
)
from app.web.i18n import language_of
from app.web.pages.result_views import day_text
from app.web.pages.templating import render

_SECONDS: Final = (("days", 86_400), ("hours", 3_600), ("minutes", 60))

Rows = tuple[tuple[str, str], ...]


def status_page(request: Request, status: StatusResponse) -> HTMLResponse:
    """Render the status.

    Args:
        request: decides the language.
        status: what `GET /status` returns as JSON.
    """
    t = translator(language_of(request))
    sections = (
        (t("status.model"), _model(status, t)),
        (t("status.device"), _device(status.device, t)),
        (t("status.index"), _index(status, t)),
        *(((t("status.ingest"), _ingest(status.ingest, t)),) if status.ingest else ()),
        *(((t("status.imports"), _jobs(status, t)),) if status.jobs else ()),
        (t("status.versions"), _versions(status, t)),
    )
    is_well = status.engine.healthy and status.index.ok
    response = render(request, "status.html", {"sections": sections, "is_well": is_well})
    response.headers["Vary"] += ", Accept"
    return response


def _model(status: StatusResponse, t: Translator) -> Rows:
    health = t("status.healthy") if status.engine.healthy else status.engine.message or t("status.unhealthy")
    return (
        (t("status.name"), status.model.name),
        (t("status.digest"), status.model.digest),
        (t("status.check"), health),
        (t("page.threshold"), t.decimal(f"{status.threshold:.2f}")),
        (t("status.embedding_size"), t.number(status.embedding_size)),
        (t("sureness.very_likely"), t("status.from", similarity=t.decimal(f"{status.bands.very_likely:.2f}"))),
        (t("sureness.likely"), t("status.from", similarity=t.decimal(f"{status.bands.likely:.2f}"))),
    )


def _device(device: DeviceStatus, t: Translator) -> Rows:
    networks = ((name, device.runtimes[name]) for name in ("detector", "recogniser") if name in device.runtimes)
    return (
        (t("status.device"), "CPU" if device.device == "cpu" else "GPU"),
        *((t(f"status.{name}"), _runtime(runtime)) for name, runtime in networks),
        *((t("status.gpu"), _gpu(gpu, t)) for gpu in device.gpus),
    )


def _runtime(runtime: RuntimeStatus) -> str:
    return f"{RUNTIME_NAMES[runtime.runtime]} {runtime.version}, {runtime.precision}"


def _gpu(gpu: GpuStatus, t: Translator) -> str:
    return t("status.gpu_memory", name=gpu.name, used=t.size(gpu.memory_used), total=t.size(gpu.memory_total))


def _index(status: StatusResponse, t: Translator) -> Rows:
    index = status.index
    if not isinstance(index, IndexStatus):
        return ((t("status.state"), index.message or t("footer.unknown")),)
    rows = [
        (t("status.state"), t("status.reachable") if index.ok else t("footer.unknown")),
        (t("status.kind"), t(f"status.kind.{index.kind}")),
        (t("status.faces"), t.number(index.points)),
    ]
    if index.indexed is not None:
        rows.append((t("status.in_graph"), t.number(index.indexed)))
    if index.disk_bytes is not None:
        rows.append((t("status.disk"), t.size(index.disk_bytes)))
    if index.maintaining:
        rows.append((t("status.work"), t("status.maintaining")))
    if index.copies_missing:
        rows.append((t("status.copies_missing"), t.number(index.copies_missing)))
    if index.damaged_files:
        rows.append((t("status.damaged_files"), t.number(index.damaged_files)))
    return tuple(rows)


def _ingest(found: IngestStatus | IngestUnavailable, t: Translator) -> Rows:
    if not isinstance(found, IngestStatus):
        return ((t("status.state"), found.message),)
    return (
        (t("status.done"), t.number(found.done)),
        (t("status.no_face"), t.number(found.no_face)),
        (t("status.failed"), t.number(found.failed)),
        (t("status.duplicate"), t.number(found.duplicate)),
        (t("status.faces"), t.number(found.faces)),
    )


def _jobs(status: StatusResponse, t: Translator) -> Rows:
    rows = [(job.folder, _job(job, t)) for job in status.jobs or ()]
    if status.jobs_left_out:
        rows.append((t("status.job.left_out"), t.number(status.jobs_left_out)))
    return tuple(rows)


def _job(job: JobStatus, t: Translator) -> str:
    """Return how far an ingest is, in words: "running, 43 %, 860 of 2,000 files, 12.3 photographs/s, 3 workers"."""
    words = [t(f"status.job.{job.state}")]
    percent = Progress(job.finished, job.files).percent
    if percent is not None:
        finished, files = t.number(job.finished), t.number(job.files or 0)
        words.append(t("status.job.files", percent=percent, finished=finished, files=files))
    elif job.finished or job.state != "queued":
        words.append(t.count("status.job.files_so_far", job.finished))
    if job.rate is not None and job.state != "queued":
        words.append(t("status.job.rate", rate=t.decimal(f"{job.rate:.1f}")))
    if job.workers:
        words.append(t.count("status.job.workers", job.workers))
    if job.problems:
        words.append(t.count("status.job.problems", job.problems))
    words.append(t("status.job.started_by", who=job.started_by))
    return ", ".join(words) + (f". {job.message}" if job.message else "")


def _versions(status: StatusResponse, t: Translator) -> Rows:
    started = datetime.fromtimestamp(status.started_at, UTC).astimezone()
    return (
        ("Oceano", status.versions.oceano),
        ("Python", status.versions.python),
        (t("status.started"), f"{day_text(started.date().isoformat(), t)}, {started:%H:%M}"),
        (t("status.running_for"), _duration(status.uptime_seconds, t)),
    )


def _duration(seconds: float, t: Translator) -> str:
    """Return a time in its two largest units, such as "3 days, 4 hours"."""
    parts, left = [], max(60, int(seconds))
    for unit, size in _SECONDS:
        n, left = divmod(left, size)
        if n:
            parts.append(t.count(f"status.{unit}", n))
    return ", ".join(parts[:2])
