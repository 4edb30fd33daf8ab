"""XMP packets: where a picture file has them, and their parsing as XML.

They are read without a decoder, in pure Python: a hostile file can at most have no packet.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.ElementTree import fromstring  # type: ignore[import-untyped]

from app.images.damage import DECODER_ERRORS
from app.images.formats import SNIFF_BYTES, sniff
from app.images.heif import items
from app.images.jpeg import segments
from app.images.png import text_of
from app.images.tiff import bytes_of

MAX_PACKET_BYTES: Final = 4_000_000  # of one packet; a photograph with many edits has about 200 kB
_MAX_ELEMENTS: Final = 200_000

_APP1: Final = 0xE1
_JPEG_XMP: Final = b"http://ns.adobe.com/xap/1.0/\x00"
_JPEG_EXTENDED: Final = b"http://ns.adobe.com/xmp/extension/\x00"
_EXTENDED_HEAD: Final = struct.Struct(">32sII")  # MD5 of the whole, its length, and the offset of this part
_PNG_KEYWORD: Final = b"XML:com.adobe.xmp"
_TIFF_TAG: Final = 700
_RIFF_CHUNKS: Final = 1000
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


def xmp_packets(data: bytes) -> list[bytes]:
    """Return the XMP packets of a picture file: in a JPEG the standard one and then the extended one.

    Args:
        data: the file's bytes; damaged ones have no packets, or fewer.
    """
    read = _READERS.get(sniff(data[:SNIFF_BYTES]) or "")
    if read is None:
        return []
    try:
        return [packet for packet in read(data) if 0 < len(packet) <= MAX_PACKET_BYTES]
    except DECODER_ERRORS:
        return []


def parse(packet: bytes) -> Element | None:
    """Parse a packet; None if it is not well-formed, has a document type, or is larger than any photograph's.

    Args:
        packet: UTF-8, or UTF-16 or UTF-32 with a byte order mark.
    """
    if len(packet) > MAX_PACKET_BYTES or packet.count(b"<") > 2 * _MAX_ELEMENTS:
        return None
    content = packet if packet.startswith(_UTF16) else packet.strip(b"\0 \t\r\n")
    try:
        root: Element = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError):
        return None
    return root


def _of_jpeg(data: bytes) -> Iterator[bytes]:
    parts: dict[bytes, dict[int, bytes]] = {}
    for marker, start, end in segments(data):
        if marker != _APP1:
            continue
        if data.startswith(_JPEG_XMP, start):
            yield data[start + len(_JPEG_XMP) : end]
        elif data.startswith(_JPEG_EXTENDED, start):
            at = start + len(_JPEG_EXTENDED)
            digest, _, offset = _EXTENDED_HEAD.unpack_from(data, at)
            parts.setdefault(digest, {})[offset] = data[at + _EXTENDED_HEAD.size : end]
    for found in parts.values():
        yield _joined(found)


def _joined(parts: Mapping[int, bytes]) -> bytes:
    """Return an extended packet; nothing if a part is missing."""
    whole, length = [], 0
    for offset, part in sorted(parts.items()):
        if offset != length or length > MAX_PACKET_BYTES:
            return b""
        whole.append(part)
        length += len(part)
    return b"".join(whole)


def _of_png(data: bytes) -> Iterator[bytes]:
    if (found := text_of(data, _PNG_KEYWORD, MAX_PACKET_BYTES)) is not None:
        yield found


def _of_tiff(data: bytes) -> Iterator[bytes]:
    yield bytes_of(data, _TIFF_TAG)


def _of_webp(data: bytes) -> Iterator[bytes]:
    yield webp_chunk(data, b"XMP ")


def _of_heif(data: bytes) -> Iterator[bytes]:
    yield from items(data, b"mime", b"application/rdf+xml", MAX_PACKET_BYTES)


def webp_chunk(data: bytes, kind: bytes) -> bytes:
    """Return the first chunk of a kind in a WebP file; nothing if there is none."""
    position = 12
    for _ in range(_RIFF_CHUNKS):
        head = data[position : position + 8]
        if len(head) < 8:
            break
        size = int.from_bytes(head[4:], "little")
        if head[:4] == kind:
            return data[position + 8 : position + 8 + size]
        position += 8 + size + (size & 1)
    return b""


_READERS: Final[Mapping[str, Callable[[bytes], Iterator[bytes]]]] = {
    "JPEG": _of_jpeg,
    "PNG": _of_png,
    "TIFF": _of_tiff,
    "WEBP": _of_webp,
    "HEIF": _of_heif,
    "AVIF": _of_heif,
}
