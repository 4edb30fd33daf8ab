"""HTML route that keeps the purpose of a visitor's searches in a cookie."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, RedirectResponse

from app.web.audit import checked_purpose, keep_purpose
from app.web.auth import Requires
from app.web.pages.form_fields import last_of
from app.web.redirects import see_other
from app.web.uploads import read_fields


def router() -> APIRouter:
    """Return the route, which is not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/purpose", _set, methods=["POST"], dependencies=[Depends(Requires("any"))])
    return routes


async def _set(request: Request) -> RedirectResponse:
    fields = await read_fields(request)
    response = see_other(request, last_of(fields, "next"))
    keep_purpose(request, response, checked_purpose(last_of(fields, "purpose")))
    return response
