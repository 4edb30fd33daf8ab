"""The JSON routes."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from app.web.api import faces, search, system
from app.web.api.schemas import CompareOptions, DetectOptions, SearchOptions, multipart
from app.web.auth import require_key

__all__ = ["router"]


def router() -> APIRouter:
    """All JSON routes; every one but `/health` asks for a key where keys are set."""
    routes = APIRouter()
    keyed = APIRouter(dependencies=[Depends(require_key)])
    keyed.post("/search", openapi_extra=multipart(["image"], SearchOptions))(search.search)
    keyed.post("/detect", openapi_extra=multipart(["image"], DetectOptions))(search.detect)
    keyed.post("/compare", openapi_extra=multipart(["image_a", "image_b"], CompareOptions))(search.compare)
    keyed.get("/faces/{face_id}")(faces.face)
    keyed.get("/thumbs/{face_id}", response_class=Response)(faces.thumb)
    keyed.get("/status")(system.status)
    keyed.get("/metrics", response_class=Response)(system.metrics)
    keyed.get("/openapi.json", include_in_schema=False)(system.openapi)
    routes.include_router(keyed)
    routes.get("/health")(system.health)
    routes.head("/health", include_in_schema=False)(system.health)  # what balancers like to ask
    return routes
