"""create_app(): puts it all together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from app import __version__, api, logs, pages
from app.config import Settings, load_settings
from app.errors import OceanoError
from app.images import ThumbStore
from app.index import open_index
from app.metrics import Metrics
from app.middleware import BodyLimit, ConcurrencyLimit, RequestContext, TimeLimit, error_response
from app.parts import build_engine, open_ledger
from app.search import Search
from app.services import Services
from app.types import Engine, FaceIndex
from app.uploads import decoding_limiter

_log = logging.getLogger(__name__)


def create_app(
    settings: Settings | None = None, engine: Engine | None = None, index: FaceIndex | None = None
) -> FastAPI:
    """The service (`uvicorn --factory app.main:create_app`).

    What is not handed in is built when the server starts, so that importing this module does nothing.
    """
    settings = settings or load_settings()
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not logging.getLogger().handlers:
            logs.configure_logging(settings.logs_dir, "service")
        services = await asyncio.to_thread(_services, settings, metrics, engine, index)
        app.state.services = services
        app.state.decoding = decoding_limiter()
        await services.look()
        watch = asyncio.create_task(services.watch())
        try:
            yield
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
            await asyncio.to_thread(services.close)

    app = FastAPI(title="Oceano", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.settings = settings
    app.state.metrics = metrics
    app.include_router(api.router())
    app.include_router(pages.router())
    app.mount("/static", StaticFiles(directory=Path(str(resources.files("app") / "static"))), name="static")
    _add_middleware(app, settings, metrics)
    _add_error_handlers(app)
    return app


def _services(settings: Settings, metrics: Metrics, engine: Engine | None, index: FaceIndex | None) -> Services:
    engine = engine or build_engine(settings)
    index = index or open_index(settings, engine.pack)
    ledger = open_ledger(settings, engine)
    search = Search(engine, index, metrics, threads=max(4, 2 * settings.gpu_concurrency))
    return Services(settings, engine, index, ledger, ThumbStore(settings.thumbs_dir), search, metrics)


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """The last one added is the outermost."""
    app.add_middleware(BodyLimit, max_file_bytes=settings.max_upload_bytes, files_by_path={"/compare": 2})
    app.add_middleware(TimeLimit, seconds=settings.request_timeout_seconds)
    app.add_middleware(ConcurrencyLimit, most=settings.uvicorn_limit_concurrency)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID", "Content-Type"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(RequestContext, metrics=metrics)


def _add_error_handlers(app: FastAPI) -> None:
    async def oceano(request: Request, failure: Exception) -> Response:
        assert isinstance(failure, OceanoError)  # noqa: S101 - it is registered for that
        if failure.status >= 500:
            _log.error("%s", failure)
        return error_response(failure, request)

    async def http(request: Request, failure: Exception) -> Response:
        assert isinstance(failure, HTTPException)  # noqa: S101
        code = {404: "not_found", 405: "method_not_allowed"}.get(failure.status_code, "invalid_request")
        return error_response(OceanoError(code, str(failure.detail)), request)

    async def validation(request: Request, failure: Exception) -> Response:
        return error_response(OceanoError("invalid_request", "a parameter of the request is wrong"), request)

    async def unexpected(request: Request, failure: Exception) -> Response:
        _log.error("%s %s", request.method, request.url.path, exc_info=failure)
        return error_response(OceanoError("internal", "something went wrong here; the log has the details"), request)

    app.add_exception_handler(OceanoError, oceano)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(Exception, unexpected)
