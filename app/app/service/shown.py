"""What pages show of an original: previews for the screen, and what the camera wrote."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from app.core.concurrency import KeyedLocks
from app.core.errors import OceanoError
from app.core.types import Picture
from app.images import DecoderPool, PreviewStore, preview_jpeg
from app.library import ImageFile, Pictures

_SMALLEST: Final = 64  # pixels, to read the metadata of an image
_REMEMBERED: Final = 10_000  # images whose details are kept


class Shown:
    """Reads originals. Its methods block; they may be called from several threads.

    Args:
        pictures: finds the originals.
        previews: keeps previews.
        max_pixels: the largest image to decode.
    """

    def __init__(self, pictures: Pictures, previews: PreviewStore, max_pixels: int) -> None:
        self._pictures = pictures
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._drawing = KeyedLocks()
        self._details: OrderedDict[str, Mapping[str, str]] = OrderedDict()
        self.previews = previews

    def preview(
        self, decoders: DecoderPool, image_id: str, files: Sequence[ImageFile], width: int, page: int = 0
    ) -> bytes:
        """Return a preview as a JPEG file: the one that is kept, or a new one.

        Args:
            decoders: decode the original.
            image_id: the image.
            files: those of the image.
            width: at most so many pixels.
            page: of the file, from 0.

        Raises:
            OceanoError: `image_not_shown`, `image_missing`, `invalid_image`, `invalid_request` if there is no such
                page, `overloaded`.
        """
        # A preview may be kept from before LIBRARY_ROOTS changed, or the file was deleted.
        self._pictures.require_original(image_id, files)
        with self._drawing.held((image_id, width, page)):  # other threads that need the same one wait for it
            if jpeg := self.previews.read(image_id, width, page):
                return jpeg
            picture = self._decode(decoders, image_id, files, width, page)
            jpeg = preview_jpeg(picture.pixels, width)
            self.previews.write(image_id, width, jpeg, page)
            return jpeg

    def details(self, decoders: DecoderPool, image_id: str, files: Sequence[ImageFile]) -> Mapping[str, str]:
        """Return camera and exposure, see `app.images.details`; empty if the original cannot be shown or read."""
        with self._lock:
            if (known := self._details.get(image_id)) is not None:
                return known
        try:
            details = self._decode(decoders, image_id, files, _SMALLEST).details
        except OceanoError:
            return {}
        with self._lock:
            self._details[image_id] = details
            while len(self._details) > _REMEMBERED:
                self._details.popitem(last=False)
        return details

    def _decode(
        self, decoders: DecoderPool, image_id: str, files: Sequence[ImageFile], width: int, page: int = 0
    ) -> Picture:
        opened = self._pictures.open_original(image_id, files)
        with os.fdopen(opened.handle, "rb") as original:
            data = original.read()
        # the shorter side of a portrait is its width: twice as much is enough for it
        return decoders.decode(
            data,
            max_pixels=self._max_pixels,
            image_id=image_id,
            min_decoded_side=2 * width,
            page=page,
            name=opened.path,
        )
