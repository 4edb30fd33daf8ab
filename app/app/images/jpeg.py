"""Reading of JPEG files: the header, whether they are plain, and pixels at the full size or a fraction of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import cv2
import numpy as np

from app.core.errors import OceanoError
from app.core.types import Pixels

# A JPEG decoder can decode at a half, a quarter or an eighth of the size in less time than at full size.
_REDUCED: Final[Mapping[int, int]] = MappingProxyType(
    {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2, 1: cv2.IMREAD_COLOR}
)
DIVISORS: Final = tuple(_REDUCED)

_END_OF_JPEG: Final = b"\xff\xd9"
_SCAN: Final = b"\xff\xda"
_MAX_SCANS: Final = 100  # a progressive JPEG has about ten; each covers the whole image
_MAX_SCAN_PIXELS: Final = 1_500_000_000  # of all scans together: 23 of 64 megapixels
_MAX_SEGMENTS: Final = 10_000  # before the first scan
# A plain JPEG has no more than this before its first scan.
_MAX_PLAIN_SEGMENTS: Final = 64
_MAX_PLAIN_METADATA: Final = 256_000  # bytes
_MAX_EXIF_SEGMENTS: Final = 16  # of 64 KB; Exif larger than one segment is rare
_ANY_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data, FF is followed by 00 or a restart

_START: Final = 0xD8
_END: Final = 0xD9
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length: TEM, restarts
_PROGRESSIVE: Final = 0xC2
_FRAMES: Final = frozenset({0xC0, 0xC1, _PROGRESSIVE})  # Huffman-coded DCT, the kinds that libjpeg decodes
# Kinds of frames that libjpeg does not decode, as in the details' `cause`.
_UNSUPPORTED: Final[Mapping[int, str]] = MappingProxyType(
    {
        **dict.fromkeys((0xC3, 0xCB, 0xCF), "lossless"),
        **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xDE), "hierarchical"),
        **dict.fromkeys((0xC9, 0xCA, 0xCD, 0xCE), "arithmetic-coded"),
    }
)

# Grey levels that decoders fill in for missing rows of a truncated JPEG, with three or fewer channels and with four.
_FILL_RGB: Final = (128,)
_FILL_CMYK: Final = (65, 64)  # CMYK, YCCK

_EXIF: Final = b"Exif\x00\x00"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\x00"
_MULTI_PICTURE: Final = b"MPF\x00"
_IPTC: Final = b"Photoshop 3.0\x00"


@dataclass(slots=True)
class JpegHeader:
    """What the segments before the first scan of a JPEG say.

    Attributes:
        width: width in pixels, 0 before the frame is read.
        height: height in pixels.
        channels: 1 (grey), 3 (colour) or 4 (CMYK).
        streamed: whether the decoder holds only a few rows of coefficients, not those of the whole image.
        scan: offset of the first scan's marker.
        exif: the Exif data, empty if there is none.
        xmp: the XMP packet, empty if there is none.
        iptc: Photoshop's resources, which contain the IPTC data, empty if there are none.
        multi_picture: offset of the byte order of the list of an MPO file's images; 0 if there is none.
    """

    width: int = 0
    height: int = 0
    channels: int = 0
    streamed: bool = True
    scan: int = 0
    exif: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    multi_picture: int = 0
    _exif_parts: list[bytes] = field(default_factory=list)

    def add(self, marker: int, body: bytes) -> None:
        """Read a segment.

        Raises:
            OceanoError: `unsupported_image` for a kind of JPEG that the decoder does not support.
            ValueError: the frame is damaged.
        """
        if marker in _FRAMES:
            self._add_frame(marker, body)
        elif marker in _UNSUPPORTED:
            raise _unsupported(_UNSUPPORTED[marker])
        elif marker == 0xE1 and body.startswith(_EXIF) and len(self._exif_parts) < _MAX_EXIF_SEGMENTS:
            self._exif_parts.append(body[len(_EXIF) if self._exif_parts else 0 :])
        elif marker == 0xE1 and body.startswith(_XMP):
            self.xmp = self.xmp or body[len(_XMP) :]
        elif marker == 0xED and body.startswith(_IPTC):
            self.iptc = self.iptc or body

    def _add_frame(self, marker: int, body: bytes) -> None:
        if len(body) < 6:
            raise ValueError("its frame header is too short")
        if self.channels:
            raise ValueError("it has two frame headers")
        if body[0] != 8:
            raise _unsupported(f"{body[0]}-bit")
        self.height, self.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
        self.channels = body[5]
        self.streamed = marker != _PROGRESSIVE

    def end(self, position: int, channels: int) -> None:
        """Record where the first scan begins, and whether it has all channels."""
        if not self.channels:
            raise ValueError("it has no frame header")
        self.scan = position
        self.streamed = self.streamed and channels == self.channels
        self.exif = b"".join(self._exif_parts)


def _unsupported(kind: str) -> OceanoError:
    cause = "jpeg_bits" if kind.endswith("-bit") else f"jpeg_{kind.partition('-')[0]}"
    return OceanoError(
        "unsupported_image",
        f"this kind of JPEG is not supported: {kind}; only 8-bit JPEGs with Huffman coding are read",
        details={"cause": cause},
    )


def read_header(data: bytes) -> JpegHeader:
    """Read the segments before the first scan, as tolerantly as libjpeg does.

    Raises:
        OceanoError: `unsupported_image` for 12-bit, arithmetic-coded, lossless and hierarchical JPEGs.
        ValueError: there is no frame or no scan.
    """
    header, position = JpegHeader(), 2
    for _ in range(_MAX_SEGMENTS):
        marker, start = _next_marker(data, position)
        if marker in _ALONE:
            position = start
            continue
        if marker in (_START, _END):
            break
        length = int.from_bytes(data[start : start + 2], "big")
        position = start + max(length, 2)
        if marker == _SCAN[1]:
            header.end(start - 2, data[start + 2] if start + 2 < len(data) else 0)
            return header
        header.add(marker, data[start + 2 : position])
        if marker == 0xE2 and data.startswith(_MULTI_PICTURE, start + 2):
            header.multi_picture = start + 2 + len(_MULTI_PICTURE)
    raise ValueError("it has no image data")


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the segments before the first scan of a JPEG: marker, and positions of the contents and of the end.

    Args:
        data: the file's bytes. If they are damaged, it ends earlier.
    """
    position = 2
    for _ in range(_MAX_SEGMENTS):
        try:
            marker, start = _next_marker(data, position)
        except ValueError:
            return
        if marker in _ALONE:
            position = start
            continue
        if marker in (_START, _END, _SCAN[1]):
            return
        position = start + max(int.from_bytes(data[start : start + 2], "big"), 2)
        yield marker, start + 2, position


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """Return the next marker and the position behind it; bytes before it and padding are skipped."""
    found = _ANY_MARKER.search(data, position)
    if found is None:
        raise ValueError("it ends before its image data")
    return found.group()[1], found.end()


def is_plain_jpeg(data: bytes) -> bool:
    """Return whether a file is a JPEG of a usual kind with little metadata, which libjpeg-turbo decodes safely.

    Args:
        data: the file's bytes.

    Returns:
        True if the segments before the first scan are well-formed, at most 64 with 256 kB of metadata, and declare
        8 bits per sample, one or three channels, and Huffman coding.
    """
    if not data.startswith(bytes((0xFF, _START))):
        return False
    position, plain = 2, False
    for _ in range(_MAX_PLAIN_SEGMENTS):
        if position + 4 > len(data) or position > _MAX_PLAIN_METADATA or data[position] != 0xFF:
            return False
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _SCAN[1]:
            return plain
        if marker in _UNSUPPORTED or marker in _ALONE or marker in (_START, _END, 0xFF) or length < 2:
            return False
        if position + 2 + length > len(data):  # it is cut off
            return False
        if marker in _FRAMES:
            plain = length >= 8 and data[position + 4] == 8 and data[position + 9] in (1, 3)
        position += 2 + length
    return False


def check_scans(data: bytes, pixels: int) -> None:
    """Refuse JPEGs with too many scans: a few megabytes of empty scans take minutes to decode.

    Args:
        data: the file's bytes.
        pixels: of the image.

    Raises:
        ValueError: it has more than 100 scans, or fewer that are large.
    """
    most = max(1, min(_MAX_SCANS, _MAX_SCAN_PIXELS // (pixels or 1)))
    if _count(data, _SCAN) <= most:
        return
    scans, position = 0, 2
    while (marker := _MARKER.search(data, position)) is not None and marker.group() != _END_OF_JPEG:
        scans += marker.group() == _SCAN
        if scans > most:
            raise ValueError(f"it has more than {most} scans")
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")


def _count(data: bytes, pair: bytes) -> int:
    """Count a pair of two different bytes; `bytes.count` takes four times as long."""
    target = np.frombuffer(pair, np.uint16)
    words = (np.frombuffer(data, np.uint16, (len(data) - start) // 2, start) for start in (0, 1))
    return sum(int(np.count_nonzero(some == target)) for some in words)


def is_truncated(data: bytes, scan: int) -> bool:
    """Return whether the coded data that begins with the first scan has no end marker.

    Args:
        data: the file's bytes; anything may follow the image.
        scan: offset of the first scan's marker.
    """
    if _END_OF_JPEG in data[-64:]:
        return False
    position = scan
    while (marker := _MARKER.search(data, position)) is not None:
        kind = marker.group()[1]
        if kind in (_START, _END):
            return kind == _START
        if kind != _SCAN[1] and not (0xC0 <= kind <= 0xDF or kind >= 0xE0):
            position = marker.end()
            continue
        position = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2], "big"))
    return True


def jpeg_pixels(data: bytes, header: JpegHeader, divisor: int) -> Pixels:
    """Decode a JPEG; missing rows at its end are grey.

    Args:
        data: the file's bytes.
        header: its header.
        divisor: one of `DIVISORS`.

    Returns:
        The pixels as stored, not rotated, BGR.

    Raises:
        ValueError: it cannot be decoded, or more than half of it is missing.
    """
    truncated = is_truncated(data, header.scan)
    # OpenCV 5 refuses files without an end marker near their end
    complete = data if _END_OF_JPEG in data[-64:] else data + _END_OF_JPEG
    decoded = cv2.imdecode(np.frombuffer(complete, np.uint8), _REDUCED[divisor] | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None:
        raise ValueError("it cannot be decoded")
    pixels = decoded.astype(np.uint8, copy=False)
    fill = _FILL_CMYK if header.channels == 4 else _FILL_RGB
    if truncated and _decoded_rows(pixels, fill) < pixels.shape[0] / 2:
        raise ValueError("more than half of it is missing")
    return pixels


def _decoded_rows(pixels: Pixels, fill: tuple[int, ...]) -> int:
    """Number of rows before those at the end that hold nothing but the fill grey."""
    last = pixels[-1, -1]
    if last[0] not in fill or (last != last[0]).any():
        return len(pixels)
    return int(np.flatnonzero((pixels != last[0]).any(axis=(1, 2))).max(initial=-1)) + 1
