"""`GET /faces/{face_id}`, `GET /thumbs/{face_id}`."""

from __future__ import annotations

import uuid
from typing import Final

import anyio.to_thread
from fastapi import Request, Response

from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.types import FaceRecord
from app.images.thumbnails import MEDIA_TYPE
from app.library.originals import redrawn_thumbnail
from app.service.services import Services
from app.web.api.answers import Body, envelope, record_body
from app.web.deps import services_of

_THUMB_CACHE: Final = "private, max-age=86400"


async def face(face_id: str, request: Request) -> Body:
    """A stored face, and every path at which its image was seen."""
    services = services_of(request)
    record = await services.lookups.run(_retrieve, services, face_id_from(face_id))
    paths = await services.lookups.run(services.ledger.paths_of, record.payload.image_id)
    return (
        envelope(services.engine.pack)
        | record_body(record)
        | {"paths": [readable(path) for path in paths or [record.payload.path]]}
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
    return redrawn_thumbnail(record, services.ledger, services.thumbs, max_pixels=services.settings.max_image_pixels)
