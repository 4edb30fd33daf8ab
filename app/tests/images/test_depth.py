from __future__ import annotations

import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from app.core.errors import OceanoError
from app.images.decoding import decode

MOST = 64_000_000


def _photograph(channels: int) -> npt.NDArray[np.uint8]:
    rough = np.random.default_rng(3).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    image = cv2.resize(rough, (80, 60), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    image[0, 0] = 255
    return image


def _encoded(values: npt.NDArray[Any], kind: str) -> bytes:
    ok, data = cv2.imencode(kind, values)
    assert ok
    return data.tobytes()


def _bgr(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


@pytest.mark.parametrize("kind", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_samples_of_any_depth_in_16_bits_give_the_same_picture(bits: int, channels: int, kind: str) -> None:
    image = _photograph(channels)
    wide = np.rint(image / 255.0 * ((1 << bits) - 1)).astype(np.uint16)
    pixels = decode(_encoded(wide, kind), max_pixels=MOST).pixels
    assert np.abs(pixels.astype(int) - _bgr(image)).max() <= 1


def test_the_number_of_significant_bits_of_a_png_does_not_matter() -> None:
    data = _encoded(_photograph(1).astype(np.uint16) * 16, ".png")
    body = b"sBIT\x0c"
    marked = data[:33] + b"\0\0\0\1" + body + zlib.crc32(body).to_bytes(4, "big") + data[33:]
    assert (decode(marked, max_pixels=MOST).pixels == decode(data, max_pixels=MOST).pixels).all()
    assert decode(marked, max_pixels=MOST).pixels.mean() > 80


def test_alpha_is_scaled_by_its_own_depth() -> None:
    wide = np.dstack([_photograph(3).astype(np.uint16) * 16, np.full((60, 80), 65535, np.uint16)])
    wide[30:, :, 3] = 0
    pixels = decode(_encoded(wide, ".png"), max_pixels=MOST).pixels
    assert np.abs(pixels[:30].astype(int) - _photograph(3)[:30]).max() <= 1
    assert (pixels[30:] == 255).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("peak", [1.0, 255.0, 65535.0, 4.0])
def test_floats_are_scaled_by_their_range(peak: float, channels: int, kind: Any) -> None:
    image = _photograph(channels)
    values = (image / 255.0 * peak).astype(kind)
    pixels = decode(_encoded(values, ".tiff"), max_pixels=MOST).pixels
    assert np.abs(pixels.astype(int) - _bgr(image)).max() <= 1


def test_floats_that_are_no_numbers_are_black_or_white() -> None:
    values = (_photograph(3) / 255.0).astype(np.float32)
    values[10, 10], values[20, 20] = np.nan, np.inf
    pixels = decode(_encoded(values, ".tiff"), max_pixels=MOST).pixels
    assert pixels[10, 10].tolist() == [0, 0, 0]
    assert pixels[20, 20].tolist() == [255, 255, 255]
    assert pixels.mean() > 80


def test_negative_floats_are_shifted() -> None:
    image = _photograph(3)
    pixels = decode(_encoded((image / 127.5 - 1).astype(np.float32), ".tiff"), max_pixels=MOST).pixels
    assert np.abs(pixels.astype(int) - image).max() <= 3


def test_floats_count_by_their_bytes() -> None:
    data = _encoded((_photograph(3) / 255.0).astype(np.float32), ".tiff")
    assert decode(data, max_pixels=60 * 80 * 3 // 2).pixels.shape == (60, 80, 3)
    with pytest.raises(OceanoError) as caught:
        decode(data, max_pixels=60 * 80)
    assert caught.value.code == "image_too_large"
