"""create_app(): the service as a FastAPI application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI

from app import __version__
from app.core import logs
from app.core.config import Settings, load_settings
from app.core.protocols import Engine, FaceIndex
from app.metrics import Metrics
from app.service import open_services
from app.web import Decoding, Rates, add_error_handlers, add_middleware, add_routes


def create_app(
    settings: Settings | None = None, engine: Engine | None = None, index: FaceIndex | None = None
) -> FastAPI:
    """Make the application (`uvicorn --factory app.main:create_app`).

    Args:
        settings: read from the environment if None.
        engine: the model; loaded when the server starts if None.
        index: the vector index; opened when the server starts if None.

    Raises:
        OceanoError: `invalid_setting`; at the start of the server what `open_services` raises.
    """
    settings = settings or load_settings()
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not logging.getLogger().handlers:
            logs.configure_logging(settings.logs_dir, "service")
        services = await asyncio.to_thread(open_services, settings, metrics, engine, index)
        app.state.services = services
        app.state.rates = Rates(settings.rate_limit_per_minute)
        app.state.decoding = Decoding(services.search.threads)
        monitor = asyncio.create_task(services.monitor.run())
        try:
            await services.monitor.check_index()
            services.start_measuring()
            yield
        finally:
            monitor.cancel()
            try:
                with contextlib.suppress(asyncio.CancelledError):
                    await monitor
            finally:
                app.state.decoding.close()
                await asyncio.to_thread(services.close)

    app = FastAPI(
        title="Oceano",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,  # a redirect would repeat the client's Host
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.settings = settings
    app.state.metrics = metrics
    add_routes(app)
    add_middleware(app, settings, metrics)
    add_error_handlers(app)
    return app
