"""Pages after the first of TIFF, MPO and HEIF files; frames of animations are none."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from app.core.errors import OceanoError
from app.images import DecoderPool, decode, image_id_of

_COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))
_SIZES = ((160, 120), (200, 100), (90, 130))


def _images() -> list[Image.Image]:
    return [Image.new("RGB", size, colour) for size, colour in zip(_SIZES, _COLOURS, strict=True)]


def _saved(kind: str, images: Sequence[Image.Image] | None = None, **options: Any) -> bytes:
    images = images or _images()
    if kind == "HEIF":
        pillow_heif.register_heif_opener()
    out = io.BytesIO()
    images[0].save(out, kind, save_all=True, append_images=images[1:], **options)
    return out.getvalue()


def _mpo(*, photographs: bool = True) -> bytes:
    data = bytearray(_saved("MPO"))
    kind = 0x020002 if photographs else 0  # disparity; undefined, as of a gain map
    start = data.index(b"MPF\0") + 4
    order = "<" if data[start : start + 2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, start + 4)
    for number in range(struct.unpack_from(order + "H", data, start + directory)[0]):
        tag, _, _, offset = struct.unpack_from(order + "HHII", data, start + directory + 2 + 12 * number)
        if tag == 0xB002:
            for image in range(1, 3):
                struct.pack_into(order + "I", data, start + offset + 16 * image, kind)
    return bytes(data)


_FILES = {
    "tiff": _saved("TIFF"),
    "bigtiff": _saved("TIFF", big_tiff=True),
    "tiff_lzw": _saved("TIFF", compression="tiff_lzw"),
    "mpo": _mpo(),
    "heic": _saved("HEIF", quality=90),
    "heic_second_is_primary": _saved("HEIF", quality=90, primary_index=1),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    pool = DecoderPool(1, seconds=20)
    yield pool
    pool.close()


@pytest.mark.parametrize("name", _FILES)
def test_every_page_is_decoded(pool: DecoderPool, name: str) -> None:
    order = (1, 0, 2) if name == "heic_second_is_primary" else (0, 1, 2)
    data = _FILES[name]
    assert decode(data, max_pixels=100_000).pages == 3
    for page, expected in enumerate(order):
        for picture in (decode(data, max_pixels=100_000, page=page), pool.decode(data, max_pixels=100_000, page=page)):
            assert (picture.width, picture.height) == _SIZES[expected]
            assert picture.image_id == image_id_of(data)
            assert np.abs(picture.pixels.mean(axis=(0, 1)) - np.array(_COLOURS[expected][::-1])).max() < 12


@pytest.mark.parametrize("name", _FILES)
def test_a_page_that_is_missing_or_too_large_is_an_error(pool: DecoderPool, name: str) -> None:
    for page in (3, 1000):
        with pytest.raises(OceanoError) as raised:
            pool.decode(_FILES[name], max_pixels=100_000, page=page)
        assert raised.value.code == "invalid_request"
        assert raised.value.details == {"pages": len(_COLOURS)}
    if name == "mpo":  # a JPEG that is too large is decoded at a part of its size
        assert pool.decode(_FILES[name], max_pixels=19_500, page=1).scale == 0.5
        return
    with pytest.raises(OceanoError) as raised:
        pool.decode(_FILES[name], max_pixels=19_500, page=0 if "second" in name else 1)
    assert raised.value.code == "image_too_large"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_frames_of_an_animation_are_no_pages(kind: str) -> None:
    images = [Image.new("RGB", (64, 48), colour) for colour in _COLOURS]
    picture = decode(_saved(kind, images), max_pixels=100_000)
    assert (picture.frames, picture.pages) == (3, 1)


def test_a_gain_map_of_a_jpeg_is_no_page() -> None:
    assert decode(_mpo(photographs=False), max_pixels=100_000).pages == 1


def test_reduced_copies_and_masks_in_a_tiff_are_no_pages() -> None:
    data = bytearray(_saved("TIFF", tiffinfo={254: 0}))
    for kind in (1, 4):
        (first,) = struct.unpack_from("<I", data, 4)
        (entries,) = struct.unpack_from("<H", data, first)
        (second,) = struct.unpack_from("<I", data, first + 2 + 12 * entries)
        assert struct.unpack_from("<H", data, second + 2)[0] == 254
        struct.pack_into("<I", data, second + 2 + 8, kind)
        picture = decode(bytes(data), max_pixels=100_000, page=1)
        assert decode(bytes(data), max_pixels=100_000).pages == 2
        assert (picture.width, picture.height) == _SIZES[2]


def test_pages_of_many_bits_are_decoded() -> None:
    images = [Image.fromarray(np.full((40, 50), value, np.uint16)) for value in (9000, 40000)]
    picture = decode(_saved("TIFF", images), max_pixels=100_000, page=1)
    assert (picture.width, picture.height, int(picture.pixels[0, 0, 0])) == (50, 40, 156)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("name", _FILES)
def test_damaged_files_raise_only_errors_of_ours(name: str, cut: float) -> None:
    data = _FILES[name]
    broken = data[: int(cut * len(data))] + bytes(range(256))
    for page in (0, 1, 2):
        try:
            decode(broken, max_pixels=100_000, page=page)
        except OceanoError as failure:
            assert failure.code in {"invalid_image", "image_too_large", "unsupported_image", "invalid_request"}
