"""Thumbnails of faces: cut from an image, stored on disk."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from app.core.errors import OceanoError, is_full
from app.core.files import write_atomic
from app.core.types import BBox, Picture, Pixels

MEDIA_TYPE: Final = "image/jpeg"
# Errors of an open that mean that there is no file: missing, a loop of links, a socket, or a device that is missing.
_NO_FILE_ERRORS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV})
THUMB_SIDE: Final = 192
_MARGIN: Final = 1.7  # the thumbnail's side in longer sides of the bbox, to include hair and chin
_QUALITY: Final = 78  # 5.5 KB per face; WebP would need 3.4 KB and 30 times as long


def face_thumbnail(picture: Picture, bbox: BBox, side: int = THUMB_SIDE) -> bytes:
    """Cut a square thumbnail with a margin around a face.

    At an edge of the image, the square moves inwards. Its side is at most the image's shorter side.

    Args:
        picture: the image.
        bbox: (x1, y1, x2, y2) in pixels of the upright image.
        side: side of the thumbnail in pixels.

    Returns:
        A JPEG file.

    Raises:
        OceanoError: `invalid_image` if the full image is needed and cannot be decoded, `internal` if encoding fails.
    """
    x1, y1, x2, y2 = bbox
    length = min(max(1.0, max(x2 - x1, y2 - y1) * _MARGIN), picture.height, picture.width)
    pixels, scale = picture.pixels, picture.scale
    if scale < picture.full_scale and length * scale < side:
        pixels, scale = picture.full(), picture.full_scale
    height, width = pixels.shape[:2]
    pixel_length = min(max(1, round(length * scale)), height, width)
    left = _window_start((x1 + x2) / 2 * scale, pixel_length, width)
    top = _window_start((y1 + y2) / 2 * scale, pixel_length, height)
    square = pixels[top : top + pixel_length, left : left + pixel_length]
    ok, encoded = cv2.imencode(".jpg", _resized(square, side), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not ok:
        raise OceanoError("internal", "a thumbnail could not be encoded")
    return encoded.tobytes()


def _resized(square: Pixels, side: int) -> Pixels:
    """Halve while possible, then interpolate: as good as area interpolation, in a fifth of the time."""
    while (half := square.shape[0] // 2) >= side:
        halved = cv2.resize(square[: 2 * half, : 2 * half], (half, half), interpolation=cv2.INTER_AREA)
        square = halved.astype(np.uint8, copy=False)
    interpolation = cv2.INTER_LINEAR if square.shape[0] > side else cv2.INTER_CUBIC
    return cv2.resize(square, (side, side), interpolation=interpolation).astype(np.uint8, copy=False)


def _window_start(centre: float, length: int, available: int) -> int:
    """First pixel of a window of `length` pixels around `centre`, moved into [0, available)."""
    return min(max(0, round(centre - length / 2)), available - length)


def _remove(path: str) -> None:
    """Delete a thumbnail if it exists; also an empty folder in its place."""
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(path)  # noqa: PTH108
        except IsADirectoryError:
            os.rmdir(path)  # noqa: PTH106


def _has_content(path: str) -> bool:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def thumb_name(face_id: str) -> str:
    """Return the name of a face's thumbnail in its store: `ab/abcd....jpg`.

    Args:
        face_id: a UUID.

    Raises:
        OceanoError: `face_unknown` if `face_id` is not a UUID.
    """
    try:
        name = str(uuid.UUID(face_id))
    except ValueError:
        raise OceanoError("face_unknown", "a face id must be a UUID", details={"face_id": face_id[:64]}) from None
    return f"{name[:2]}/{name}.jpg"


class ThumbStore:
    """Thumbnails in a folder, with 256 folders in it: `ab/abcd....jpg`. Implements `Thumbs`.

    A second level of folders would cost more time than it saves.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def root(self) -> Path:
        """The folder of the thumbnails."""
        return self._root

    @property
    def previews(self) -> Path:
        """The folder of the previews, which `PreviewStore` keeps."""
        return self._root / "previews"

    def path(self, face_id: str) -> Path:
        """Return the path of a face's thumbnail, whether it exists or not.

        Args:
            face_id: a UUID.

        Raises:
            OceanoError: `face_unknown` if `face_id` is not a UUID.
        """
        return Path(self._path(face_id))

    def _path(self, face_id: str) -> str:
        """The path as text: an ingest writes several per image, and building a Path takes twice as long."""
        return f"{self._root}/{thumb_name(face_id)}"

    def write_soon(self, face_id: str, jpeg: bytes) -> None:
        """Write a thumbnail as `write` does: the system writes to the disk in the background anyway."""
        self.write(face_id, jpeg)

    def flush(self) -> None:
        """Do nothing: all thumbnails are written."""

    def write(self, face_id: str, jpeg: bytes) -> None:
        """Write a thumbnail atomically: to a temporary file, which is then renamed.

        Args:
            face_id: a UUID.
            jpeg: the JPEG file.

        Raises:
            OceanoError: `face_unknown`, `disk_full`, `thumbs_unavailable`.
        """
        target = self._path(face_id)
        try:
            try:
                write_atomic(target, jpeg, durable=False)
            except FileNotFoundError:
                Path(target).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomic(target, jpeg, durable=False)
            except IsADirectoryError:
                os.rmdir(target)  # noqa: PTH106 - fails if it has files
                write_atomic(target, jpeg, durable=False)
        except OSError as failure:
            if is_full(failure):
                raise OceanoError("disk_full", f"no space left for thumbnails in {self._root}") from failure
            raise OceanoError(
                "thumbs_unavailable", f"thumbnails cannot be written to {self._root}: {failure.strerror}"
            ) from failure

    def read(self, face_id: str) -> bytes | None:
        """Read a thumbnail.

        Args:
            face_id: a UUID.

        Returns:
            The JPEG file; None if it is missing, empty as after a power cut, or not a regular file.

        Raises:
            OceanoError: `face_unknown` if `face_id` is not a UUID, `thumbs_unavailable`.
        """
        try:
            # a pipe or device would block a plain open
            handle = os.open(self._path(face_id), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as failure:
            if failure.errno in _NO_FILE_ERRORS:
                return None
            raise OceanoError(
                "thumbs_unavailable", f"thumbnails in {self._root} cannot be read: {failure.strerror}"
            ) from failure
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            return None
        with os.fdopen(handle, "rb") as file:
            return file.read() or None

    def read_many(self, face_ids: Sequence[str]) -> list[bytes | None]:
        """Return what `read` returns for each face."""
        return [self.read(face_id) for face_id in face_ids]

    def missing(self, face_ids: Sequence[str]) -> set[str]:
        """Return the faces whose thumbnail is missing, empty, or not a regular file.

        Args:
            face_ids: UUIDs.

        Raises:
            OceanoError: `face_unknown` if one is not a UUID.
        """
        return {face_id for face_id in face_ids if not _has_content(self._path(face_id))}

    def face_ids(self) -> Iterator[str]:
        """Yield the face_id of each thumbnail; other files are skipped.

        Raises:
            OceanoError: `thumbs_unavailable`.
        """
        try:
            for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
                for path in sorted(folder.glob("*.jpg")):
                    with contextlib.suppress(ValueError):
                        if str(uuid.UUID(path.stem)) == path.stem and path.stem.startswith(folder.name):
                            yield path.stem
        except OSError as failure:
            raise OceanoError(
                "thumbs_unavailable", f"thumbnails in {self._root} cannot be listed: {failure.strerror}"
            ) from failure

    def delete(self, face_ids: Iterable[str]) -> None:
        """Delete thumbnails; missing ones are ignored.

        Args:
            face_ids: UUIDs.

        Raises:
            OceanoError: `face_unknown`, `thumbs_unavailable`.
        """
        try:
            for face_id in face_ids:
                _remove(self._path(face_id))
        except OSError as failure:
            raise OceanoError(
                "thumbs_unavailable", f"thumbnails in {self._root} cannot be deleted: {failure.strerror}"
            ) from failure
