"""Original pictures of stored faces, and thumbnails redrawn from them."""

from __future__ import annotations

import contextlib
import logging

from app.catalog import Ledger
from app.core.errors import OceanoError
from app.core.types import FacePayload, FaceRecord
from app.images import DecoderPool, Thumbs, face_thumbnail, image_id_of
from app.library.scan import contents, file_at

_log = logging.getLogger(__name__)


def redrawn_thumbnail(
    record: FaceRecord, ledger: Ledger, thumbs: Thumbs, decoders: DecoderPool, *, max_pixels: int
) -> bytes:
    """Draw the missing thumbnail of a stored face from its picture, and store it.

    Args:
        record: the face.
        ledger: the files of the picture.
        thumbs: the store to write to.
        decoders: decode the picture.
        max_pixels: the largest picture to decode.

    Returns:
        A JPEG file.

    Raises:
        OceanoError: `thumbnail_missing` if no file has the picture any more, or if it exceeds `max_pixels`.
    """
    face_id, payload = record.face_id, record.payload
    missing = OceanoError(
        "thumbnail_missing",
        "the thumbnail is missing, and its picture was moved, changed or deleted",
        details={"face_id": face_id},
    )
    data = original(payload, ledger)
    if data is None:
        raise missing
    try:
        picture = decoders.decode(data, max_pixels=max_pixels, image_id=payload.image_id, page=payload.page)
    except OceanoError as failure:  # such as a pixel limit that was lowered since the ingest
        raise missing from failure
    jpeg = face_thumbnail(picture, payload.bbox)
    try:
        thumbs.write(face_id, jpeg)
    except (OceanoError, OSError) as failure:  # a full or read-only disk: return it all the same
        _log.warning("a thumbnail could not be written: %s", failure)
    return jpeg


def original(payload: FacePayload, ledger: Ledger) -> bytes | None:
    """Return the bytes of a picture from any of its files; None if no file contains it any more."""
    files: list[tuple[str, int | None]] = [(record.path, record.size) for record in ledger.files_of(payload.image_id)]
    for path, size in files or [(payload.path, None)]:  # the ledger may have been lost
        with contextlib.suppress(OSError, OceanoError):
            file = file_at(path)  # skips pipes and devices, which would block
            if file is None or size not in (None, file.size):
                continue
            data = contents(file)
            if data is not None and image_id_of(data) == payload.image_id:
                return data
    return None
