"""Thumbnails of faces: drawn from a picture, kept on disk."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from app.core.errors import OceanoError, is_full
from app.core.types import BBox, Picture, Pixels

MEDIA_TYPE: Final = "image/jpeg"
THUMB_SIDE: Final = 192
_MARGIN: Final = 1.7  # the thumbnail's side over the face's longer side: hair and chin belong to a face
_QUALITY: Final = 78  # 5.5 KB a face; as WebP 3.4 KB, at 30 times the time


def face_thumbnail(picture: Picture, bbox: BBox, side: int = THUMB_SIDE) -> bytes:
    """A square JPEG of `side` pixels around a face (bbox in pixels of the upright picture), with a margin.

    At the picture's edge it moves inwards, and it is never larger than the picture is high or wide.
    Raises OceanoError `invalid_image`.
    """
    x1, y1, x2, y2 = bbox
    length = min(max(1.0, max(x2 - x1, y2 - y1) * _MARGIN), picture.height, picture.width)
    pixels, scale = picture.pixels, picture.scale
    if scale < 1 and length * scale < side:
        pixels, scale = picture.full(), 1.0
    height, width = pixels.shape[:2]
    pixel_length = min(max(1, round(length * scale)), height, width)
    left = _start((x1 + x2) / 2 * scale, pixel_length, width)
    top = _start((y1 + y2) / 2 * scale, pixel_length, height)
    square = pixels[top : top + pixel_length, left : left + pixel_length]
    ok, encoded = cv2.imencode(".jpg", _resized(square, side), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not ok:
        raise OceanoError("internal", "a thumbnail could not be encoded")
    return encoded.tobytes()


def _resized(square: Pixels, side: int) -> Pixels:
    """Halved while it can be, then interpolated: as good as averaging over parts of pixels, in a fifth of the time."""
    while (half := square.shape[0] // 2) >= side:
        halved = cv2.resize(square[: 2 * half, : 2 * half], (half, half), interpolation=cv2.INTER_AREA)
        square = halved.astype(np.uint8, copy=False)
    interpolation = cv2.INTER_LINEAR if square.shape[0] > side else cv2.INTER_CUBIC
    return cv2.resize(square, (side, side), interpolation=interpolation).astype(np.uint8, copy=False)


def _write(name: str, data: bytes) -> None:
    """Without a buffer, whose making takes as long as the writing."""
    rest = memoryview(data)
    with open(name, "wb", buffering=0) as file:  # noqa: PTH123
        while rest:
            rest = rest[file.write(rest) :]


def _start(centre: float, length: int, available: int) -> int:
    """Where a window of `length` pixels around `centre` begins, moved into [0, available)."""
    return min(max(0, round(centre - length / 2)), available - length)


class ThumbStore:
    """Thumbnails on disk, in 256 folders: `ab/abcd....jpg`; a second level would cost more than it saves."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, face_id: str) -> Path:
        """Where a face's thumbnail is or would be. Raises OceanoError `face_unknown` if it is no face id."""
        return Path(self._path(face_id))

    def _path(self, face_id: str) -> str:
        """As plain text: an ingest writes several a picture, and paths take twice as long."""
        try:
            name = str(uuid.UUID(face_id))
        except ValueError:
            raise OceanoError("face_unknown", "a face id is a UUID", details={"face_id": face_id[:64]}) from None
        return f"{self._root}/{name[:2]}/{name}.jpg"

    def write(self, face_id: str, jpeg: bytes) -> None:
        """Write beside, then rename: a reader sees a whole thumbnail or none.

        Raises OceanoError `disk_full`, `thumbs_unavailable`.
        """
        target = self._path(face_id)
        beside = f"{target}.{os.getpid()}-{threading.get_ident()}.tmp"  # two threads may draw the same one
        try:
            try:
                _write(beside, jpeg)
            except FileNotFoundError:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                _write(beside, jpeg)
            os.replace(beside, target)  # noqa: PTH105
        except OSError as failure:
            with contextlib.suppress(OSError):
                os.unlink(beside)  # noqa: PTH108
            if is_full(failure):
                raise OceanoError("disk_full", f"no room for thumbnails in {self._root}") from failure
            raise OceanoError(
                "thumbs_unavailable", f"no thumbnails can be written to {self._root}: {failure.strerror}"
            ) from failure

    def read(self, face_id: str) -> bytes | None:
        """The JPEG bytes, or None where there is no thumbnail, or an empty one, as a power cut may leave."""
        try:
            return self.path(face_id).read_bytes() or None
        except FileNotFoundError:
            return None

    def delete(self, face_ids: Iterable[str]) -> None:
        """Forget thumbnails; those that are not there are ignored. Raises OceanoError `thumbs_unavailable`."""
        try:
            for face_id in face_ids:
                self.path(face_id).unlink(missing_ok=True)
        except OSError as failure:
            raise OceanoError(
                "thumbs_unavailable", f"thumbnails in {self._root} cannot be deleted: {failure.strerror}"
            ) from failure
