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
