"""Whether a file is visibly cut off, for every supported format."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from app.images import is_cut_off

_PIXELS = np.random.default_rng(1).integers(0, 255, (120, 160, 3), np.uint8)


def _file(kind: str, **options: Any) -> bytes:
    if kind == "HEIF":
        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    Image.fromarray(_PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def _pages() -> bytes:
    return _file("TIFF", save_all=True, append_images=[Image.fromarray(_PIXELS[::-1])])


def _directory_first(tiff: bytes) -> bytes:
    """A TIFF with one strip behind its directory: as some programs write them, Pillow does not."""
    width, height = 160, 120
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (262, 3, 1), (273, 4, 200), (279, 4, width * height)]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return (struct.pack("<2sHI", b"II", 42, 8) + directory + bytes(4)).ljust(200, b"\0") + tiff[: width * height]


_FILES = {
    "jpeg": _file("JPEG"),
    "progressive": _file("JPEG", progressive=True),
    "png": _file("PNG"),
    "gif": _file("GIF"),
    "bmp": _file("BMP"),
    "webp": _file("WEBP"),
    "tiff": _file("TIFF"),
    "tiff_compressed": _file("TIFF", compression="tiff_lzw"),
    "tiff_pages": _pages(),
    "tiff_directory_first": _directory_first(_file("TIFF")),
    "heic": _file("HEIF"),
    "avif": _file("AVIF"),
}


@pytest.mark.parametrize("name", _FILES)
def test_a_file_is_cut_off_wherever_it_ends(name: str) -> None:
    data = _FILES[name]
    assert not is_cut_off(data)
    for share in (0.1, 0.3, 0.5, 0.75, 0.9, 0.99):
        assert is_cut_off(data[: max(100, int(share * len(data)))]), share


@pytest.mark.parametrize("name", [name for name in _FILES if not name.startswith("tiff")])
def test_bytes_behind_a_file_are_not_missing(name: str) -> None:
    behind = bytes(100) if name not in ("heic", "avif") else struct.pack(">I4s", 100, b"free") + bytes(92)
    assert not is_cut_off(_FILES[name] + behind)


@pytest.mark.parametrize("data", [b"", b"\xff", b"no picture", b"II*\0\xff\xff\xff\xff", b"MM\0+" + b"\xff" * 60])
def test_rubbish_raises_nothing(data: bytes) -> None:
    assert is_cut_off(data) == data.startswith((b"II*", b"MM"))
