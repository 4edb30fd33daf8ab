"""The original of a stored picture, from any of its files that still has it; a lost thumbnail drawn from it."""

from __future__ import annotations

import contextlib
import logging

from app.core.errors import OceanoError
from app.core.types import FacePayload, FaceRecord
from app.images import ThumbStore, decode, face_thumbnail, image_id_of
from app.library.ledger import Ledger
from app.library.scan import contents, file_at

_log = logging.getLogger(__name__)


def redrawn_thumbnail(record: FaceRecord, ledger: Ledger, thumbs: ThumbStore, *, max_pixels: int) -> bytes:
    """The thumbnail of a stored face as JPEG, drawn from its picture and kept.

    Raises OceanoError `thumbnail_missing` where the picture is gone, too.
    """
    face_id, payload = record.face_id, record.payload
    missing = OceanoError(
        "thumbnail_missing",
        "the thumbnail is gone, and so is the picture it was made from",
        details={"face_id": face_id},
    )
    data = original(payload, ledger)
    if data is None:
        raise missing
    try:
        picture = decode(data, max_pixels=max_pixels, image_id=payload.image_id)
    except OceanoError as failure:  # it was decoded once; the limit may have been lowered since
        raise missing from failure
    jpeg = face_thumbnail(picture, payload.bbox)
    try:
        thumbs.write(face_id, jpeg)
    except (OceanoError, OSError) as failure:  # a full or read-only disk: it can still be shown
        _log.warning("a thumbnail could not be kept: %s", failure)
    return jpeg


def original(payload: FacePayload, ledger: Ledger) -> bytes | None:
    """The bytes of a picture, from any of its files that still has them."""
    known: list[tuple[str, int | None]] = [(one.path, one.size) for one in ledger.files_of(payload.image_id)]
    for path, size in known or [(payload.path, None)]:  # a ledger may be lost
        with contextlib.suppress(OSError, OceanoError):
            file = file_at(path)  # neither a pipe nor a device, which would be waited for
            if file is None or size not in (None, file.size):
                continue
            data = contents(file)
            if data is not None and image_id_of(data) == payload.image_id:
                return data
    return None
