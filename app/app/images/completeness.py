"""Whether an image file is visibly cut off: its structure says that bytes are missing at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from app.core.errors import OceanoError
from app.images import gif, heif
from app.images.formats import SNIFF_BYTES, sniff
from app.images.jpeg import is_truncated, read_header
from app.images.tiff import is_cut_off as tiff_is_cut_off

_MAX_PARTS: Final = 100_000  # chunks of a PNG


def is_cut_off(data: bytes) -> bool:
    """Return whether bytes are missing at the end of an image file, as in an upload that is not finished.

    Args:
        data: the file's bytes.

    Returns:
        False also for a file that is empty, of no supported format, or damaged in another way.
    """
    check = _CHECKS.get(sniff(data[:SNIFF_BYTES]) or "")
    return check is not None and check(data)


def _jpeg_is_cut_off(data: bytes) -> bool:
    try:
        return is_truncated(data, read_header(data).scan)
    except OceanoError:  # a kind of JPEG that is not supported
        return False
    except ValueError:
        return True


def _png_is_cut_off(data: bytes) -> bool:
    position = 8
    for _ in range(_MAX_PARTS):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        position += 12 + length
        if position > len(data) or kind == b"IEND":
            return position > len(data)
    return False


def _boxes_are_cut_off(data: bytes) -> bool:
    """Return whether the boxes of a HEIF file are longer than the file, or their contents have not begun."""
    position, has_contents = 0, False
    for kind, _, position in heif.boxes(data):  # noqa: B007 - the end of the last box
        has_contents = has_contents or kind in (b"meta", b"moov")
    return position > len(data) or not has_contents


_CHECKS: Final[Mapping[str, Callable[[bytes], bool]]] = MappingProxyType(
    {
        "JPEG": _jpeg_is_cut_off,
        "PNG": _png_is_cut_off,
        "GIF": gif.is_cut_off,
        "WEBP": lambda data: 8 + int.from_bytes(data[4:8], "little") > len(data),
        "BMP": lambda data: int.from_bytes(data[2:6], "little") > len(data),
        "TIFF": tiff_is_cut_off,
        "HEIF": _boxes_are_cut_off,
        "AVIF": _boxes_are_cut_off,
    }
)
