"""Reading of PNG files: the chunks that decide the pixels, and those that say when a picture was taken."""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass, field
from typing import Final

_SIGNATURE_BYTES: Final = 8
_MAX_CHUNKS: Final = 100_000
_MAX_TEXT_BYTES: Final = 1_000_000  # of a text, after decompression; the rest is left out
_MAX_TEXTS: Final = 100
_PIXEL_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"IEND"})
_CRITICAL: Final = 0x20  # a lower-case first letter marks an ancillary chunk
_WIDE_COLOUR: Final = (b"\2", b"\4", b"\6")  # colour types with more than one channel and no palette
_EXIF_TEXT: Final = "Raw profile type exif"  # ImageMagick's


@dataclass(slots=True)
class PngParts:
    """A PNG without its side chunks, and what those say.

    Attributes:
        data: a PNG file of the chunks that decide the pixels.
        frames: number of frames.
        is_wide_colour: whether there are 16 bits for each of several channels.
        exif: the Exif data, empty if there is none.
        texts: the texts by keyword, each at most 1 MB.
    """

    data: bytes = b""
    frames: int = 1
    is_wide_colour: bool = False
    exif: bytes = b""
    texts: dict[str, str] = field(default_factory=dict)


def png_parts(data: bytes) -> PngParts:
    """Split a PNG file. Side chunks may be of any size and damaged: only the pixels decide whether it is read.

    Raises:
        ValueError: it has more than 100,000 chunks.
    """
    parts, kept = PngParts(), [data[:_SIGNATURE_BYTES]]
    position = _SIGNATURE_BYTES
    for _ in range(_MAX_CHUNKS):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 12 + length
        if kind == b"tRNS":  # its checksum may be wrong
            body = data[position + 8 : end - 4]
            kept.append(data[position : end - 4] + zlib.crc32(kind + body).to_bytes(4, "big"))
        elif kind in _PIXEL_CHUNKS or (kind and not kind[0] & _CRITICAL):
            kept.append(data[position:end])
            if kind == b"IHDR":
                header = data[position + 8 : end - 4]
                parts.is_wide_colour = header[8:9] == b"\x10" and header[9:10] in _WIDE_COLOUR
        else:
            with contextlib.suppress(ValueError, zlib.error):
                _add_side_chunk(parts, kind, data[position + 8 : end - 4])
        if kind == b"IEND" or end >= len(data):
            break
        position = end
    else:
        raise ValueError(f"it has more than {_MAX_CHUNKS} chunks")
    parts.data = b"".join(kept)
    return parts


def text_of(data: bytes, keyword: bytes, limit: int) -> bytes | None:
    """Return the first text of a PNG file with a keyword; None if there is none.

    Args:
        data: the file's bytes.
        keyword: of the text.
        limit: bytes of the text after decompression; the rest is left out.
    """
    position = _SIGNATURE_BYTES
    for _ in range(_MAX_CHUNKS):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        start, end = position + 8, position + 12 + length
        if kind == b"iTXt" and data.startswith(keyword + b"\0", start):
            return _content(kind, data[start + len(keyword) + 1 : end - 4], limit)
        if kind == b"IEND" or end >= len(data):
            break
        position = end
    return None


def _add_side_chunk(parts: PngParts, kind: bytes, body: bytes) -> None:
    if kind == b"eXIf":
        parts.exif = parts.exif or body
    elif kind == b"acTL":
        parts.frames = max(1, int.from_bytes(body[:4], "big"))
    elif kind in (b"tEXt", b"zTXt", b"iTXt") and len(parts.texts) < _MAX_TEXTS:
        keyword, text = _text(kind, body)
        parts.texts.setdefault(keyword, text)
        if keyword == _EXIF_TEXT:
            parts.exif = parts.exif or bytes.fromhex("".join(text.split("\n")[3:]))


def _text(kind: bytes, body: bytes) -> tuple[str, str]:
    """Return keyword and text of a text chunk, cut off at its largest size."""
    keyword, _, rest = body.partition(b"\0")
    content = _content(kind, rest, _MAX_TEXT_BYTES)
    return keyword.decode("latin-1"), content.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")


def _content(kind: bytes, rest: bytes, limit: int) -> bytes:
    """Return the text of what follows the keyword of a text chunk, cut off at a number of bytes."""
    if kind == b"iTXt":
        compressed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]
    else:
        compressed = kind == b"zTXt"
        rest = rest[1:] if compressed else rest
    return zlib.decompressobj().decompress(rest, limit) if compressed else rest[:limit]
