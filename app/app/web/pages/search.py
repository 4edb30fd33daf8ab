"""HTML routes: the search page, with and without JavaScript.

A plain POST gets the whole page. A POST of page.js (`X-Requested-With: fetch`) gets only `_results.html`, which the
whole page includes. The same applies to errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import Request
from fastapi.responses import HTMLResponse

from app.core import logs
from app.core.errors import OceanoError
from app.core.types import FLAWS, FaceFilter, SearchResult
from app.service import MAX_LIMIT
from app.web.addresses import root_path_of
from app.web.deps import ServicesDep, services_of
from app.web.i18n import LANGUAGES, language_of, translator
from app.web.pages.templating import is_fetch, page_response
from app.web.pages.views import (
    THRESHOLD_MAX,
    THRESHOLD_MIN,
    PreviewView,
    SearchForm,
    SearchPage,
    error_view,
    face_view,
    further_view,
    preview,
)
from app.web.uploads import Upload, read_fields, read_upload

_MORE: Final = 100  # matches that "Show more" adds at least: each page is an exact search
_MAX_FACES: Final = 1_000_000
_YEAR_SECONDS: Final = 365 * 24 * 3600


@dataclass(slots=True)
class _PageContext:
    """The form of a request as far as it was read, so that the page can show it with an error."""

    lang: str
    form: SearchForm
    preview: PreviewView | None = None


def router() -> APIRouter:
    """Return the routes `GET /`, `POST /` and `POST /more`, which are not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/", _start, methods=["GET"])
    routes.add_api_route("/", _search, methods=["POST"])
    routes.add_api_route("/more", _more, methods=["POST"])
    return routes


def error_page(request: Request, error: OceanoError) -> HTMLResponse:
    """Render the page with an error, which a route of the page or middleware (413, 503, 504) raised.

    Args:
        request: its form is shown as far as it was read.
        error: the error.
    """
    request.app.state.metrics.errors.labels(error.code).inc()
    context = getattr(request.state, "context", None) or _PageContext(language_of(request), _defaults(request))
    view = error_view(error, translator(context.lang), logs.request_id.get())
    page = SearchPage(form=context.form, preview=context.preview, error=view)
    return page_response(request, context.lang, page, error.status)


def _start(request: Request) -> HTMLResponse:
    response = page_response(request, language_of(request), SearchPage(_defaults(request)))
    chosen = request.query_params.get("lang")
    if chosen in LANGUAGES:
        secure = request.url.scheme == "https"
        path = root_path_of(request) or "/"
        response.set_cookie(
            "lang", chosen, max_age=_YEAR_SECONDS, path=path, secure=secure, httponly=True, samesite="lax"
        )
    return response


async def _search(request: Request, services: ServicesDep) -> HTMLResponse:
    async with read_upload(request, ("image",), partial(_read_form, request)) as upload:
        form = upload.options.form
        # page.js itself filters while the slider moves
        threshold = THRESHOLD_MIN if is_fetch(request) else form.threshold
        where = FaceFilter(without=FLAWS) if form.clear else None
        try:
            result = await services.search.run(
                upload.picture, limit=form.limit, threshold=threshold, where=where, took_ms=upload.took_ms
            )
        except OceanoError as error:
            if error.code == "face_not_found":  # the page shows the picture
                upload.options.preview = await run_in_threadpool(preview, upload.picture)
            raise
        return await run_in_threadpool(_results_page, request, upload, result)


async def _more(request: Request, services: ServicesDep) -> HTMLResponse:
    """Show the next matches of a face. The cursor in the form holds the query, so the photograph is not sent again."""
    fields = await read_fields(request)
    context = _read_form(request, fields)
    number = int(_number(_last(fields, "face", "1"), "face", 1, _MAX_FACES))
    limit = max(_MORE, context.form.limit)
    found = await services.search.more(_last(fields, "after", ""), limit=limit, count_from=context.form.threshold)
    shown = SearchPage(form=context.form, further=further_view(found, number, context.form), live=is_fetch(request))
    return page_response(request, context.lang, shown)


def _last(fields: Mapping[str, str | list[str]], name: str, default: str) -> str:
    value = fields.get(name, default)
    return value if isinstance(value, str) else value[-1]


def _read_form(request: Request, sent: Mapping[str, str | list[str]]) -> _PageContext:
    """Read the form into the request's state, where `error_page` finds it; of a repeated field the last counts."""
    fields = {name: _last(sent, name, "") for name in sent}
    context = _PageContext(_field_language(fields) or language_of(request), _defaults(request))
    request.state.context = context
    context.form = _form(fields, context.form)
    return context


def _results_page(request: Request, upload: Upload[_PageContext], result: SearchResult) -> HTMLResponse:
    form = upload.options.form
    shown = SearchPage(
        form=form,
        preview=preview(upload.picture),
        faces=tuple(face_view(face, result, form) for face in result.faces),
        took_ms=result.took_ms["total"],
        live=is_fetch(request),
    )
    return page_response(request, upload.options.lang, shown)


def _field_language(fields: Mapping[str, str]) -> str | None:
    lang = fields.get("lang")
    return lang if lang in LANGUAGES else None


def _defaults(request: Request) -> SearchForm:
    return SearchForm(services_of(request).engine.pack.threshold)


def _form(fields: Mapping[str, str], form: SearchForm) -> SearchForm:
    """Replace the values of `form` by those of the request; raises `invalid_request` if one is invalid."""
    if text := fields.get("threshold", "").strip():
        form = replace(form, threshold=round(_number(text, "threshold", THRESHOLD_MIN, THRESHOLD_MAX), 2))
    if text := fields.get("limit", "").strip():
        limit = _number(text, "limit", 1, MAX_LIMIT)
        form = replace(form, limit=int(limit))
    return replace(form, clear=bool(fields.get("clear", "").strip()))


def _number(text: str, name: str, minimum: float, maximum: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not minimum <= number <= maximum:
        raise OceanoError(
            "invalid_request",
            f"{name} must be a number from {minimum:g} to {maximum:g}",
            details={"field": name, "value": text[:64]},
        )
    return number
