"""HTML routes: the page, which works without JavaScript and better with it.

A plain POST gets the whole page, a POST of page.js (`X-Requested-With: fetch`) only `_results.html`, the part that
the whole page includes too. Errors come the same two ways.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import Request
from fastapi.responses import HTMLResponse

from app.core import logs
from app.core.errors import OceanoError
from app.core.types import FLAWS, FaceFilter, SearchResult
from app.service.search import with_decoding
from app.web.deps import services_of
from app.web.i18n import LANGUAGES, language_of, translator
from app.web.templating import is_fetch, page_response
from app.web.uploads import Upload, read_upload
from app.web.views import (
    LIMIT_MAX,
    THRESHOLD_MAX,
    THRESHOLD_MIN,
    PreviewView,
    SearchForm,
    SearchPage,
    error_view,
    face_view,
    preview,
)

_YEAR_SECONDS: Final = 365 * 24 * 3600


@dataclass(slots=True)
class _PageContext:
    """What a request asked for, as far as it was read when an error ended it."""

    lang: str
    asked: SearchForm
    preview: PreviewView | None = None


def router() -> APIRouter:
    """`GET /` and `POST /`, no part of the API's schema. Errors rise; `error_page` shows them."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/", _start, methods=["GET", "HEAD"])
    routes.add_api_route("/", _search, methods=["POST"])
    return routes


def error_page(request: Request, error: OceanoError) -> HTMLResponse:
    """The error as the page shows it, whether the page raised it or the request ended before (413, 503, 504)."""
    request.app.state.metrics.errors.labels(error.code).inc()
    context = getattr(request.state, "context", None) or _PageContext(language_of(request), _defaults(request))
    view = error_view(error, translator(context.lang), logs.request_id.get())
    page = SearchPage(asked=context.asked, preview=context.preview, error=view)
    return page_response(request, context.lang, page, error.status)


def _start(request: Request) -> HTMLResponse:
    response = page_response(request, language_of(request), SearchPage(_defaults(request)))
    chosen = request.query_params.get("lang")
    if chosen in LANGUAGES:
        secure = request.url.scheme == "https"
        response.set_cookie("lang", chosen, max_age=_YEAR_SECONDS, secure=secure, httponly=True, samesite="lax")
    return response


async def _search(request: Request) -> HTMLResponse:
    services = services_of(request)
    upload = await read_upload(request)
    context = _PageContext(_field_language(upload.fields) or language_of(request), _defaults(request))
    request.state.context = context
    context.asked = _asked(upload.fields, context.asked)
    # page.js filters by the threshold itself, as the slider moves
    threshold = THRESHOLD_MIN if is_fetch(request) else context.asked.threshold
    try:
        where = FaceFilter(without=FLAWS) if context.asked.clear else None
        result = await services.search.run(upload.picture, limit=context.asked.limit, threshold=threshold, where=where)
    except OceanoError as error:
        if error.code == "face_not_found":  # here it helps to see the picture
            context.preview = await run_in_threadpool(preview, upload.picture)
        raise
    return await run_in_threadpool(_answer_faces, request, context, upload, result)


def _answer_faces(request: Request, context: _PageContext, upload: Upload, result: SearchResult) -> HTMLResponse:
    shown = SearchPage(
        asked=context.asked,
        preview=preview(upload.picture),
        faces=tuple(face_view(face, result, context.asked) for face in result.faces),
        took_ms=with_decoding(result, upload.decode_ms).took_ms["total"],
        live=is_fetch(request),
    )
    return page_response(request, context.lang, shown)


def _field_language(fields: Mapping[str, str]) -> str | None:
    lang = fields.get("lang")
    return lang if lang in LANGUAGES else None


def _defaults(request: Request) -> SearchForm:
    return SearchForm(services_of(request).engine.pack.threshold)


def _asked(fields: Mapping[str, str], asked: SearchForm) -> SearchForm:
    """The form's values; what is absent or empty is as in `asked`. Raises OceanoError `invalid_request`."""
    if text := fields.get("threshold", "").strip():
        asked = replace(asked, threshold=round(_number(text, "threshold", THRESHOLD_MIN, THRESHOLD_MAX), 2))
    if text := fields.get("limit", "").strip():
        limit = _number(text, "limit", 1, LIMIT_MAX)
        asked = replace(asked, limit=int(limit))
    return replace(asked, clear=bool(fields.get("clear", "").strip()))


def _number(text: str, name: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise OceanoError(
            "invalid_request",
            f"{name} must be a number from {least:g} to {most:g}",
            details={"field": name, "value": text[:64]},
        )
    return number
