"""Exports of a result: tables, lists of paths, archives and contact sheets, sent while they are made."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.core.errors import JsonValue, OceanoError
from app.core.texts import Translator, translator
from app.core.types import FacePayload
from app.security import hash_of
from app.service import SURENESSES, ListedMatch, Query, Services, decode_query
from app.service.export import MAX_ON_SHEET, contact_sheet, csv_rows, json_rows, path_lines, zip_archive, zip_size
from app.web.api.faces import face_id_from
from app.web.audit import folders_in, write_audit
from app.web.deps import ServicesDep
from app.web.i18n import language_of
from app.web.pages.asked import crops_of
from app.web.pages.filter_words import filter_words
from app.web.pages.filters import Fields, Filters, read_filters
from app.web.pages.form_fields import all_of, last_of, query_fields
from app.web.pages.kept import open_kept
from app.web.pages.people_views import shown_name
from app.web.pages.result_page import filtered_query, query_of
from app.web.pages.results import asked_of_faces
from app.web.uploads import Decoding, read_fields

_PREVIEW_WIDTH: Final = 2048
_BLOCK: Final = 1 << 18  # bytes
_KINDS: Final = {
    "csv": ("table.csv", "text/csv; charset=utf-8"),
    "json": ("matches.json", "application/json"),
    "paths": ("paths.txt", "text/plain; charset=utf-8"),
    "zip": ("originals.zip", "application/zip"),
    "previews": ("previews.zip", "application/zip"),
    "pdf": ("contact-sheet.pdf", "application/pdf"),
}


def router() -> APIRouter:
    """Return the routes, which are not in the schema of the API."""
    routes = APIRouter(include_in_schema=False)
    routes.add_api_route("/face/{face_id}/export", _of_face, methods=["GET"])
    routes.add_api_route("/kept/{kept_id}/export", _of_kept, methods=["GET"])
    routes.add_api_route("/export", _of_token, methods=["POST"])
    return routes


@dataclass(frozen=True, slots=True)
class _Searched:
    """What a contact sheet says about the search: filters, and faces of the person, indexed or as JPEG files."""

    filters: Filters
    face_ids: Sequence[str] = ()
    crops: Sequence[bytes] = ()


async def _of_face(request: Request, face_id: str, services: ServicesDep) -> Response:
    fields = query_fields(request)
    filters = read_filters(fields)
    face_ids = [face_id_from(face_id), *filters.examples]
    asked = await asked_of_faces(services, face_ids)
    query = await query_of(services, asked, filters)
    return await _export(request, services, query, fields, _Searched(filters, face_ids))


async def _of_kept(request: Request, kept_id: str, services: ServicesDep) -> Response:
    opened = await open_kept(request, kept_id, services)
    if opened.place.wrong:  # an export leaves no filter out
        field, wrong = next(iter(opened.place.wrong.items()))
        raise OceanoError(
            "invalid_request", f"{field} is not valid: {wrong.value}", details={"field": field, "value": wrong.value}
        )
    query = await query_of(services, opened.asked, opened.place.filters)
    crops = [opened.kept.crop] if opened.kept.crop else []
    filters = opened.place.filters
    return await _export(request, services, query, query_fields(request), _Searched(filters, filters.examples, crops))


async def _of_token(request: Request, services: ServicesDep) -> Response:
    """Export the result of photographs that were sent; the token in the form has their embeddings."""
    fields = await read_fields(request)
    pack = services.engine.pack
    sent = decode_query(last_of(fields, "query"), pack.digest, pack.embedding_size)
    filters = read_filters(fields)
    query = await filtered_query(services, filters, sent.embedding, sent.together)
    searched = _Searched(filters, filters.examples, crops_of(all_of(fields, "crop")))
    return await _export(request, services, query, fields, searched)


async def _export(request: Request, services: Services, query: Query, fields: Fields, searched: _Searched) -> Response:
    kind, t = last_of(fields, "format") or "csv", translator(language_of(request))
    if kind not in _KINDS:
        names = ", ".join(_KINDS)
        raise OceanoError("invalid_request", f"format must be one of {names}", details={"field": "format"})
    selected = frozenset(all_of(fields, "id"))
    exported: dict[str, object] = {
        "query": hash_of(query.embedding),
        "format": kind,
        "selected": len(selected) or None,
        "threshold": query.threshold,
        "folders": folders_in(query.where),
        "estimate": True if last_of(fields, "estimate") else None,
    }
    await write_audit(request, "export", exported)
    matches = _chosen(services.results.matches(query), selected)
    if last_of(fields, "estimate"):
        return JSONResponse(await run_in_threadpool(_estimate, services, matches, kind, t))
    what, media_type = _KINDS[kind]
    name = f"oceano-{datetime.now(UTC).astimezone():%Y-%m-%d-%H%M%S}-{what}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    if kind == "pdf":
        pdf = await run_in_threadpool(_sheet, services, matches, searched, selected, len(query.together), t)
        return Response(pdf, media_type=media_type, headers=headers)
    # the search and the first part are made before the response begins, so that an error has its status
    parts = _blocks(_parts(kind, await run_in_threadpool(_begun, matches), services, request))
    first = await run_in_threadpool(next, parts, b"")
    return _PartsResponse(first, parts, media_type=media_type, headers=headers)


class _PartsResponse(StreamingResponse):
    """Sends parts, and closes them if the client leaves: an archive has a photograph open."""

    def __init__(self, first: bytes, rest: Iterator[bytes], *, media_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(chain((first,), rest), media_type=media_type, headers=headers)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if isinstance(self._rest, Generator):
                with contextlib.suppress(ValueError):  # after a timeout, a thread may still run it
                    self._rest.close()


def _begun(matches: Iterator[ListedMatch]) -> Iterator[ListedMatch]:
    """Read the first match, which does the search, and return all of them."""
    first = next(matches, None)
    return matches if first is None else chain((first,), matches)


def _chosen(matches: Iterator[ListedMatch], face_ids: frozenset[str]) -> Iterator[ListedMatch]:
    """Yield the selected matches; all if none is selected."""
    left = len(face_ids)
    for listed in matches:
        if not face_ids or listed.match.face_id in face_ids:
            yield listed
            left -= 1
            if face_ids and left == 0:
                return


def _parts(kind: str, matches: Iterable[ListedMatch], services: Services, request: Request) -> Iterator[bytes]:
    if kind == "csv":
        return csv_rows(matches, services.bands, services.people.names)
    if kind == "json":
        return json_rows(matches, services.bands, services.people.names)
    if kind == "paths":
        return path_lines(matches, services.pictures)
    decoding: Decoding = request.app.state.decoding
    draw = partial(_preview, services, decoding) if kind == "previews" else None
    return zip_archive(matches, services.pictures, draw=draw)


def _blocks(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Join parts, such as the lines of a table: each that is sent costs a change of threads."""
    block = bytearray()
    try:
        for part in parts:
            block += part
            if len(block) >= _BLOCK:
                yield bytes(block)
                block.clear()
        if block:
            yield bytes(block)
    finally:
        if isinstance(parts, Generator):
            parts.close()


def _preview(services: Services, decoding: Decoding, payload: FacePayload) -> bytes:
    files = services.pictures.files(payload.image_id, payload.path)
    return services.shown.preview(decoding.decoders, payload.image_id, files, _PREVIEW_WIDTH, payload.page)


def _estimate(services: Services, matches: Iterable[ListedMatch], kind: str, t: Translator) -> dict[str, JsonValue]:
    """Return how many photographs an archive has, and how large it is; previews are not drawn to find out."""
    count, size = zip_size(matches, services.pictures)
    key = "export.size" if kind == "zip" else "export.files"
    text = t.count(key, count, size=t.size(size))
    return {"text": text, "files": count, "bytes": size if kind == "zip" else None}


def _sheet(
    services: Services,
    matches: Iterable[ListedMatch],
    searched: _Searched,
    selected: Collection[str],
    together: int,
    t: Translator,
) -> bytes:
    found: Sequence[ListedMatch] = [listed for listed, _ in zip(matches, range(MAX_ON_SHEET), strict=False)]
    words = {sureness: t(f"sureness.{sureness}") for sureness in SURENESSES}
    title = t("export.sheet_title", n=t.number(len(found)), date=datetime.now(UTC).date().isoformat())
    thumbs = services.thumbs.read_many(searched.face_ids)
    filters = searched.filters.plain(services.engine.pack.threshold)
    people = services.people.names([filters.named]) if filters.named else {}
    names = {person_id: shown_name(person, t) for person_id, person in people.items()}
    conditions = filter_words(filters, t, together=together, names=names)
    scope = t.count("export.some", len(selected)) if selected else t("export.sheet_all")
    return contact_sheet(
        found,
        services.thumbs,
        services.bands,
        words,
        title,
        crops=[*searched.crops, *(jpeg for jpeg in thumbs if jpeg)],
        lines=[scope, *([t("export.sheet_filters", filters="; ".join(conditions))] if conditions else [])],
        decimal=t.decimal,
    )
