"""create_app(): puts it all together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware

from app import __version__
from app.core import logs
from app.core.config import Settings, load_settings
from app.core.protocols import Engine, FaceIndex
from app.images.thumbnails import ThumbStore
from app.index import open_index
from app.metrics import Metrics
from app.service.factory import build_engine, open_ledger
from app.service.search import Search
from app.service.services import Services
from app.web import api
from app.web.auth import require_key
from app.web.errors import add_error_handlers
from app.web.limits import BodyLimit, ConcurrencyLimit, TimeLimit
from app.web.middleware import RequestContext, Unexpected
from app.web.pages import search as pages
from app.web.uploads import Decoding

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
        app.state.decoding = Decoding(searching=_search_threads(settings))
        watch = asyncio.create_task(services.watch())
        try:
            await services.look()
            yield
        finally:
            watch.cancel()
            try:
                with contextlib.suppress(asyncio.CancelledError):
                    await watch
            finally:
                app.state.decoding.close()
                await asyncio.to_thread(services.close)

    app = FastAPI(title="Oceano", version=__version__, lifespan=lifespan, openapi_url=None)
    app.state.settings = settings
    app.state.metrics = metrics
    app.state.error_page = pages.error_page
    app.include_router(api.router())
    app.include_router(pages.router(), dependencies=[Depends(require_key)])
    app.mount("/static", StaticFiles(directory=Path(str(resources.files("app") / "static"))), name="static")
    _add_middleware(app, settings, metrics)
    add_error_handlers(app)
    return app


def _services(settings: Settings, metrics: Metrics, engine: Engine | None, index: FaceIndex | None) -> Services:
    engine = build_engine(settings) if engine is None else engine
    with contextlib.ExitStack() as opened:
        index = open_index(settings, engine.pack) if index is None else index
        opened.callback(index.close)
        ledger = open_ledger(settings, engine.pack)
        opened.pop_all()  # nothing below can fail
    search = Search(engine, index, metrics, threads=_search_threads(settings))
    return Services(settings, engine, index, ledger, ThumbStore(settings.thumbs_dir), search, metrics)


def _search_threads(settings: Settings) -> int:
    return max(4, 2 * settings.gpu_concurrency)


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """The last one added is the outermost."""
    app.add_middleware(BodyLimit, max_file_bytes=settings.max_upload_bytes, files_by_path={"/compare": 2})
    app.add_middleware(TimeLimit, seconds=settings.request_timeout_seconds)
    app.add_middleware(ConcurrencyLimit, most=settings.uvicorn_limit_concurrency)
    app.add_middleware(Unexpected)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID", "Content-Type"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(RequestContext, metrics=metrics)
