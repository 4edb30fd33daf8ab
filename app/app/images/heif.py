"""HEIF and AVIF files: the plug-in that lets Pillow read HEIC, the number of parts, and whether it is rotated."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

_MAX_BOXES: Final = 100_000
_FULL_BOX: Final = 4  # bytes of version and flags before the contents of some boxes (ISO/IEC 14496-12, 4.2)


@cache
def register_heif() -> None:
    """Let Pillow read HEIC with a plug-in; it reads AVIF without one."""
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False, decode_threads=1)


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes in a part of an ISO base media file: kind, and positions of the contents and of the end.

    Args:
        data: the file's bytes.
        start: where the first box begins.
        end: where the last box ends; None: the end of the file.

    Yields:
        At most 100,000 boxes; the end of the last one may be beyond that of the file.
    """
    end = len(data) if end is None else end
    for _ in range(_MAX_BOXES):
        if not 0 <= start < end:
            return
        length, kind, head = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if length == 1:  # a length of 64 bits follows
            length, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        stop = start + max(length, 8) if length else end  # 0: to the end
        yield kind, start + head, stop
        start = stop


def item_count(data: bytes) -> int:
    """Return how many items a file declares: images, tiles of images, metadata.

    Args:
        data: the file's bytes.
    """
    for meta, start, end in boxes(data):
        if meta != b"meta":
            continue
        for kind, position, _ in boxes(data, start + _FULL_BOX, end):
            if kind == b"iinf":
                length = 4 if data[position : position + 1] != b"\0" else 2  # by the version of the box
                return int.from_bytes(data[position + _FULL_BOX : position + _FULL_BOX + length], "big")
    return 0


def has_rotation(data: bytes) -> bool:
    """Return whether a HEIF file says how its images are rotated or mirrored: with the boxes irot or imir.

    Args:
        data: the file's bytes.
    """
    for kind, position, end in boxes(data):
        if kind == b"meta":
            properties = data.find(b"ipco", position, end)
            start = max(properties - 4, 0)
            stop = start + int.from_bytes(data[start : start + 4], "big")
            return properties > 0 and any(data.find(box, start, stop) > 0 for box in (b"irot", b"imir"))
    return False
