"""HTML routes of kept searches: keep one, show its result, rename it, delete it."""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, RedirectResponse

from app.core.errors import OceanoError
from app.core.texts import Translator, translator
from app.core.types import Floats
from app.security import Access, hash_of
from app.service import DEFAULT_DAYS, KeptSearch, Services, combined, require_known_folders
from app.web.audit import write_audit
from app.web.deps import AccessDep, ServicesDep, current_access
from app.web.i18n import language_of
from app.web.numbers import whole_number
from app.web.pages import asked as persons
from app.web.pages.asked import Asked
from app.web.pages.change_views import toast_of
from app.web.pages.filters import MAX_EXAMPLES, Fields, read_filters
from app.web.pages.form_fields import all_of, last_of, query_fields
from app.web.pages.given import read_given
from app.web.pages.names import printable
from app.web.pages.result_page import facets_of, filtered_query, query_of, result_view
from app.web.pages.result_views import KeptView, Place, day_text
from app.web.pages.results import record_counts, record_result, show_facets, show_result
from app.web.redirects import see_other
from app.web.uploads import read_fields

_LISTED: Final = 12


def router() -> APIRouter:
    """Return the routes, which are not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/kept", _keep, methods=["POST"])
    routes.add_api_route("/kept/{kept_id}", _show, methods=["GET"])
    routes.add_api_route("/kept/{kept_id}/facets", _facets, methods=["GET"])
    routes.add_api_route("/kept/{kept_id}/rename", _rename, methods=["POST"])
    routes.add_api_route("/kept/{kept_id}/delete", _delete, methods=["POST"])
    return routes


async def kept_searches(services: Services, access: Access, t: Translator) -> list[KeptView]:
    """Return somebody's newest kept searches for the start page; an empty list if their file cannot be read."""
    try:
        found = await run_in_threadpool(services.kept.all, access, limit=_LISTED)  # lookups may wait for the index
    except OceanoError:
        return []
    return [_view(kept, t) for kept in found]


async def _keep(request: Request, services: ServicesDep, access: AccessDep) -> RedirectResponse:
    fields = await read_fields(request)
    embeddings, crop = await _examples(services, fields)
    filters = read_filters(parse_qs(last_of(fields, "filters")))
    query = await filtered_query(services, filters, embeddings[0], ())
    await services.lookups.run(require_known_folders, services.index, query.where)  # else it could not be opened
    days = last_of(fields, "days") or str(DEFAULT_DAYS)
    kept = await services.lookups.run(
        lambda: services.kept.keep(
            last_of(fields, "name"),
            embeddings,
            access=access,
            model_digest=services.engine.pack.digest,
            crop=crop,
            filters=filters.query_string(examples=()),
            days=whole_number(days, len("999")) or 0,
        )
    )
    added = {"kept_id": kept.kept_id, "query": hash_of(combined(embeddings)), "faces": len(embeddings)}
    await write_audit(request, "kept.add", added)
    return see_other(request, f"/kept/{kept.kept_id}")


async def _examples(services: Services, fields: Fields) -> tuple[list[Floats], bytes | None]:
    """Return the embeddings of the tokens and indexed faces of a form, and one crop."""
    tokens, face_ids = all_of(fields, "query"), all_of(fields, "person")
    if not 1 <= len(tokens) + len(face_ids) <= MAX_EXAMPLES:
        raise OceanoError("invalid_request", f"keep a search for 1 to {MAX_EXAMPLES} faces", details={"field": "query"})
    crops = all_of(fields, "crop", keep_blank=True)
    sent = await run_in_threadpool(persons.of_tokens, tokens, crops, services.engine.pack)
    indexed = await services.results.embeddings_of(face_ids) if face_ids else []
    crop = next((base64.b64decode(one.crop) for one in sent if one.crop), None)
    if crop is None and face_ids:
        with suppress(OceanoError):  # a kept search needs no picture
            crop = await services.thumb_reads.run(services.thumbs.read, face_ids[0])
    return [*indexed, *(one.embedding for one in sent)], crop


@dataclass(frozen=True, slots=True, eq=False)
class OpenedSearch:
    """A kept search, the persons it asks for, and its address with the filters."""

    kept: KeptSearch
    asked: Asked
    place: Place


async def open_kept(request: Request, kept_id: str, services: Services) -> OpenedSearch:
    """Open a kept search with the filters of the request, or with its own if the request has none.

    Raises:
        OceanoError: `not_found`, `index_model_mismatch`, `invalid_request`, `face_unknown`.
    """
    kept = await services.lookups.run(services.kept.get, kept_id, current_access(request))
    pack = services.engine.pack
    kept.require_model(pack.digest)
    sent: Fields = query_fields(request) if request.query_params else parse_qs(kept.filters)
    given = await read_given(services, sent)
    filters = given.filters
    examples = persons.of_embeddings(kept.embeddings, kept.crop, pack)
    if filters.examples:
        embeddings = await services.results.embeddings_of(filters.examples)
        examples = [*examples, *persons.of_indexed(filters.examples, embeddings)]
    place = Place(f"/kept/{kept_id}", filters, wrong=given.wrong)
    return OpenedSearch(kept, persons.together(examples, pack.threshold), place)


async def _show(request: Request, kept_id: str, services: ServicesDep) -> HTMLResponse:
    opened = await open_kept(request, kept_id, services)
    t = translator(language_of(request))
    with_facets = bool(request.query_params.get("facets"))
    view = _view(opened.kept, t)
    shown = await result_view(services, opened.asked, opened.place, t, kept=view, with_facets=with_facets)
    await record_result(request, opened.asked, shown, action="kept.view", kept_id=opened.kept.kept_id)
    response = show_result(request, shown, await toast_of(request, services))
    response.headers["Cache-Control"] = "no-store"  # the crop and the embeddings stay out of the browser's files
    return response


async def _facets(request: Request, kept_id: str, services: ServicesDep) -> HTMLResponse:
    opened = await open_kept(request, kept_id, services)
    query = await query_of(services, opened.asked, opened.place.filters)
    counted, bands = await facets_of(services, query, opened.place.filters)
    await record_counts(request, opened.asked, counted)
    return show_facets(request, opened.place, counted, bands)


async def _rename(request: Request, kept_id: str, services: ServicesDep, access: AccessDep) -> RedirectResponse:
    fields = await read_fields(request)
    await services.lookups.run(services.kept.rename, kept_id, last_of(fields, "name"), access)
    await write_audit(request, "kept.rename", {"kept_id": kept_id})
    return see_other(request, "/")


async def _delete(request: Request, kept_id: str, services: ServicesDep, access: AccessDep) -> RedirectResponse:
    await services.lookups.run(services.kept.delete, kept_id, access)
    await write_audit(request, "kept.delete", {"kept_id": kept_id})
    return see_other(request, "/")


def _view(kept: KeptSearch, t: Translator) -> KeptView:
    crop = f"data:image/jpeg;base64,{base64.b64encode(kept.crop).decode('ascii')}" if kept.crop else ""
    return KeptView(
        kept.kept_id, printable(kept.name), crop, day_text(kept.ends.date().isoformat(), t), len(kept.embeddings)
    )
