"""`GET /health`, `/status`, `/metrics`, `/openapi.json`."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict
from typing import Final

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from app import __version__
from app.metrics import CONTENT_TYPE, gpu_usage
from app.service import Services
from app.web.api.job_status import JobStatus
from app.web.api.responses import (
    BandsStatus,
    Check,
    Checks,
    DeviceStatus,
    EngineStatus,
    HealthResponse,
    IndexStatus,
    IndexUnavailable,
    IngestStatus,
    IngestUnavailable,
    Model,
    StatusResponse,
    Versions,
    finite,
)
from app.web.deps import ServicesDep
from app.web.errors import accepts_html
from app.web.root_path import root_path_of

_MOST_JOBS: Final = 50  # in one answer; thousands may wait
# Numbers of the whole index, which somebody who sees some folders does not get.
_OF_ALL_FOLDERS: Final = dict.fromkeys(("indexed", "segments", "copies_missing", "damaged_files", "disk_bytes"))

router = APIRouter()
public_router = APIRouter()  # its routes need no key


@public_router.get("/health", responses={503: {"model": HealthResponse, "description": "a part is unavailable"}})
async def health(services: ServicesDep, response: Response) -> HealthResponse:
    """Say at once whether a search would work: 200, or 503 with the reason."""
    engine = services.engine.health
    index_ok = services.monitor.index_ok
    ok = engine.healthy and index_ok
    if not ok:
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    return HealthResponse(
        status="ok" if ok else "unavailable",
        checks=Checks(
            engine=Check(ok=engine.healthy, message=engine.message),
            index=Check(ok=index_ok, message="" if index_ok else services.monitor.snapshot.index_error),
        ),
    )


@router.get("/status", response_model=StatusResponse)
async def status(request: Request, services: ServicesDep, response: Response) -> StatusResponse | Response:
    """Return model, device, index, ingest, running ingests, versions and uptime."""
    current = await _status(services)
    if accepts_html(request):
        page: Response = request.app.state.status_page(request, current)
        return page
    response.headers["Vary"] = "Accept"
    return current


async def _status(services: Services) -> StatusResponse:
    snapshot = services.snapshot
    engine = services.engine.health
    pack = services.engine.pack
    bands = services.bands
    gpus = await anyio.to_thread.run_sync(gpu_usage)
    # The oldest jobs run, so they come last in the snapshot.
    jobs = sorted(snapshot.jobs or (), key=lambda job: job.state == "queued")
    return StatusResponse(
        model=Model.of(pack),
        demo=services.demo,
        embedding_size=pack.embedding_size,
        threshold=pack.threshold,
        bands=BandsStatus(
            very_likely=bands.very_likely,
            likely=bands.likely,
            mean=round(bands.mean, 4),
            deviation=round(bands.deviation, 4),
            faces=bands.faces,
            source=bands.source,
        ),
        device=DeviceStatus.model_validate(asdict(services.engine.device) | {"gpus": [asdict(gpu) for gpu in gpus]}),
        engine=EngineStatus(healthy=engine.healthy, cosine=finite(engine.cosine), message=engine.message),
        index=_index(services),
        ingest=_ingest(services),
        jobs=None if snapshot.jobs is None else [JobStatus.of(job) for job in jobs[:_MOST_JOBS]],
        jobs_left_out=len(jobs[_MOST_JOBS:]),
        versions=Versions(oceano=__version__, python=platform.python_version()),
        started_at=round(services.started, 3),
        uptime_seconds=round(time.time() - services.started, 1),
    )


def _index(services: Services) -> IndexStatus | IndexUnavailable:
    snapshot, is_ok = services.snapshot, services.monitor.index_ok
    if snapshot.index is None:
        return IndexUnavailable(message=snapshot.index_error)
    known = asdict(snapshot.index)
    return IndexStatus(ok=is_ok, **(known if services.view is None else known | _OF_ALL_FOLDERS))


def _ingest(services: Services) -> IngestStatus | IngestUnavailable | None:
    if services.view is not None:
        return None
    totals = services.snapshot.totals
    return (
        IngestUnavailable(message=services.snapshot.ledger_error) if totals is None else IngestStatus(**asdict(totals))
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE: {}}, "description": "metrics in Prometheus's text format"}},
)
async def metrics(services: ServicesDep) -> Response:
    """Return the metrics for Prometheus. They count what is in all folders: who sees some only gets 403."""
    services.require_all_folders()
    exposition = await anyio.to_thread.run_sync(services.metrics.exposition)
    return Response(exposition, media_type=CONTENT_TYPE)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> JSONResponse:
    """Return the OpenAPI document; FastAPI's own route would need no key."""
    root = root_path_of(request)
    return JSONResponse(request.app.openapi() | ({"servers": [{"url": root}]} if root else {}))
