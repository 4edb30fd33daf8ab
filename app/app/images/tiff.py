"""Reading of TIFF directories: the pages of a file, and the previews of raw files, which are TIFF files too."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

_NEW_SUBFILE_TYPE: Final = 254
_WIDTH: Final = 256
_HEIGHT: Final = 257
_BITS: Final = 258
_COMPRESSION: Final = 259
_PHOTOMETRIC: Final = 262
_STRIP_OFFSETS: Final = 273
_ORIENTATION: Final = 274
_SAMPLES: Final = 277
_STRIP_BYTES: Final = 279
_SUB_IFDS: Final = 330
_TILE_OFFSETS: Final = 324
_TILE_BYTES: Final = 325
_JPEG_OFFSET: Final = 513
_JPEG_BYTES: Final = 514
_DNG_VERSION: Final = 50706
_TAGS: Final = frozenset(
    {
        _NEW_SUBFILE_TYPE,
        _WIDTH,
        _HEIGHT,
        _BITS,
        _COMPRESSION,
        _PHOTOMETRIC,
        _STRIP_OFFSETS,
        _ORIENTATION,
        _SAMPLES,
        _STRIP_BYTES,
        _SUB_IFDS,
        _TILE_OFFSETS,
        _TILE_BYTES,
        _JPEG_OFFSET,
        _JPEG_BYTES,
        _DNG_VERSION,
    }
)
_SENSOR_DATA: Final = frozenset({32803, 34892})  # photometric interpretations: colour filter array, LinearRaw
_RGB: Final = 2
_JPEG_COMPRESSIONS: Final = frozenset({6, 7})
_JPEG_START: Final = b"\xff\xd8\xff"
_CR2: Final = b"CR"  # bytes 8 and 9 of Canon's raw files

# Of the types of values that matter here: bytes of one, and its format.
_TYPES: Final[Mapping[int, tuple[int, str]]] = MappingProxyType(
    {1: (1, "B"), 3: (2, "H"), 4: (4, "I"), 13: (4, "I"), 16: (8, "Q"), 18: (8, "Q")}
)
_BYTE_TYPES: Final = frozenset({1, 2, 6, 7})  # such as previews, and metadata of programs
_MOST_TAGS: Final = 1000  # a file with a directory of more is refused
_MOST_VALUES: Final = 1_000_000  # of a tag that holds no bytes; a photograph of 64 megapixels has 8,000 strips
_CHECKED_DIRECTORIES: Final = 100
_MAX_DIRECTORIES: Final = 1000
_MAX_ENTRIES: Final = 512  # of one directory; a photograph has about 50
_MAX_VALUES: Final = 16  # of one entry; further ones are left out
_DATA: Final = ((_STRIP_OFFSETS, _STRIP_BYTES), (_TILE_OFFSETS, _TILE_BYTES), (_JPEG_OFFSET, _JPEG_BYTES))


@dataclass(frozen=True, slots=True)
class Directory:
    """An image of a TIFF file.

    Attributes:
        tags: values by tag, of those tags that matter here.
        is_page: whether it is in the main chain, not within another image.
        offset: its position in the file.
    """

    tags: Mapping[int, tuple[int, ...]]
    is_page: bool
    offset: int

    def first(self, tag: int, default: int = 0) -> int:
        """Return the first value of a tag."""
        values = self.tags.get(tag)
        return values[0] if values else default

    @property
    def is_reduced(self) -> bool:
        """Whether it is a smaller copy of another image of the file."""
        return bool(self.first(_NEW_SUBFILE_TYPE) & 1)

    @property
    def is_mask(self) -> bool:
        """Whether it says which parts of another image are transparent."""
        return bool(self.first(_NEW_SUBFILE_TYPE) & 4)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.first(_WIDTH), self.first(_HEIGHT)

    @property
    def orientation(self) -> int:
        """That of Exif, 1 to 8 in an undamaged file."""
        return self.first(_ORIENTATION, 1)

    @property
    def samples(self) -> int:
        """Samples of a pixel."""
        return self.first(_SAMPLES, 1)

    @property
    def bits(self) -> int:
        """Bits of a sample."""
        return self.first(_BITS, 1)

    @property
    def is_rgb(self) -> bool:
        """Whether the samples are red, green and blue."""
        return self.first(_PHOTOMETRIC) == _RGB

    @property
    def is_sensor_data(self) -> bool:
        """Whether it holds what a camera's sensor measured, not an image to look at."""
        return self.first(_PHOTOMETRIC) in _SENSOR_DATA


def directories(data: bytes) -> list[Directory]:
    """Read the directories of a TIFF or BigTIFF file: those of the main chain, and those within them.

    At most 1,000 are read, and a damaged one ends its chain.
    """
    found: list[Directory] = []
    seen: set[int] = set()
    layout = _Layout(data)
    waiting = [(layout.first_directory(), True)]
    while waiting and len(found) < _MAX_DIRECTORIES:
        offset, is_page = waiting.pop()
        if offset in seen or not 8 <= offset < len(data):
            continue
        seen.add(offset)
        try:
            tags, following = layout.directory(offset)
        except struct.error:
            continue
        found.append(Directory(tags, is_page, offset))
        waiting += [(inner, False) for inner in tags.get(_SUB_IFDS, ())]
        if is_page:
            waiting.append((following, True))
    return found


def check_tags(data: bytes) -> None:
    """Refuse a file with directories that no photograph has: decoders read them slowly.

    Args:
        data: the file's bytes.

    Raises:
        ValueError: a directory has too many tags, or a tag too many values.
    """
    layout, seen = _Layout(data), set[int]()
    offset = layout.first_directory()
    with contextlib.suppress(struct.error):  # a damaged directory; decoders read those before it
        while offset and offset not in seen and len(seen) < _CHECKED_DIRECTORIES:
            seen.add(offset)
            tags, start, offset = layout.header(offset)
            if tags > _MOST_TAGS:
                raise ValueError(f"a directory has {tags:,} tags; a photograph has at most {_MOST_TAGS:,}")
            for place in range(tags):
                tag, kind, values, _ = layout.entry(start, place)
                if kind not in _BYTE_TYPES and values > _MOST_VALUES:
                    raise ValueError(f"tag {tag} has {values:,} values")


def bytes_of(data: bytes, wanted: int) -> bytes:
    """Return the bytes of a tag in the first directory of a TIFF file; nothing if there is none.

    Args:
        data: the file's bytes.
        wanted: number of a tag that holds bytes.
    """
    layout = _Layout(data)
    with contextlib.suppress(struct.error):
        entries, start, _ = layout.header(layout.first_directory())
        for place in range(min(entries, _MAX_ENTRIES)):
            tag, kind, count, field = layout.entry(start, place)
            if tag == wanted and kind in _BYTE_TYPES:
                return layout.bytes_at(count, field)
    return b""


def further_pages(images: list[Directory]) -> list[Directory]:
    """Return the photographs after the first one: the images of the main chain, without reduced copies and masks."""
    chain = [image for image in images if image.is_page]
    return [image for image in chain[1:] if not image.is_reduced and not image.is_mask]


def at_directory(data: bytes, offset: int) -> bytes:
    """Return the file with another first directory.

    Args:
        data: the file's bytes.
        offset: position of the directory.
    """
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    at, length = (8, 8) if b"+" in data[2:4] else (4, 4)
    return b"".join((data[:at], offset.to_bytes(length, order), memoryview(data)[at + length :]))


def is_raw(data: bytes, images: list[Directory]) -> bool:
    """Return whether a TIFF file is the raw file of a camera (DNG, NEF, ARW, CR2), by its tags.

    Args:
        data: the file's bytes.
        images: its directories.
    """
    if not images:
        return False
    first = images[0]
    has_inner = _SUB_IFDS in first.tags
    return (
        data[8:10] == _CR2
        or _DNG_VERSION in first.tags
        or (first.is_reduced and has_inner)
        or any(image.is_sensor_data for image in images)
    )


def embedded_jpegs(data: bytes, images: list[Directory]) -> Iterator[bytes]:
    """Yield the JPEG files that are embedded in a raw file.

    Args:
        data: the file's bytes.
        images: its directories.
    """
    for image in images:
        places = [(image.first(_JPEG_OFFSET), image.first(_JPEG_BYTES))]
        strips = image.tags.get(_STRIP_OFFSETS, ())
        if image.first(_COMPRESSION) in _JPEG_COMPRESSIONS and not image.is_sensor_data and len(strips) == 1:
            places.append((strips[0], image.first(_STRIP_BYTES)))
        for start, length in places:
            if start > 0 and data.startswith(_JPEG_START, start):
                yield data[start : start + length]


def is_cut_off(data: bytes) -> bool:
    """Return whether directories or pixels of a TIFF file are beyond its end.

    Of an image with more than 16 strips or tiles, the last one counts, and the first ones.

    Args:
        data: the file's bytes.
    """
    layout = _Layout(data)
    first, seen = layout.first_directory(), set[int]()
    if first == 0:
        return True  # programs write it last
    waiting = [first]
    while waiting and len(seen) < _MAX_DIRECTORIES:
        offset = waiting.pop()
        if offset == 0 or offset in seen:
            continue
        seen.add(offset)
        try:
            tags, following = layout.directory(offset, with_last=True)
        except (struct.error, OverflowError):
            return True
        for offsets, lengths in _DATA:
            ends = zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
            if any(start + length > len(data) for start, length in ends):
                return True
        waiting += [following, *tags.get(_SUB_IFDS, ())]
    return False


class _Layout:
    """The byte order and field sizes of a file: TIFF or BigTIFF."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = "<" if data[:2] == b"II" else ">"
        self._is_big = b"+" in data[2:4]
        self._entry = struct.Struct(self._order + ("HHQ8s" if self._is_big else "HHI4s"))
        self._count = struct.Struct(self._order + ("Q" if self._is_big else "H"))
        self._offset = struct.Struct(self._order + ("Q" if self._is_big else "I"))

    def first_directory(self) -> int:
        try:
            return int(self._offset.unpack_from(self._data, 8 if self._is_big else 4)[0])
        except struct.error:
            return 0

    def directory(self, offset: int, *, with_last: bool = False) -> tuple[dict[int, tuple[int, ...]], int]:
        """Return the tags of the directory at an offset, and the offset of the next one (0: none).

        Args:
            offset: position in the file.
            with_last: also return the last value of a tag that has more values than are read.

        Raises:
            struct.error: the directory is not within the file.
        """
        entries, start, following = self.header(offset)
        tags: dict[int, tuple[int, ...]] = {}
        for place in range(min(entries, _MAX_ENTRIES)):
            tag, kind, count, field = self.entry(start, place)
            if tag in _TAGS and kind in _TYPES:
                tags.setdefault(tag, self._values(kind, count, field, with_last=with_last))
        return tags, following

    def header(self, offset: int) -> tuple[int, int, int]:
        """Return the number of entries of a directory, where they begin, and the offset of the next one (0: none).

        Raises:
            struct.error: the directory is not within the file.
        """
        (entries,) = self._count.unpack_from(self._data, offset)
        start = offset + self._count.size
        end = start + entries * self._entry.size
        following = self._offset.unpack_from(self._data, end)[0] if end + self._offset.size <= len(self._data) else 0
        return entries, start, int(following)

    def entry(self, start: int, place: int) -> tuple[int, int, int, bytes]:
        """Return tag, type, number of values and value field of an entry.

        Raises:
            struct.error: the entry is not within the file.
        """
        tag, kind, count, field = self._entry.unpack_from(self._data, start + place * self._entry.size)
        return tag, kind, count, field

    def bytes_at(self, count: int, field: bytes) -> bytes:
        """Return the bytes of an entry, fewer if they are not all within the file."""
        if count <= len(field):
            return field[:count]
        start = int(self._offset.unpack(field)[0])
        return self._data[start : start + count]

    def _values(self, kind: int, count: int, field: bytes, *, with_last: bool) -> tuple[int, ...]:
        size, letter = _TYPES[kind]
        kept = min(count, _MAX_VALUES)
        form = f"{self._order}{kept}{letter}"
        if count * size <= len(field):
            return struct.unpack_from(form, field)
        start = self._offset.unpack(field)[0]
        values = struct.unpack_from(form, self._data, start)
        if with_last and count > kept:
            values += struct.unpack_from(self._order + letter, self._data, start + (count - 1) * size)
        return values
