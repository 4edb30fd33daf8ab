"""The JSON routes: `forms` (requests), `responses`, and one module per resource."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from app.web.api import batch, changes, faces, images, naming, people, search, system
from app.web.auth import Requires
from app.web.errors import ErrorResponse

__all__ = ["router"]


def router() -> APIRouter:
    """Return all JSON routes, each with the right that it needs."""
    routes = APIRouter(responses={"4XX": {"model": ErrorResponse}, "5XX": {"model": ErrorResponse}})
    for part in (search.router, batch.router, faces.router, images.router, people.router):
        routes.include_router(part, dependencies=[Depends(Requires("search"))])
    for part in (naming.router, changes.router):
        routes.include_router(part, dependencies=[Depends(Requires("curate"))])
    routes.include_router(system.router, dependencies=[Depends(Requires("any"))])
    routes.include_router(system.public_router)
    return routes
