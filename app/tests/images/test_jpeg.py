from __future__ import annotations

import io
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from app.core.errors import OceanoError
from app.images.decoding import decode
from app.images.jpeg import read_header
from app.images.thumbnails import face_thumbnail
from app.web.i18n import error_message

MOST = 64_000_000


def _photograph(size: tuple[int, int] = (300, 200)) -> Image.Image:
    rough = np.random.default_rng(1).integers(0, 256, (10, 15, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)


def _jpeg(image: Image.Image | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    (image or _photograph()).save(out, "JPEG", quality=90, **options)
    return out.getvalue()


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _refused(data: bytes, max_pixels: int = MOST) -> OceanoError:
    with pytest.raises(OceanoError) as caught:
        decode(data, max_pixels=max_pixels)
    return caught.value


@pytest.mark.parametrize(
    "segment",
    [
        _segment(0xE0, b"JFIF"),
        _segment(0xE0, b"JFIF\0"),
        _segment(0xE0, b""),
        _segment(0xEE, b"Adobe\0"),
        _segment(0xEE, b"Adobe"),
        _segment(0xE2, b"ICC_PROFILE\0"),
        _segment(0xE2, b"MPF\0"),
        _segment(0xED, b"Photoshop 3.0\0" + b"8BIM"),
        _segment(0xE1, b"Exif\0\0"),
        _segment(0xFE, b""),
        b"\xff\x01",
        b"junk",
        b"\xff\xff\xff",
    ],
)
def test_a_short_or_odd_segment_does_not_make_a_jpeg_unreadable(segment: bytes) -> None:
    data = _jpeg()
    expected = decode(data, max_pixels=MOST).pixels
    at = 20 if segment == b"junk" else 2
    assert (decode(data[:at] + segment + data[at:], max_pixels=MOST).pixels == expected).all()


@pytest.mark.parametrize("min_decoded_side", [None, 100])
@pytest.mark.parametrize("behind", [b"\0" * 100, b"\0" * 5000, b"ftypmp42" * 500, b"\xff\xda\x00\x01" * 50])
def test_a_jpeg_with_a_grey_lower_part_and_bytes_behind_its_end_is_whole(
    behind: bytes, min_decoded_side: int | None
) -> None:
    image = _photograph((400, 300))
    image.paste((128, 128, 128), (0, 50, 400, 300))
    for progressive in (False, True):
        data = _jpeg(image, progressive=progressive, subsampling=0) + behind
        assert decode(data, max_pixels=MOST, min_decoded_side=min_decoded_side).full().shape == (300, 400, 3)


def test_a_truncated_jpeg_with_a_thumbnail_is_still_truncated() -> None:
    whole = _jpeg(_photograph((400, 300)))
    data = whole[:2] + _segment(0xE1, b"Exif\0\0" + _jpeg(_photograph((16, 16)))) + whole[2:]
    cut = len(data) - len(whole) * 7 // 10
    assert "missing" in _refused(data[:cut]).message


@pytest.mark.parametrize(
    ("frame", "bits", "cause", "spanish"),
    [
        (0xC1, 12, "jpeg_bits", "más de 8 bits"),
        (0xC2, 12, "jpeg_bits", "más de 8 bits"),
        (0xC9, 8, "jpeg_arithmetic", "codificación aritmética"),
        (0xCA, 8, "jpeg_arithmetic", "codificación aritmética"),
        (0xC3, 8, "jpeg_lossless", "sin pérdida"),
        (0xC3, 14, "jpeg_lossless", "sin pérdida"),
        (0xC5, 8, "jpeg_hierarchical", "jerárquico"),
    ],
)
def test_kinds_of_jpeg_that_are_not_decoded_are_named(frame: int, bits: int, cause: str, spanish: str) -> None:
    data = bytearray(_jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = frame, bits
    error = _refused(bytes(data))
    assert (error.code, error.details["cause"]) == ("unsupported_image", cause)
    assert {"jpeg_bits": "12-bit", "jpeg_arithmetic": "arithmetic-coded"}.get(cause, cause[5:]) in error.message
    assert spanish in error_message(error, "es")


# larger than the limit


@pytest.mark.parametrize(("most", "divisor"), [(60_000, 1), (59_999, 2), (15_000, 2), (14_999, 4), (3_000, 8)])
def test_a_jpeg_over_the_limit_is_decoded_at_a_part_of_its_size(most: int, divisor: int) -> None:
    picture = decode(_jpeg(), max_pixels=most)
    assert (picture.width, picture.height) == (300, 200)
    assert (picture.scale, picture.full_scale) == (1 / divisor, 1 / divisor)
    assert picture.pixels.shape[:2] == (-(-200 // divisor), -(-300 // divisor))
    assert picture.full() is picture.pixels


def test_the_full_picture_never_exceeds_the_limit() -> None:
    picture = decode(_jpeg(), max_pixels=20_000, min_decoded_side=30)
    assert (picture.scale, picture.full_scale) == (1 / 8, 1 / 2)
    assert picture.full().shape == (100, 150, 3)


def test_a_jpeg_that_is_too_large_at_an_eighth_is_refused() -> None:
    error = _refused(_jpeg(), max_pixels=500)
    assert (error.code, error.details["width"]) == ("image_too_large", 300)


def test_a_progressive_jpeg_over_the_limit_is_refused_because_its_decoder_holds_all_of_it() -> None:
    assert _refused(_jpeg(progressive=True), max_pixels=59_999).code == "image_too_large"
    assert not read_header(_jpeg(progressive=True)).streamed
    assert read_header(_jpeg()).streamed


def test_a_thumbnail_of_a_reduced_picture_shows_the_same_face() -> None:
    data = _jpeg(_photograph((1200, 800)))
    whole, reduced = (decode(data, max_pixels=most) for most in (MOST, 300_000))
    assert reduced.full_scale == 1 / 2
    bbox = (400.0, 200.0, 700.0, 500.0)
    a, b = (
        cv2.imdecode(np.frombuffer(face_thumbnail(picture, bbox), np.uint8), cv2.IMREAD_COLOR)
        for picture in (whole, reduced)
    )
    assert a is not None
    assert b is not None
    assert np.abs(a.astype(int) - b.astype(int)).mean() < 4
