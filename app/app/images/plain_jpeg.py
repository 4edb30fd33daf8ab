"""Tells plain JPEG files from those that need a decoder process."""

from __future__ import annotations

from typing import Final

_MAX_METADATA_BYTES: Final = 256_000
_MAX_SEGMENTS: Final = 64
_START: Final = b"\xff\xd8"
_SOF_PLAIN: Final = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended and progressive, Huffman-coded
_SOF_OTHER: Final = frozenset({0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
_SCAN: Final = 0xDA


def is_plain_jpeg(data: bytes) -> bool:
    """Return whether a file is a JPEG of a usual kind with little metadata, which libjpeg-turbo decodes safely.

    Args:
        data: the file's bytes.

    Returns:
        True if the segments before the first scan are well-formed, at most 64 with 256 kB of metadata, and declare
        8 bits per sample, one or three channels, and Huffman coding.
    """
    if not data.startswith(_START):
        return False
    position, plain = 2, False
    for _ in range(_MAX_SEGMENTS):
        if position + 4 > len(data) or position > _MAX_METADATA_BYTES or data[position] != 0xFF:
            return False
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _SCAN:
            return plain
        if marker in _SOF_OTHER or length < 2 or marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD9:
            return False
        if marker in _SOF_PLAIN:
            plain = length >= 8 and data[position + 4] == 8 and data[position + 9] in (1, 3)
        position += 2 + length
    return False
