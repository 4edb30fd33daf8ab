from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from app.images import decode

_EXIF = 0x8769


def _details(outer: dict[int, Any], inner: dict[int, Any]) -> dict[str, str]:
    exif = Image.Exif()
    for tag, value in outer.items():
        exif[tag] = value
    for tag, value in inner.items():
        exif.get_ifd(_EXIF)[tag] = value
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "JPEG", exif=exif)
    return dict(decode(file.getvalue(), max_pixels=10**6).details)


def test_camera_and_exposure_are_read() -> None:
    inner = {
        0x829A: IFDRational(1, 250),
        0x829D: IFDRational(28, 10),
        0x8827: 400,
        0x920A: IFDRational(50, 1),
        0xA434: "EF 50mm",
    }
    assert _details({0x010F: "Canon", 0x0110: "Canon EOS 5D"}, inner) == {
        "camera": "Canon EOS 5D",
        "lens": "EF 50mm",
        "exposure": "1/250 s",
        "aperture": "f/2.8",
        "iso": "400",
        "focal_length": "50 mm",
    }


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("Canon\0", "EOS\x1b[31m", "Canon EOS[31m"),
    ],
)
def test_the_maker_is_named_once_and_nothing_else_is_printed(make: str, model: str, camera: str) -> None:
    assert _details({0x010F: make, 0x0110: model}, {})["camera"] == camera


def test_impossible_values_are_left_out() -> None:
    inner = {0x829A: IFDRational(0, 0), 0x829D: IFDRational(1, 0), 0x8827: 0, 0x920A: IFDRational(-5, 1)}
    assert _details({}, inner) == {}


def test_a_long_exposure_is_in_seconds() -> None:
    assert _details({}, {0x829A: IFDRational(25, 10)}) == {"exposure": "2.5 s"}
