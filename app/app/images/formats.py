"""Which format a file has, told by its first bytes and never by its name."""

from __future__ import annotations

from typing import Final

SNIFF_BYTES: Final = 64

# First bytes of what we read, by Pillow's name of the format.
_MAGIC: Final = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    "WEBP": (b"RIFF",),
}
# Sizes of a bitmap's second header, which begins at byte 14: many a text begins with BM.
_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
# Brands of an ISO base media file (ISO/IEC 23008-12, annex B; AV1 Image File Format, section 4).
_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIF: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}
)
FORMATS: Final = (*_MAGIC, "HEIF", "AVIF")


def sniff(head: bytes) -> str | None:
    """One of `FORMATS` by the first `SNIFF_BYTES` bytes; None if it is none of them."""
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    for name, beginnings in _MAGIC.items():
        if head.startswith(beginnings) and _fits(name, head):
            return name
    return None


def _fits(name: str, head: bytes) -> bool:
    """For formats whose first bytes do not say enough."""
    if name == "WEBP":
        return head[8:12] == b"WEBP"
    return name != "BMP" or int.from_bytes(head[14:18], "little") in _BMP_HEADERS


def _by_brand(head: bytes) -> str | None:
    """The general brands (mif1) say nothing of the codec; the compatible ones after them do."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, length - 3, 4))}
    if brands & _AVIF and head[8:12] not in _HEIF - {b"mif1", b"msf1", b"mif2"}:
        return "AVIF"
    return "HEIF" if brands & _HEIF else None
