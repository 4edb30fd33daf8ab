"""HEIF and AVIF files: the plug-in that lets Pillow read HEIC, the number of parts, and whether it is rotated."""

from __future__ import annotations

from functools import cache
from typing import Final

_ITEM_LIST: Final = b"iinf"  # ISO/IEC 14496-12, 8.11.6


@cache
def register_heif() -> None:
    """Let Pillow read HEIC with a plug-in; it reads AVIF without one."""
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False, decode_threads=1)


def item_count(data: bytes) -> int:
    """Return how many items a file declares: images, tiles of images, metadata.

    Args:
        data: the file's bytes.
    """
    position = data.find(_ITEM_LIST)
    if position < 0:
        return 0
    length = 4 if data[position + 4 : position + 5] != b"\0" else 2  # by the version of the box
    return int.from_bytes(data[position + 8 : position + 8 + length], "big")


def has_rotation(data: bytes) -> bool:
    """Return whether a HEIF file says how its images are rotated or mirrored: with the boxes irot or imir.

    Args:
        data: the file's bytes.
    """
    position = 0
    while 0 <= position < len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if length == 1:  # a length of 64 bits follows
            length = int.from_bytes(data[position + 8 : position + 16], "big")
        end = position + length if length else len(data)
        if kind == b"meta":
            properties = data.find(b"ipco", position, end)
            start = max(properties - 4, 0)
            stop = start + int.from_bytes(data[start : start + 4], "big")
            return properties > 0 and any(data.find(box, start, stop) > 0 for box in (b"irot", b"imir"))
        position = max(end, position + 8)
    return False
