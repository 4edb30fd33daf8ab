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


def items(data: bytes, kind: bytes, content: bytes, limit: int) -> Iterator[bytes]:
    """Yield the items of a HEIF or AVIF file that have a kind, such as metadata.

    Args:
        data: the file's bytes.
        kind: four letters, such as `mime` or `Exif`.
        content: the content type of a `mime` item; empty: any.
        limit: bytes of an item; larger ones are left out.
    """
    for meta, start, end in boxes(data):
        if meta != b"meta":
            continue
        inner = {name: (at, stop) for name, at, stop in boxes(data, start + _FULL_BOX, end)}
        if b"iinf" not in inner or b"iloc" not in inner:
            return
        wanted = _items_of_kind(data, inner[b"iinf"], kind, content)
        base = inner.get(b"idat", (0, 0))[0]
        for item, extents in _extents(data, *inner[b"iloc"]):
            if item in wanted and 0 < sum(length for _, _, length in extents) <= limit:
                starts = [(base if in_idat else 0) + offset for in_idat, offset, _ in extents]
                yield b"".join(data[at : at + size] for at, (_, _, size) in zip(starts, extents, strict=True))
        return


def _items_of_kind(data: bytes, box: tuple[int, int], kind: bytes, content: bytes) -> set[int]:
    """Return the ids of items, from the box iinf (ISO/IEC 14496-12, 8.11.6)."""
    start, end = box
    found = set()
    for name, at, stop in boxes(data, start + _FULL_BOX + (4 if data[start] else 2), end):
        version = data[at]
        if name != b"infe" or version not in (2, 3):
            continue
        wide = 4 if version == 3 else 2
        position = at + _FULL_BOX + wide + 2  # behind the id and a number
        item, is_kind = int.from_bytes(data[at + _FULL_BOX :][:wide], "big"), data[position : position + 4] == kind
        if is_kind and (not content or content in data[position + 4 : stop].split(b"\0")):
            found.add(item)
    return found


def _extents(data: bytes, start: int, end: int) -> Iterator[tuple[int, list[tuple[bool, int, int]]]]:
    """Yield the ids of items with the parts of each, from the box iloc (8.11.3).

    A part is: whether its offset is within the box idat, the offset, and the length.
    """
    version, sizes = data[start], data[start + _FULL_BOX : start + _FULL_BOX + 2]
    fields = _Fields(data, start + _FULL_BOX + 2, end)
    offset_size, length_size, base_size = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4
    index_size = sizes[1] & 15 if version else 0
    for _ in range(min(fields.number(2 if version < 2 else 4), _MAX_BOXES)):
        item = fields.number(2 if version < 2 else 4)
        in_idat = version > 0 and fields.number(2) & 15 == 1
        fields.number(2)  # of another file
        base, extents = fields.number(base_size), []
        for _ in range(fields.number(2)):
            fields.number(index_size)
            offset = fields.number(offset_size)
            extents.append((in_idat, base + offset, fields.number(length_size)))
        yield item, extents


class _Fields:
    """Reads numbers one after the other; raises IndexError behind the end."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data = data
        self._position = start
        self._end = min(end, len(data))

    def number(self, size: int) -> int:
        start, self._position = self._position, self._position + size
        if self._position > self._end:
            raise IndexError("the box ends earlier")
        return int.from_bytes(self._data[start : self._position], "big")


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
