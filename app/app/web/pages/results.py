"""HTML routes of results: of an indexed face, of photographs that were sent, and of query tokens.

A result is an address. One that starts from an indexed face is a plain link. Photographs are never stored here: the
browser keeps them (static/store.js) and sends them, or afterwards only the tokens of their faces, to `POST /results`.
A request of results.js gets only the part of the page that changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import Request
from fastapi.responses import HTMLResponse

from app.core.boxes import area
from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.texts import Translator, translator
from app.core.types import Face, Picture
from app.security import Action, hash_of
from app.service import DEFAULT_DAYS, MAX_DAYS, Services, combine_pictures
from app.web.api.faces import face_id_from
from app.web.audit import listed, write_audit
from app.web.csrf import REFERRER_POLICY
from app.web.deps import ServicesDep, services_of
from app.web.i18n import language_of
from app.web.pages import asked as persons
from app.web.pages.asked import MAX_CHOICES, Asked, Example
from app.web.pages.change_views import ChangeView, toast_of
from app.web.pages.counted import BandView, FacetsView
from app.web.pages.filters import FILTER_NAMES, LEAST_MAX, LEAST_MIN, MAX_EXAMPLES, Fields, Filters
from app.web.pages.form_fields import all_of, last_of, numbers_of, query_fields
from app.web.pages.given import read_given
from app.web.pages.result_page import counts_of_choices, facets_of, query_of, result_view
from app.web.pages.result_parts import reduced
from app.web.pages.result_views import Place, ResultView
from app.web.pages.templating import render
from app.web.uploads import Photographs, read_fields, read_photographs

_Upload = Photographs[dict[str, "str | Sequence[str]"]]

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")  # of a search that the browser keeps
_FILTER_NAMES: Final = frozenset({*FILTER_NAMES, "face", "beside"})


def router() -> APIRouter:
    """Return the routes, which are not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/face/{face_id}", _of_face, methods=["GET"])
    routes.add_api_route("/face/{face_id}/facets", _facets_of_face, methods=["GET"])
    routes.add_api_route("/search/{key}", _kept_in_browser, methods=["GET"])
    routes.add_api_route("/", _of_photographs, methods=["POST"])
    routes.add_api_route("/results", _of_photographs, methods=["POST"])
    routes.add_api_route("/results/facets", _facets_of_photographs, methods=["POST"])
    return routes


async def asked_of_faces(services: Services, face_ids: Sequence[str]) -> Asked:
    """Ask for the person whom indexed faces show.

    Raises:
        OceanoError: `face_unknown`, `index_unavailable`.
    """
    embeddings = await services.results.embeddings_of(face_ids)
    return persons.together(persons.of_indexed(face_ids, embeddings), services.engine.pack.threshold)


def show_result(request: Request, shown: ResultView, toast: ChangeView | None = None) -> HTMLResponse:
    """Render a result, after a change if one is given: the whole page, or the part for results.js."""
    return _rendered(request, "result.html", "_result.html", {"result": shown, "toast": toast})


async def record_result(
    request: Request,
    asked: Asked,
    shown: ResultView,
    hashes: Sequence[str] = (),
    action: Action = "results",
    **more: object,
) -> None:
    """Write an entry of a page of a result to the audit log.

    Args:
        request: for the page.
        asked: the persons.
        shown: the page.
        hashes: SHA-256 of the photographs that the request brought.
        action: `results` or `kept.view`.
        more: further details.

    Raises:
        OceanoError: as `write_audit` does.
    """
    query, filters = hash_of(asked.embedding), shown.place.filters
    details: dict[str, object] = {
        "query": query,
        "images": listed(hashes),
        "face_ids": listed([one.face_id for one in asked.examples if one.face_id]),
        "faces": len(asked.examples),
        "first": shown.first,
        "matches": len(shown.cards),
        "total": shown.total,
        "threshold": float(shown.least),
        "folders": listed([readable(folder) for folder in filters.folders]),
    }
    await write_audit(request, action, details | more, again=f"result {query}")


async def record_counts(request: Request, asked: Asked, counted: FacetsView) -> None:
    """Write an entry of the counts of a result, unless its page has one already.

    Raises:
        OceanoError: as `write_audit` does.
    """
    query = hash_of(asked.embedding)
    await write_audit(request, "results", {"query": query, "total": counted.total}, once=f"result {query}")


def show_facets(
    request: Request, place: Place, counted: FacetsView, bands: tuple[BandView, ...], choices: Sequence[str] = ()
) -> HTMLResponse:
    """Render the counts that results.js puts into a page."""
    context: dict[str, Any] = {"place": place, "facets": counted, "bands": bands, "choice_counts": choices}
    return _rendered(request, "_facets.html", "_facets.html", context)


def _rendered(request: Request, whole: str, part: str, context: Mapping[str, Any]) -> HTMLResponse:
    limits = {"least": (LEAST_MIN, LEAST_MAX), "examples": MAX_EXAMPLES, "days": DEFAULT_DAYS, "max_days": MAX_DAYS}
    threshold = services_of(request).engine.pack.threshold
    response = render(request, whole, {**context, "limits": limits, "threshold": round(threshold, 2)}, part=part)
    response.headers["Referrer-Policy"] = REFERRER_POLICY
    return response


def _t(request: Request) -> Translator:
    return translator(language_of(request))


async def _of_face(request: Request, face_id: str, services: ServicesDep) -> HTMLResponse:
    face_id = face_id_from(face_id)
    given = await read_given(services, query_fields(request))
    place = Place(f"/face/{face_id}", given.filters, wrong=given.wrong)
    asked = await asked_of_faces(services, [face_id, *place.filters.examples])
    records = await services.lookups.run(services.index.retrieve, [face_id])
    shown = await result_view(
        services,
        asked,
        place,
        _t(request),
        start=records[0].payload if records else None,  # it may have been deleted meanwhile
        with_facets=bool(request.query_params.get("facets")),
    )
    await record_result(request, asked, shown)
    return show_result(request, shown, await toast_of(request, services))


async def _facets_of_face(request: Request, face_id: str, services: ServicesDep) -> HTMLResponse:
    face_id = face_id_from(face_id)
    given = await read_given(services, query_fields(request))
    place = Place(f"/face/{face_id}", given.filters)
    asked = await asked_of_faces(services, [face_id, *place.filters.examples])
    counted, bands = await facets_of(services, await query_of(services, asked, place.filters), place.filters)
    await record_counts(request, asked, counted)
    return show_facets(request, place, counted, bands)


async def _kept_in_browser(request: Request, key: str, services: ServicesDep) -> HTMLResponse:
    """Show a page without a result: results.js finds the photographs in the browser, or says that they are gone."""
    if not _KEY.fullmatch(key):
        raise OceanoError("not_found", "there is nothing at this address")
    place = Place(f"/search/{key}", (await read_given(services, query_fields(request))).filters)
    return _rendered(
        request, "search.html", "search.html", {"place": place, "toast": await toast_of(request, services)}
    )


async def _of_photographs(request: Request, services: ServicesDep) -> HTMLResponse:
    async with read_photographs(request, "image", MAX_EXAMPLES, _expanded) as upload:
        fields = upload.options
        given = await read_given(services, fields)
        asked = await _asked(request, services, fields, given.filters, upload)
        place = replace(_place(fields, given.filters, asked), wrong=given.wrong)
        shown = await result_view(
            services,
            asked,
            place,
            _t(request),
            took_ms=sum(upload.took_ms.values()),
            with_facets=bool(last_of(fields, "facets")),
        )
        await record_result(request, asked, shown, upload.hashes)
        return await run_in_threadpool(show_result, request, shown)


async def _facets_of_photographs(request: Request, services: ServicesDep) -> HTMLResponse:
    fields = _expanded(await read_fields(request))
    filters = (await read_given(services, fields)).filters
    asked = await _asked(request, services, fields, filters)
    counted, bands = await facets_of(services, await query_of(services, asked, filters), filters)
    choices = await counts_of_choices(services, asked, filters)
    await record_counts(request, asked, counted)
    return show_facets(request, _place(fields, filters, asked), counted, bands, choices)


async def _asked(
    request: Request, services: Services, fields: Fields, filters: Filters, upload: _Upload | None = None
) -> Asked:
    """Find out who is meant: by photographs, tokens and indexed faces together, or by one face of a photograph."""
    pack = services.engine.pack
    face, beside = numbers_of(fields, "face"), numbers_of(fields, "beside")
    tokens, crops = all_of(fields, "query"), all_of(fields, "crop", keep_blank=True)
    drop = {number - 1 for number in numbers_of(fields, "drop")}
    sent = await run_in_threadpool(persons.of_tokens, tokens, crops, pack)
    sent = [one for place, one in enumerate(sent) if place not in drop]
    indexed: list[Example] = []
    if filters.examples:
        embeddings = await services.results.embeddings_of(filters.examples)
        indexed = persons.of_indexed(filters.examples, embeddings)
    files = len(upload.files) if upload else 0
    if upload and files == 1 and not sent and not indexed:
        picture = await upload.decode_next()
        found = await _faces(request, services, picture, upload)
        return persons.choose(found.examples, face[-1] if face else None, beside, picture)
    if face and not files:
        chosen = persons.choose(sent, face[-1], beside)
        together = persons.together([*chosen.examples, *indexed], pack.threshold)
        return replace(chosen, examples=together.examples)
    added = await _added(request, services, [*sent, *indexed], upload) if upload else []
    return persons.together([*sent, *added, *indexed], pack.threshold)


async def _added(request: Request, services: Services, known: Sequence[Example], upload: _Upload) -> list[Example]:
    """Return the face of each photograph that shows the person of the known examples and of the other photographs."""
    found = []
    while upload.files:
        found.append(await _faces(request, services, await upload.decode_next(), upload))
    if not found:
        return []
    picked, _ = combine_pictures(
        [one.faces for one in found], services.engine.pack.threshold, known=[one.embedding for one in known]
    )
    return [found[one.picture].examples[one.face_index] for one in picked]


@dataclass(frozen=True, slots=True, eq=False)
class _Photograph:
    """The largest faces of a photograph, in canonical order."""

    faces: Sequence[Face]
    examples: Sequence[Example]


async def _faces(request: Request, services: Services, picture: Picture, upload: _Upload) -> _Photograph:
    faces = await services.search.detect(picture, took_ms=upload.took_ms)
    if not faces:
        request.state.photograph = await run_in_threadpool(reduced, picture)  # for the page of the error
        size = {"width": picture.width, "height": picture.height}
        raise OceanoError("face_not_found", "no face was found in the picture", details=size)
    largest = {id(face) for face in sorted(faces, key=lambda one: -area(one.bbox))[:MAX_CHOICES]}
    shown = [face for face in faces if id(face) in largest]
    return _Photograph(shown, await run_in_threadpool(persons.of_faces, picture, shown, services.engine.pack))


def _place(fields: Fields, filters: Filters, asked: Asked) -> Place:
    key = last_of(fields, "key")
    address = f"/search/{key}" if _KEY.fullmatch(key) else ""
    return Place(address, filters, asked.face if asked.choices else 0, asked.beside)


def _expanded(sent: Mapping[str, str | list[str]]) -> dict[str, str | Sequence[str]]:
    """Return the fields of a form. A button of a result without an address has all filters in its value, `go`."""
    fields: dict[str, str | Sequence[str]] = dict(sent)
    if "go" in fields:
        fields = {name: value for name, value in fields.items() if name not in _FILTER_NAMES}
        fields |= parse_qs(last_of(sent, "go"))
    return fields
