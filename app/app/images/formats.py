"""Detection of image formats by a file's first bytes, never by its name."""

from __future__ import annotations

from typing import Final

SNIFF_BYTES: Final = 64

# First bytes of the supported formats, by Pillow's name of the format.
_MAGIC: Final = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    "WEBP": (b"RIFF",),
}
# Sizes of a bitmap's second header, which begins at byte 14; checked because a text may also begin with BM.
_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
# Brands of an ISO base media file (ISO/IEC 23008-12, annex B; AV1 Image File Format, section 4).
_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIF: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}
)
_GIF_IMAGE: Final = 0x2C
_GIF_EXTENSION: Final = 0x21
FORMATS: Final = (*_MAGIC, "HEIF", "AVIF")


def sniff(head: bytes) -> str | None:
    """Detect the format of an image.

    Args:
        head: the first `SNIFF_BYTES` bytes of the file.

    Returns:
        One of `FORMATS`, None for any other file.
    """
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    for name, prefixes in _MAGIC.items():
        if head.startswith(prefixes) and _is_confirmed(name, head):
            return name
    return None


def _is_confirmed(name: str, head: bytes) -> bool:
    """Check further bytes of formats whose first bytes are ambiguous."""
    if name == "WEBP":
        return head[8:12] == b"WEBP"
    return name != "BMP" or int.from_bytes(head[14:18], "little") in _BMP_HEADERS


def _by_brand(head: bytes) -> str | None:
    """Read the compatible brands too: a general major brand such as mif1 does not name the codec."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, length - 3, 4))}
    if brands & _AVIF and head[8:12] not in _HEIF - {b"mif1", b"msf1", b"mif2"}:
        return "AVIF"
    return "HEIF" if brands & _HEIF else None


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


def gif_frames(data: bytes) -> int:
    """Count the frames of a GIF by its blocks; a damaged one ends the count.

    Args:
        data: the file's bytes.
    """
    frames, position = 0, 13 + _table_bytes(data[10:11])
    while position < len(data):
        if data[position] == _GIF_IMAGE:
            frames += 1
            position += 11 + _table_bytes(data[position + 9 : position + 10])
        elif data[position] == _GIF_EXTENSION:
            position += 2
        else:
            break
        while position < len(data) and data[position]:  # blocks of up to 255 bytes; an empty one ends them
            position += 1 + data[position]
        position += 1
    return frames


def _table_bytes(flags: bytes) -> int:
    """Bytes of a GIF's colour table."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
