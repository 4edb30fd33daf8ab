"""Files with more parts than a photograph has, which keep decoders busy for minutes."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.core.errors import OceanoError
from app.images.decoding import decode
from app.images.structure import check_structure, declared_pixels

SIDE = 48


def _picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (SIDE, SIDE, 3), np.uint8))


def _encoded(name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    _picture().save(file, name, **options)
    return file.getvalue()


def _with_tags(entries: list[tuple[int, int, int, int]], order: str = "<") -> bytes:
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return header + struct.pack(order + "H", len(entries)) + b"".join(
        struct.pack(order + "HHII", *entry) for entry in entries
    ) + bytes(4)  # fmt: skip


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "entries",
    [
        [(tag, 4, 1, 0) for tag in range(1001)],
        [(273, 4, 60_000_000, 0)],  # strips
    ],
)
def test_a_tiff_with_too_many_tags_or_values_is_refused(entries: list[tuple[int, int, int, int]], order: str) -> None:
    with pytest.raises(OceanoError, match=r"tags; a photograph|has 60,000,000 values") as caught:
        decode(_with_tags(entries, order), max_pixels=10**6)
    assert caught.value.code == "invalid_image"


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
def test_an_ordinary_tiff_passes(compression: str | None) -> None:
    check_structure(_encoded("TIFF", compression=compression), "TIFF")


def test_a_tiff_with_megabytes_of_bytes_in_a_tag_passes() -> None:
    check_structure(_with_tags([(37724, 7, 30_000_000, 0)]), "TIFF")


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


@pytest.mark.parametrize("version", [0, 1])
def test_a_heif_file_of_too_many_items_is_refused(version: int) -> None:
    def file(items: int) -> bytes:
        count = struct.pack(">H" if version == 0 else ">I", items)
        listing = _box(b"iinf", bytes((version, 0, 0, 0)) + count)
        handler = _box(b"hdlr", bytes(8) + b"pict" + bytes(12) + b"iinf\0")  # a name that looks like a box
        return _box(b"ftyp", b"avif\0\0\0\0avifmif1") + _box(b"meta", bytes(4) + handler + listing)

    check_structure(file(400), "AVIF")
    with pytest.raises(ValueError, match="15,625 parts"):
        check_structure(file(15_625), "AVIF")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_the_declared_size_is_that_of_the_file(name: str) -> None:
    from app.images.heif import register_heif

    register_heif()
    data = _encoded(name)
    assert declared_pixels(data, name) == SIDE * SIDE
    assert declared_pixels(data[:16], name) in (0, SIDE * SIDE)  # GIF and PNG begin with the size


def test_the_declared_size_of_a_file_with_too_many_parts_is_not_asked_of_a_decoder() -> None:
    assert declared_pixels(_with_tags([(256, 4, 1, 100), (257, 4, 1, 100), (273, 4, 60_000_000, 0)]), "TIFF") == 0


def test_padding_before_a_jpeg_marker_is_skipped() -> None:
    data = _encoded("JPEG")
    padded = data[:2] + b"\xff" * 1_000_000 + data[2:]
    assert decode(padded, max_pixels=10**6).width == SIDE


def test_a_bitmap_with_run_lengths_is_read() -> None:
    runs = b"".join(bytes((SIDE // 2, row % 2, SIDE // 2, 1 - row % 2)) + b"\0\0" for row in range(SIDE)) + b"\0\1"
    palette = bytes((10, 20, 30, 0, 200, 150, 100, 0))
    start = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 8, 1, len(runs), 0, 0, 2, 0)
    data = b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs
    picture = decode(data, max_pixels=10**6)
    assert picture.pixels.shape == (SIDE, SIDE, 3)
    assert picture.pixels[-1, 0].tolist() == [10, 20, 30]
    assert picture.pixels[-1, -1].tolist() == [200, 150, 100]
