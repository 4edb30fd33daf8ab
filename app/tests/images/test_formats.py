"""formats: what a file is, by its first bytes."""

from __future__ import annotations

import pytest

from app.images.formats import FORMATS, SNIFF_BYTES, sniff


def _ftyp(major: bytes, *compatible: bytes) -> bytes:
    brands = b"".join(compatible)
    return (16 + len(brands)).to_bytes(4, "big") + b"ftyp" + major + b"\0\0\0\0" + brands


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\xff\xd8\xff\xdb", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"BM" + bytes(12) + b"\x28\0\0\0", "BMP"),
        (b"BM" + bytes(12) + b"\x0c\0\0\0", "BMP"),
        (b"BMW builds motorcycles, too", None),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),  # BigTIFF
        (b"RIFF\x24\0\0\0WEBPVP8 ", "WEBP"),
        (_ftyp(b"heic", b"mif1", b"heic"), "HEIF"),
        (_ftyp(b"mif1", b"heic", b"hevc"), "HEIF"),
        (_ftyp(b"heix"), "HEIF"),
        (_ftyp(b"avif", b"mif1", b"miaf"), "AVIF"),
        (_ftyp(b"mif1", b"miaf", b"avif"), "AVIF"),
        (_ftyp(b"avis", b"avif"), "AVIF"),
        (_ftyp(b"heic", b"mif1", b"avif"), "HEIF"),
        (_ftyp(b"isom", b"mp42"), None),  # a film
        (_ftyp(b"qt  "), None),
        (b"RIFF\x24\0\0\0WAVEfmt ", None),
        (b"%PDF-1.7", None),
        (b"<svg", None),
        (b"", None),
        (b"\xff\xd8", None),
    ],
)
def test_a_format_is_known_by_its_first_bytes(head: bytes, name: str | None) -> None:
    assert sniff(head) == name
    assert sniff((head + b"\0" * SNIFF_BYTES)[:SNIFF_BYTES]) == name
    assert name is None or name in FORMATS


def test_a_length_that_lies_reads_no_further_than_there_is() -> None:
    assert sniff(b"\xff\xff\xff\xffftypmif1\0\0\0\0heic") == "HEIF"
    assert sniff(b"\0\0\0\0ftypheic") == "HEIF"
