"""HTML route of the start page."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import Request
from fastapi.responses import HTMLResponse

from app.core.texts import translator
from app.web.csrf import REFERRER_POLICY
from app.web.deps import AccessDep, ServicesDep
from app.web.i18n import language_of
from app.web.pages.filters import MAX_EXAMPLES
from app.web.pages.kept import kept_searches
from app.web.pages.people import frequent_people
from app.web.pages.templating import render


def router() -> APIRouter:
    """Return the route `GET /`, which is not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/", _start, methods=["GET"])
    return routes


async def _start(request: Request, services: ServicesDep, access: AccessDep) -> HTMLResponse:
    kept = await kept_searches(services, access, translator(language_of(request)))
    importing = await run_in_threadpool(services.importing)
    context = {
        "kept": kept,
        "max_examples": MAX_EXAMPLES,
        "photographs": services.photographs,
        "importing": importing,
        "people": await run_in_threadpool(frequent_people, services),
    }
    response = render(request, "index.html", context)
    response.headers["Referrer-Policy"] = REFERRER_POLICY
    if kept:
        response.headers["Cache-Control"] = "no-store"  # crops of faces stay out of the browser's files
    return response
