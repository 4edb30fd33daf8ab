"""Camera and exposure of a photograph, from its Exif data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from PIL import ExifTags

from app.images.damage import DECODER_ERRORS
from app.images.dates import Metadata

_MAX_CHARS: Final = 80
_BASE: Final = ExifTags.Base


def details_of(metadata: Metadata) -> dict[str, str]:
    """Return what is known of camera, lens, exposure (such as 1/250 s), aperture (f/2.8), iso and focal_length (35 mm).

    Damaged values are left out.
    """
    if metadata.exif is None:
        return {}
    found: dict[str, str] = {}
    try:
        inner: Mapping[int, Any] = metadata.exif.get_ifd(ExifTags.IFD.Exif)
    except DECODER_ERRORS:
        inner = {}
    outer: Mapping[int, Any] = metadata.exif
    readers: dict[str, Callable[[], str]] = {
        "camera": lambda: _camera(_text(outer.get(_BASE.Make)), _text(outer.get(_BASE.Model))),
        "lens": lambda: _text(inner.get(_BASE.LensModel)),
        "exposure": lambda: _exposure(inner.get(_BASE.ExposureTime)),
        "aperture": lambda: _number("f/{:g}", inner.get(_BASE.FNumber), 1),
        "iso": lambda: _number("{:g}", inner.get(_BASE.ISOSpeedRatings), 0),
        "focal_length": lambda: _number("{:g} mm", inner.get(_BASE.FocalLength), 1),
    }
    for name, read in readers.items():
        try:
            if text := read():
                found[name] = text
        except (*DECODER_ERRORS, ArithmeticError):
            continue
    return found


def _text(value: object) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value or "")
    return "".join(sign for sign in text.split("\x00", 1)[0] if sign.isprintable()).strip()[:_MAX_CHARS]


def _camera(make: str, model: str) -> str:
    """Return the model, after its maker if it does not begin with that name: "NIKON D90", "Canon EOS 5D"."""
    maker = make.split(" ", 1)[0]
    return model if not maker or model.lower().startswith(maker.lower()) else f"{make} {model}".strip()


def _number(template: str, value: object, decimals: int) -> str:
    first = value[0] if isinstance(value, tuple) and value else value
    number = float(first) if first is not None else 0.0  # type: ignore[arg-type]
    rounded = round(number, decimals) if 0 < number < 1e7 else 0
    return template.format(rounded) if rounded else ""


def _exposure(value: object) -> str:
    seconds = float(value) if value is not None else 0.0  # type: ignore[arg-type]
    if not 0 < seconds < 1e6:
        return ""
    return f"1/{round(1 / seconds)} s" if seconds < 0.4 else f"{seconds:g} s"
