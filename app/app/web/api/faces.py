"""`GET /faces/{face_id}`, `GET /thumbs/{face_id}`."""

from __future__ import annotations

import uuid
from typing import Final

from fastapi import APIRouter, Request, Response

from app.core.errors import OceanoError
from app.core.types import FaceRecord
from app.images import MEDIA_TYPE, DecoderPool
from app.library import redrawn_thumbnail
from app.service import Services
from app.web.api.person_names import names_in
from app.web.api.responses import FaceResponse
from app.web.audit import write_audit
from app.web.deps import ServicesDep
from app.web.root_path import root_path_of
from app.web.uploads import Decoding

_THUMB_CACHE: Final = "private, max-age=86400"

router = APIRouter()


@router.get("/faces/{face_id}")
async def face(face_id: str, services: ServicesDep, request: Request) -> FaceResponse:
    """Return a stored face, and every known path of its image."""
    record = await services.lookups.run(_retrieve, services, face_id_from(face_id))
    paths = await services.lookups.run(services.ledger.paths_of, record.payload.image_id)
    await write_audit(request, "face.view", {"face_id": record.face_id, "image_id": record.payload.image_id})
    person = (await names_in(services, [record.payload])).of(record.payload)
    paths = paths or [record.payload.path]
    return FaceResponse.of(record, person, paths, services.engine.pack, root_path_of(request))


@router.get(
    "/thumbs/{face_id}", response_class=Response, responses={200: {"content": {MEDIA_TYPE: {}}, "description": "JPEG"}}
)
async def thumb(face_id: str, services: ServicesDep, request: Request) -> Response:
    """Return a face's thumbnail; a lost one is drawn again from the original image."""
    face_id = face_id_from(face_id)
    jpeg = await services.thumb_reads.run(services.thumbs.read, face_id)
    if jpeg is None:
        record = await services.lookups.run(_retrieve, services, face_id)
        decoding: Decoding = request.app.state.decoding
        jpeg = await decoding.threads.run(_redraw, services, decoding.decoders, record)
    return Response(jpeg, media_type=MEDIA_TYPE, headers={"Cache-Control": _THUMB_CACHE})


def face_id_from(text: str) -> str:
    """Return a face id in its canonical spelling.

    Raises:
        OceanoError: `face_unknown` if the text is no UUID.
    """
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise OceanoError(
            "face_unknown", "no face with this id is in the index", details={"face_id": text[:64]}
        ) from None


def _retrieve(services: Services, face_id: str) -> FaceRecord:
    records = services.index.retrieve([face_id])
    if not records:
        raise OceanoError("face_unknown", "no face with this id is in the index", details={"face_id": face_id})
    return records[0]


def _redraw(services: Services, decoders: DecoderPool, record: FaceRecord) -> bytes:
    max_pixels = services.settings.max_image_pixels
    return redrawn_thumbnail(record, services.ledger, services.thumbs, decoders, max_pixels=max_pixels)
