"""The JSON routes: `forms` (requests), `responses`, and one module per resource."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from app.web.api import batch, faces, images, search, system
from app.web.auth import require_key
from app.web.errors import ErrorResponse

__all__ = ["router"]


def router() -> APIRouter:
    """Return all JSON routes; every one but `/health` needs a key where API_KEYS is set."""
    routes = APIRouter(responses={"4XX": {"model": ErrorResponse}, "5XX": {"model": ErrorResponse}})
    for keyed in (search.router, batch.router, faces.router, images.router, system.router):
        routes.include_router(keyed, dependencies=[Depends(require_key)])
    routes.include_router(system.public_router)
    return routes
