"""JSON routes."""

from __future__ import annotations

import contextlib
import logging
import platform
import time
import uuid
from dataclasses import asdict
from typing import Final

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from app import __version__
from app.core import logs
from app.core.errors import OceanoError
from app.core.types import Face, FacePayload, FaceRecord
from app.images.decode import decode, image_id_of
from app.images.thumbnails import MEDIA_TYPE, face_thumbnail
from app.library.scan import contents, file_at, readable
from app.metrics import CONTENT_TYPE, gpu_usage
from app.service.search import with_decoding
from app.service.services import Services
from app.web.api.answers import Body, face_body, finite, image_body, record_body, rounded, search_body
from app.web.api.schemas import CompareOptions, DetectOptions, SearchOptions, multipart, read_options
from app.web.auth import require_key
from app.web.uploads import read_upload, read_uploads

_log = logging.getLogger(__name__)

_THUMB_CACHE: Final = "private, max-age=86400"


def router() -> APIRouter:
    """All JSON routes; every one but `/health` asks for a key where keys are set."""
    routes = APIRouter()
    keyed = APIRouter(dependencies=[Depends(require_key)])
    keyed.post("/search", openapi_extra=multipart(["image"], SearchOptions))(search)
    keyed.post("/detect", openapi_extra=multipart(["image"], DetectOptions))(detect)
    keyed.post("/compare", openapi_extra=multipart(["image_a", "image_b"], CompareOptions))(compare)
    keyed.get("/faces/{face_id}")(face)
    keyed.get("/thumbs/{face_id}", response_class=Response)(thumb)
    keyed.get("/status")(status)
    keyed.get("/metrics", response_class=Response)(metrics)
    keyed.get("/openapi.json", include_in_schema=False)(openapi)
    routes.include_router(keyed)
    routes.get("/health")(health)
    routes.head("/health", include_in_schema=False)(health)  # what balancers like to ask
    return routes


async def search(request: Request) -> Body:
    """Matches of every face in the picture `image`, best first."""
    services = services_of(request)
    upload = await read_upload(request)
    options = read_options(SearchOptions, upload.fields)
    result = await services.search.run(
        upload.picture,
        limit=options.limit,
        threshold=_threshold(services, options.threshold),
        max_faces=options.max_faces,
        where=options.where(),
        group_by=options.group_by,
    )
    return _head(services) | search_body(with_decoding(result, upload.decode_ms))


async def detect(request: Request) -> Body:
    """The faces of the picture `image`; none is an empty list."""
    services = services_of(request)
    upload = await read_upload(request)
    read_options(DetectOptions, upload.fields)
    faces, took = await services.search.detect(upload.picture)
    took = {"decode": upload.decode_ms, **took}
    return _head(services) | {
        "image": image_body(upload.picture),
        "faces": [face_body(place, face) for place, face in enumerate(faces)],
        "took_ms": rounded(took | {"total": sum(took.values())}),
    }


async def compare(request: Request) -> Body:
    """The largest face of `image_a` against the largest of `image_b`."""
    services = services_of(request)
    uploads = await read_uploads(request, ("image_a", "image_b"))
    options = read_options(CompareOptions, uploads.fields)
    took = {"decode": uploads.decode_ms}
    sides = []
    for name, picture in zip(("image_a", "image_b"), uploads.pictures, strict=True):
        faces, spent = await services.search.detect(picture)
        if not faces:
            raise OceanoError("face_not_found", f"no face was found in {name}", details={"image": name})
        largest = max(range(len(faces)), key=lambda place: _area(faces[place]))
        sides.append((picture, largest, faces[largest]))
        for stage, milliseconds in spent.items():
            took[stage] = took.get(stage, 0.0) + milliseconds
    similarity = float(sides[0][2].embedding @ sides[1][2].embedding)
    threshold = _threshold(services, options.threshold)
    bodies = [{"image": image_body(picture), "face": face_body(place, face)} for picture, place, face in sides]
    return _head(services) | {
        "threshold": threshold,
        "similarity": round(similarity, 6),
        "same_person": similarity >= threshold,
        "a": bodies[0],
        "b": bodies[1],
        "took_ms": rounded(took | {"total": sum(took.values())}),
    }


async def face(face_id: str, request: Request) -> Body:
    """A stored face, and every path at which its image was seen."""
    services = services_of(request)
    record = await services.lookups.run(_retrieve, services, face_id_from(face_id))
    paths = await services.lookups.run(services.ledger.paths_of, record.payload.image_id)
    return (
        _head(services) | record_body(record) | {"paths": [readable(path) for path in paths or [record.payload.path]]}
    )


async def thumb(face_id: str, request: Request) -> Response:
    """The thumbnail, JPEG; drawn anew from the original picture if it was lost."""
    services = services_of(request)
    face_id = face_id_from(face_id)
    jpeg = await anyio.to_thread.run_sync(services.thumbs.read, face_id)
    if jpeg is None:
        record = await services.lookups.run(_retrieve, services, face_id)
        jpeg = await request.app.state.decoding.threads.run(_redraw, services, record)
    return Response(jpeg, media_type=MEDIA_TYPE, headers={"Cache-Control": _THUMB_CACHE})


async def health(request: Request) -> Response:
    """200 or 503 at once: can it serve?"""
    services = services_of(request)
    engine = services.engine.health
    checks = {
        "engine": {"ok": engine.healthy, "message": engine.message},
        "index": {"ok": services.index_ok, "message": "" if services.index_ok else services.seen.index_error},
    }
    ok = engine.healthy and services.index_ok
    body = {"status": "ok" if ok else "unavailable", "checks": checks, "request_id": logs.request_id.get()}
    return JSONResponse(body, status_code=200 if ok else 503, headers={} if ok else {"Retry-After": "5"})


async def status(request: Request) -> Body:
    """Model, device, index, ingest, versions, uptime."""
    services = services_of(request)
    info = services.seen.index
    totals = services.seen.totals
    engine = services.engine.health
    gpus = await anyio.to_thread.run_sync(gpu_usage)
    pack = services.engine.pack
    return _head(services) | {
        "demo": services.demo,
        "embedding_size": pack.embedding_size,
        "threshold": pack.threshold,
        "device": asdict(services.engine.device) | {"gpus": [asdict(gpu) for gpu in gpus]},
        "engine": {"healthy": engine.healthy, "cosine": finite(engine.cosine), "message": engine.message},
        "index": {"ok": services.index_ok} | (asdict(info) if info else {"message": services.seen.index_error}),
        "ingest": asdict(totals) if totals else {"message": services.seen.ledger_error},
        "versions": {"oceano": __version__, "python": platform.python_version()},
        "started_at": round(services.started, 3),
        "uptime_seconds": round(time.time() - services.started, 1),
    }


async def metrics(request: Request) -> Response:
    """Prometheus's text format."""
    exposition = await anyio.to_thread.run_sync(services_of(request).metrics.exposition)
    return Response(exposition, media_type=CONTENT_TYPE)


async def openapi(request: Request) -> JSONResponse:
    """The OpenAPI document; FastAPI's own route would ask nobody for a key."""
    return JSONResponse(request.app.openapi())


def services_of(request: Request) -> Services:
    """The running service's parts."""
    services: Services = request.app.state.services
    return services


def face_id_from(text: str) -> str:
    """A face id in its one spelling. Raises OceanoError `face_unknown` for what is no UUID."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise OceanoError("face_unknown", "a face id is a UUID", details={"face_id": text[:64]}) from None


def _retrieve(services: Services, face_id: str) -> FaceRecord:
    records = services.index.retrieve([face_id])
    if not records:
        raise OceanoError("face_unknown", "no face with this id is in the index", details={"face_id": face_id})
    return records[0]


def _redraw(services: Services, record: FaceRecord) -> bytes:
    face_id, payload = record.face_id, record.payload
    missing = OceanoError(
        "thumbnail_missing",
        "the thumbnail is gone, and so is the picture it was made from",
        details={"face_id": face_id},
    )
    data = _original(services, payload)
    if data is None:
        raise missing
    try:
        picture = decode(data, max_pixels=services.settings.max_image_pixels, image_id=payload.image_id)
    except OceanoError as failure:  # it was decoded once; the limit may have been lowered since
        raise missing from failure
    jpeg = face_thumbnail(picture, payload.bbox)
    try:
        services.thumbs.write(face_id, jpeg)
    except (OceanoError, OSError) as failure:  # a full or read-only disk: it can still be shown
        _log.warning("a thumbnail could not be kept: %s", failure)
    return jpeg


def _original(services: Services, payload: FacePayload) -> bytes | None:
    """The bytes of a picture, from any of its files that still has them."""
    known: list[tuple[str, int | None]] = [(one.path, one.size) for one in services.ledger.files_of(payload.image_id)]
    for path, size in known or [(payload.path, None)]:  # a ledger may be lost
        with contextlib.suppress(OSError, OceanoError):
            file = file_at(path)  # neither a pipe nor a device, which would be waited for
            if file is None or size not in (None, file.size):
                continue
            data = contents(file)
            if data is not None and image_id_of(data) == payload.image_id:
                return data
    return None


def _head(services: Services) -> Body:
    pack = services.engine.pack
    return {"request_id": logs.request_id.get(), "model": {"name": pack.name, "digest": pack.short_digest}}


def _threshold(services: Services, asked: float | None) -> float:
    return services.engine.pack.threshold if asked is None else asked


def _area(face: Face) -> float:
    x1, y1, x2, y2 = face.bbox
    return (x2 - x1) * (y2 - y1)
