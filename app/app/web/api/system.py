"""`GET /health`, `/status`, `/metrics`, `/openapi.json`."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict

import anyio.to_thread
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from app import __version__
from app.core import logs
from app.metrics import CONTENT_TYPE, gpu_usage
from app.web.api.answers import Body, envelope, finite
from app.web.deps import services_of


async def health(request: Request) -> Response:
    """200 or 503 at once: can it serve?"""
    services = services_of(request)
    engine = services.engine.health
    checks = {
        "engine": {"ok": engine.healthy, "message": engine.message},
        "index": {"ok": services.index_ok, "message": "" if services.index_ok else services.seen.index_error},
    }
    ok = engine.healthy and services.index_ok
    body = {"status": "ok" if ok else "unavailable", "checks": checks, "request_id": logs.request_id.get()}
    return JSONResponse(body, status_code=200 if ok else 503, headers={} if ok else {"Retry-After": "5"})


async def status(request: Request) -> Body:
    """Model, device, index, ingest, versions, uptime."""
    services = services_of(request)
    info = services.seen.index
    totals = services.seen.totals
    engine = services.engine.health
    gpus = await anyio.to_thread.run_sync(gpu_usage)
    pack = services.engine.pack
    return envelope(pack) | {
        "demo": services.demo,
        "embedding_size": pack.embedding_size,
        "threshold": pack.threshold,
        "device": asdict(services.engine.device) | {"gpus": [asdict(gpu) for gpu in gpus]},
        "engine": {"healthy": engine.healthy, "cosine": finite(engine.cosine), "message": engine.message},
        "index": {"ok": services.index_ok} | (asdict(info) if info else {"message": services.seen.index_error}),
        "ingest": asdict(totals) if totals else {"message": services.seen.ledger_error},
        "versions": {"oceano": __version__, "python": platform.python_version()},
        "started_at": round(services.started, 3),
        "uptime_seconds": round(time.time() - services.started, 1),
    }


async def metrics(request: Request) -> Response:
    """Prometheus's text format."""
    exposition = await anyio.to_thread.run_sync(services_of(request).metrics.exposition)
    return Response(exposition, media_type=CONTENT_TYPE)


async def openapi(request: Request) -> JSONResponse:
    """The OpenAPI document; FastAPI's own route would ask nobody for a key."""
    return JSONResponse(request.app.openapi())
