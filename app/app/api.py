"""JSON routes."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import anyio.to_thread
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from app import __version__, logs
from app.errors import JsonValue, OceanoError
from app.images import decode, face_thumbnail, image_id_of
from app.metrics import CONTENT_TYPE, gpu_usage
from app.search import with_decoding
from app.security import require_key
from app.services import Services
from app.types import Face, FaceFilter, FaceRecord, Match, Picture, SearchResult
from app.uploads import read_upload, read_uploads

DEFAULT_THRESHOLD: Final = 0.4
DEFAULT_LIMIT: Final = 20
_THUMB_CACHE: Final = "private, max-age=86400"
_ISO_TIME: Final = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?$"

IsoTime = Annotated[str, StringConstraints(pattern=_ISO_TIME)]
Body = dict[str, Any]
_Options = TypeVar("_Options", bound=BaseModel)


class DetectOptions(BaseModel):
    """Fields of `POST /detect` beside the picture."""

    model_config = ConfigDict(extra="forbid")


class CompareOptions(BaseModel):
    """Fields of `POST /compare` beside the pictures."""

    model_config = ConfigDict(extra="forbid")
    threshold: float = Field(DEFAULT_THRESHOLD, ge=-1, le=1, description="least cosine of the same person")


class SearchOptions(BaseModel):
    """Fields of `POST /search` beside the picture, in the form or the query string."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=1000, description="matches per face")
    threshold: float = Field(DEFAULT_THRESHOLD, ge=-1, le=1, description="least cosine of a match")
    max_faces: int | None = Field(None, ge=1, le=1000, description="search only the largest faces")
    group_by: Literal["image_id", "person"] | None = Field(None, description="only the best match of each")
    person: str | None = Field(None, max_length=200, description="only faces with this name")
    folder: str | None = Field(None, max_length=4096, description="only pictures at or below this folder")
    image_id: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="only faces of this image")
    taken_from: IsoTime | None = Field(None, description="taken at or after, ISO 8601")
    taken_to: IsoTime | None = Field(None, description="taken at or before, ISO 8601")
    ingested_from: IsoTime | None = Field(None, description="ingested at or after, ISO 8601")
    ingested_to: IsoTime | None = Field(None, description="ingested at or before, ISO 8601")
    min_det_score: float | None = Field(None, ge=0, le=1, description="least det_score of a stored face")
    min_quality: float | None = Field(None, ge=0, le=1, description="least quality of a stored face")

    def where(self) -> FaceFilter | None:
        """The filter these fields make; None if they make none."""
        given = self.model_dump(exclude={"limit", "threshold", "max_faces", "group_by"}, exclude_none=True)
        if "folder" in given:
            given["folder"] = str(Path(given["folder"]))  # without a trailing slash, as stored
        return FaceFilter(**given) if given else None


def router() -> APIRouter:
    """All JSON routes; every one but `/health` asks for a key where keys are set."""
    routes = APIRouter()
    keyed = APIRouter(dependencies=[Depends(require_key)])
    keyed.post("/search", openapi_extra=_multipart(["image"], SearchOptions))(search)
    keyed.post("/detect", openapi_extra=_multipart(["image"], DetectOptions))(detect)
    keyed.post("/compare", openapi_extra=_multipart(["image_a", "image_b"], CompareOptions))(compare)
    keyed.get("/faces/{face_id}")(face)
    keyed.get("/thumbs/{face_id}", response_class=Response)(thumb)
    keyed.get("/status")(status)
    keyed.get("/metrics", response_class=Response)(metrics)
    routes.include_router(keyed)
    routes.get("/health")(health)
    return routes


async def search(request: Request) -> Body:
    """Matches of every face in the picture `image`, best first."""
    services = services_of(request)
    upload = await read_upload(request)
    options = _options(SearchOptions, upload.fields)
    result = await services.search.run(
        upload.picture,
        limit=options.limit,
        threshold=options.threshold,
        max_faces=options.max_faces,
        where=options.where(),
        group_by=options.group_by,
    )
    return _head(services) | _search_body(with_decoding(result, upload.decode_ms))


async def detect(request: Request) -> Body:
    """The faces of the picture `image`; none is an empty list."""
    services = services_of(request)
    upload = await read_upload(request)
    _options(DetectOptions, upload.fields)
    faces, took = await services.search.detect(upload.picture)
    took = {"decode": upload.decode_ms, **took}
    return _head(services) | {
        "image": _image_body(upload.picture),
        "faces": [_face_body(place, face) for place, face in enumerate(faces)],
        "took_ms": _rounded(took | {"total": sum(took.values())}),
    }


async def compare(request: Request) -> Body:
    """The largest face of `image_a` against the largest of `image_b`."""
    services = services_of(request)
    uploads = await read_uploads(request, ("image_a", "image_b"))
    options = _options(CompareOptions, uploads.fields)
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
    bodies = [{"image": _image_body(picture), "face": _face_body(place, face)} for picture, place, face in sides]
    return _head(services) | {
        "threshold": options.threshold,
        "similarity": round(similarity, 6),
        "same_person": similarity >= options.threshold,
        "a": bodies[0],
        "b": bodies[1],
        "took_ms": _rounded(took | {"total": sum(took.values())}),
    }


async def face(face_id: str, request: Request) -> Body:
    """A stored face, and every path at which its image was seen."""
    services = services_of(request)
    record = await anyio.to_thread.run_sync(_retrieve, services, face_id)
    paths = await anyio.to_thread.run_sync(services.ledger.paths_of, record.payload.image_id)
    return _head(services) | _record_body(record) | {"paths": paths or [record.payload.path]}


async def thumb(face_id: str, request: Request) -> Response:
    """The thumbnail, WebP; drawn anew from the original picture if it was lost."""
    services = services_of(request)
    webp = await anyio.to_thread.run_sync(services.thumbs.read, face_id)
    if webp is None:
        webp = await anyio.to_thread.run_sync(_redraw, services, face_id)
    return Response(webp, media_type="image/webp", headers={"Cache-Control": _THUMB_CACHE})


async def health(request: Request) -> Response:
    """200 or 503 at once: can it serve?"""
    services = services_of(request)
    engine = services.engine.health
    checks = {
        "engine": {"ok": engine.healthy, "message": engine.message},
        "index": {"ok": services.index_ok, "message": services.seen.index_error},
    }
    ok = engine.healthy and services.index_ok
    body = {"status": "ok" if ok else "unavailable", "checks": checks, "request_id": logs.request_id.get()}
    return JSONResponse(body, status_code=200 if ok else 503, headers={} if ok else {"Retry-After": "5"})


async def status(request: Request) -> Body:
    """Model, device, index, ingest, versions, uptime."""
    services = services_of(request)
    info = services.seen.index
    totals = services.seen.totals
    gpus = await anyio.to_thread.run_sync(gpu_usage)
    return _head(services) | {
        "demo": services.demo,
        "device": asdict(services.engine.device) | {"gpus": [asdict(gpu) for gpu in gpus]},
        "engine": asdict(services.engine.health),
        "index": {"ok": services.index_ok} | (asdict(info) if info else {"message": services.seen.index_error}),
        "ingest": asdict(totals) if totals else None,
        "versions": {"oceano": __version__, "python": platform.python_version()},
        "started_at": round(services.started, 3),
        "uptime_seconds": round(time.time() - services.started, 1),
    }


async def metrics(request: Request) -> Response:
    """Prometheus's text format."""
    exposition = await anyio.to_thread.run_sync(services_of(request).metrics.exposition)
    return Response(exposition, media_type=CONTENT_TYPE)


def services_of(request: Request) -> Services:
    """The running service's parts."""
    services: Services = request.app.state.services
    return services


def _retrieve(services: Services, face_id: str) -> FaceRecord:
    services.thumbs.path(face_id)  # a face id is a UUID
    records = services.index.retrieve([face_id])
    if not records:
        raise OceanoError("face_unknown", "no face with this id is in the index", details={"face_id": face_id})
    return records[0]


def _redraw(services: Services, face_id: str) -> bytes:
    payload = _retrieve(services, face_id).payload
    missing = OceanoError(
        "thumbnail_missing",
        "the thumbnail is gone, and so is the picture it was made from",
        details={"face_id": face_id},
    )
    try:
        data = Path(payload.path).read_bytes()
    except OSError:
        raise missing from None
    if image_id_of(data) != payload.image_id:
        raise missing
    picture = decode(data, max_pixels=services.settings.max_image_pixels, image_id=payload.image_id)
    webp = face_thumbnail(picture.pixels, payload.bbox)
    services.thumbs.write(face_id, webp)
    return webp


def _options(kind: type[_Options], fields: Any) -> _Options:
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as failure:
        wrong: dict[str, JsonValue] = {
            ".".join(str(part) for part in error["loc"]): error["msg"] for error in failure.errors()
        }
        sentences = "; ".join(f"{name}: {message}" for name, message in wrong.items())
        raise OceanoError("invalid_request", sentences, details={"fields": wrong}) from None


def _head(services: Services) -> Body:
    pack = services.engine.pack
    return {"request_id": logs.request_id.get(), "model": {"name": pack.name, "digest": pack.short_digest}}


def _search_body(result: SearchResult) -> Body:
    return {
        "threshold": result.threshold,
        "image": {"width": result.width, "height": result.height},
        "faces": [
            _face_body(found.face_index, found.face) | {"matches": [_match_body(match) for match in found.matches]}
            for found in result.faces
        ],
        "took_ms": _rounded(result.took_ms),
    }


def _image_body(picture: Picture) -> Body:
    return {"width": picture.width, "height": picture.height}


def _face_body(place: int, face: Face) -> Body:
    return {
        "face_index": place,
        "bbox": [round(value, 2) for value in face.bbox],
        "kps": [[round(x, 2), round(y, 2)] for x, y in face.kps],
        "det_score": round(face.det_score, 4),
        "quality": round(face.quality, 4),
        "found_by": face.found_by,
    }


def _match_body(match: Match) -> Body:
    return {
        "face_id": match.face_id,
        "image_id": match.payload.image_id,
        "similarity": round(match.similarity, 6),
        "person": match.payload.person,
        "path": match.payload.path,
        "bbox": [round(value, 2) for value in match.payload.bbox],
        "thumb_url": f"/thumbs/{match.face_id}",
    }


def _record_body(record: FaceRecord) -> Body:
    return {"face_id": record.face_id, "thumb_url": f"/thumbs/{record.face_id}"} | asdict(record.payload)


def _area(face: Face) -> float:
    x1, y1, x2, y2 = face.bbox
    return (x2 - x1) * (y2 - y1)


def _rounded(took: dict[str, float]) -> dict[str, float]:
    return {stage: round(milliseconds, 2) for stage, milliseconds in took.items()}


def _multipart(files: list[str], options: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI shall say of a body that a handler reads by itself."""
    schema = options.model_json_schema()
    properties = {name: {"type": "string", "format": "binary"} for name in files} | schema.get("properties", {})
    body = {"type": "object", "required": files, "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": body}}}}
