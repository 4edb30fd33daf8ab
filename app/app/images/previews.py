"""Previews of images for the screen: drawn on demand, kept on disk up to a limit."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from app.core.errors import OceanoError
from app.core.files import write_atomic
from app.core.types import Pixels

PREVIEW_WIDTHS: Final = (640, 1280, 2048, 3840)

_log = logging.getLogger(__name__)

_QUALITY: Final = 85
_PRUNED_TO: Final = 0.9  # of the limit
_CHECKED_EVERY: Final = 32  # writes
_NAME: Final = re.compile(r"[0-9a-f]{64}")


def preview_width(wanted: int) -> int:
    """Return the smallest of `PREVIEW_WIDTHS` that is at least `wanted`; the largest if none is."""
    return next((width for width in PREVIEW_WIDTHS if width >= wanted), PREVIEW_WIDTHS[-1])


def preview_jpeg(pixels: Pixels, width: int) -> bytes:
    """Encode a preview.

    Args:
        pixels: BGR, uint8, (H, W, 3).
        width: the largest width of the preview; it is never larger than the image.

    Returns:
        A JPEG file.

    Raises:
        OceanoError: `internal` if encoding fails.
    """
    if width < pixels.shape[1]:
        size = (width, max(1, round(pixels.shape[0] * width / pixels.shape[1])))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    flags = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    ok, encoded = cv2.imencode(".jpg", pixels, flags)
    if not ok:
        raise OceanoError("internal", "a preview could not be encoded")
    return encoded.tobytes()


class PreviewStore:
    """Previews on disk, `ab/abcd...-1280.jpg`. A cache: files that are missing are drawn again.

    Args:
        root: the folder.
        max_bytes: when the previews need more, those read longest ago are deleted; 0: none are kept.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._writes = 0

    def read(self, image_id: str, width: int, page: int = 0) -> bytes | None:
        """Return a preview; None if there is none."""
        path = self._path(image_id, width, page)
        try:
            jpeg = path.read_bytes()
            os.utime(path)  # for the order of deletion
        except OSError:
            return None
        return jpeg or None

    def write(self, image_id: str, width: int, jpeg: bytes, page: int = 0) -> None:
        """Keep a preview if the disk allows; a failure is logged."""
        if not self._max_bytes:
            return
        path = self._path(image_id, width, page)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, jpeg, durable=False, mode=0o600)
        except OSError as failure:
            _log.warning("a preview could not be written: %s", failure)
        self._prune_sometimes()

    def delete(self, image_id: str) -> None:
        """Delete the previews of an image."""
        with contextlib.suppress(OSError):
            for path in self._path(image_id, 0, 0).parent.glob(f"{image_id}-*.jpg"):
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all previews, as far as the disk allows."""
        shutil.rmtree(self._root, ignore_errors=True)

    def _path(self, image_id: str, width: int, page: int) -> Path:
        if not _NAME.fullmatch(image_id):
            raise OceanoError("image_unknown", "an image id has 64 hexadecimal digits", details={"image_id": image_id})
        name = f"{image_id}-{width}.jpg" if page == 0 else f"{image_id}-{width}-{page}.jpg"
        return self._root / image_id[:2] / name

    def _prune_sometimes(self) -> None:
        with self._lock:
            self._writes += 1
            if self._writes % _CHECKED_EVERY != 1:
                return
            files = []
            with contextlib.suppress(OSError):
                for path in self._root.glob("??/*"):
                    with contextlib.suppress(OSError):
                        status = path.stat()
                        files.append((status.st_mtime, status.st_size, path))
            total = sum(size for _, size, _ in files)
            if total <= self._max_bytes:
                return
            for _, size, path in sorted(files):
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= size
                if total <= self._max_bytes * _PRUNED_TO:
                    return
