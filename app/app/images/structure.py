"""Limits on the structure of image files, checked before a decoder reads them, and the sizes that files declare.

Some decoders take a time that grows with the square of the number of parts, such as tags of a TIFF file or tiles of a
HEIC file. The readers of JPEG and PNG files have their own limits.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Mapping
from typing import Final

from PIL import Image

from app.images.heif import item_count, register_heif
from app.images.jpeg import read_header
from app.images.tiff import check_tags, directories

_MAX_ITEMS: Final = 2000  # of a HEIF or AVIF file; a photograph of 48 megapixels has 192 tiles
_PNG_SIZE: Final = struct.Struct(">II")
_PNG_HEADER: Final = 16  # offset of the size
_GIF_SIZE: Final = struct.Struct("<HH")
_GIF_HEADER: Final = 6


def check_structure(data: bytes, name: str) -> None:
    """Refuse a file with more parts than a photograph has.

    Args:
        data: the file's bytes.
        name: its format.

    Raises:
        ValueError: it has too many parts.
    """
    if name == "TIFF":
        check_tags(data)
    elif name in ("HEIF", "AVIF") and (items := item_count(data)) > _MAX_ITEMS:
        raise ValueError(f"it has {items:,} parts; a photograph has at most {_MAX_ITEMS:,}")


def declared_pixels(data: bytes, name: str | None, page: int = 0) -> int:
    """Return the number of pixels that a file declares, to estimate the memory of its decoder; 0 if it cannot be read.

    Args:
        data: the file's bytes.
        name: its format.
        page: number of the page, from 0; of a further page, the largest image of the file counts.
    """
    read = _SIZES.get(name or "", _size_by_decoder)
    try:
        check_structure(data, name or "")
        if page and name == "HEIF":
            return _largest_heif(data)
        return math.prod(read(data))
    except Exception:  # noqa: BLE001 - the decoder says what is wrong with the file
        return 0


def _jpeg_size(data: bytes) -> tuple[int, int]:
    header = read_header(data)
    return header.width, header.height


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = _PNG_SIZE.unpack_from(data, _PNG_HEADER)
    return width, height


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = _GIF_SIZE.unpack_from(data, _GIF_HEADER)
    return width, height


def _tiff_size(data: bytes) -> tuple[int, int]:
    return max((image.size for image in directories(data)), key=math.prod)


def _size_by_decoder(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def _heif_size(data: bytes) -> tuple[int, int]:
    register_heif()
    return _size_by_decoder(data)


def _largest_heif(data: bytes) -> int:
    from pillow_heif import open_heif

    return max(math.prod(image.size) for image in open_heif(data))


_SIZES: Final[Mapping[str, Callable[[bytes], tuple[int, int]]]] = {
    "JPEG": _jpeg_size,
    "PNG": _png_size,
    "GIF": _gif_size,
    "TIFF": _tiff_size,
    "HEIF": _heif_size,
}
