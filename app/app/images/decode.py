"""Bytes become bounded, upright BGR pixels."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache, partial
from types import MappingProxyType
from typing import Final

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from app.core.errors import OceanoError
from app.core.types import Picture, Pixels
from app.images.formats import FORMATS, SNIFF_BYTES, sniff

# JPEG's decoder gives a half, a quarter or an eighth of the size for less than the work of all of it.
_REDUCED: Final[Mapping[int, int]] = MappingProxyType(
    {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2, 1: cv2.IMREAD_COLOR}
)
_END_OF_JPEG: Final = b"\xff\xd9"
_SCAN: Final = b"\xff\xda"
_MOST_SCANS: Final = 100  # a progressive JPEG has about ten; each goes over all of the picture
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data, FF comes before 00 or a restart
# The grey of rows that a cut off JPEG does not have; the second where it has four channels: CMYK, YCCK.
_NOTHING: Final = (128,)
_NO_INK: Final = (65, 64)
_TURNED: Final = range(5, 9)  # EXIF orientations that swap width and height

# What the decoders raise on bytes that are not what they claim to be.
_DECODER_ERRORS: Final = (
    cv2.error,
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    LookupError,
    ArithmeticError,
    EOFError,
    AttributeError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    MemoryError,
)


def image_id_of(data: bytes) -> str:
    """SHA-256 (hex) of the file's bytes: the identity of an image."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, *, max_pixels: int, image_id: str | None = None, enough: int | None = None) -> Picture:
    """Decode a picture, turned upright by its EXIF orientation, transparency over white, 8 bits per channel.

    The size is read from the header and checked against `max_pixels` before anything is decoded. Where `enough`
    pixels of the longer side will do, a JPEG that has at least twice as many is decoded at a half, a quarter or an
    eighth of its size. A JPEG that is cut off is a picture if half of its rows are there.
    Raises OceanoError `unsupported_image` (not a format we read), `image_too_large`, `invalid_image`.
    """
    name = sniff(data[:SNIFF_BYTES])
    if name is None:
        raise OceanoError(
            "unsupported_image" if data else "invalid_image",
            f"not a picture of a supported format ({', '.join(FORMATS)})" if data else "the file is empty",
            details={"supported": list(FORMATS)},
        )
    try:
        return _decode(data, name, max_pixels, image_id or image_id_of(data), enough)
    except UnidentifiedImageError as failure:  # its own words name an object in memory
        raise OceanoError(
            "invalid_image", f"it begins like a {name} file, but is none", details={"format": name}
        ) from failure
    except _DECODER_ERRORS as failure:
        raise OceanoError(
            "invalid_image", f"the {name} file is damaged: {failure}", details={"format": name}
        ) from failure


def _decode(data: bytes, name: str, max_pixels: int, image_id: str, enough: int | None) -> Picture:
    Image.MAX_IMAGE_PIXELS = None  # our own limit, just below, comes before any decoding
    if name == "HEIF":
        _know_heif()
    with Image.open(io.BytesIO(data), formats=(name,)) as image:
        width, height = image.size
        _check_size(width, height, max_pixels)
        taken_at = _taken_at(image)
        if name == "JPEG":
            _check_scans(data)
            turn = _orientation(image)
            part = _part(max(width, height), enough)
            if turn in _TURNED:
                width, height = height, width
            nothing = _NO_INK if image.mode == "CMYK" else _NOTHING
            pixels = _jpeg(data, turn, part, nothing)
            full = cache(partial(_jpeg, data, turn, 1, nothing)) if part > 1 else None
            return Picture(image_id, pixels, name, taken_at, width, height, 1 / part, full)
        image.load()
        pixels = _upright(_bgr(image), _orientation(image))  # asked for after load, which turns a TIFF itself
        height, width = pixels.shape[:2]
        return Picture(image_id, pixels, name, taken_at, width, height)


@cache
def _know_heif() -> None:
    """Pillow reads AVIF by itself, HEIC with a plug-in."""
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False, decode_threads=1)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise OceanoError(
            "image_too_large",
            f"{width} x {height} is {width * height / 1e6:.1f} megapixels; at most {max_pixels / 1e6:g} are taken",
            details={"width": width, "height": height, "max_megapixels": max_pixels / 1e6},
        )
    if min(width, height) < 1:
        raise ValueError("a side of 0 pixels")


def _check_scans(data: bytes) -> None:
    """A few megabytes of scans without content would keep a decoder busy for minutes."""
    if _count(data, _SCAN) <= _MOST_SCANS:
        return
    scans, place = 0, 2
    while (marker := _MARKER.search(data, place)) is not None and marker.group() != _END_OF_JPEG:
        scans += marker.group() == _SCAN
        if scans > _MOST_SCANS:
            raise ValueError(f"it has more than {_MOST_SCANS} scans")
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")


def _count(data: bytes, pair: bytes) -> int:
    """How often two bytes that differ occur; `bytes.count` takes four times as long."""
    wanted = np.frombuffer(pair, np.uint16)
    pairs = (np.frombuffer(data, np.uint16, (len(data) - start) // 2, start) for start in (0, 1))
    return sum(int(np.count_nonzero(some == wanted)) for some in pairs)


def _part(longer_side: int, enough: int | None) -> int:
    """8, 4, 2 or 1: the largest part of the size that leaves enough pixels."""
    return 1 if enough is None else next(part for part in _REDUCED if longer_side >= part * enough or part == 1)


def _jpeg(data: bytes, turn: int, part: int, nothing: tuple[int, ...]) -> Pixels:
    """What is missing at the end of a JPEG is grey."""
    cut_off = _END_OF_JPEG not in data[-64:]  # or something follows it, as in a phone's "motion photo"
    whole = data + _END_OF_JPEG if cut_off else data  # OpenCV 5 takes none without an end
    found = cv2.imdecode(np.frombuffer(whole, np.uint8), _REDUCED[part] | cv2.IMREAD_IGNORE_ORIENTATION)
    if found is None:
        raise ValueError("it cannot be decoded")
    pixels = found.astype(np.uint8, copy=False)
    if cut_off and _rows(pixels, nothing) < pixels.shape[0] / 2:
        raise ValueError("more than half of it is missing")
    return _upright(pixels, turn)


def _rows(pixels: Pixels, nothing: tuple[int, ...]) -> int:
    """How many rows come before those that are nothing but grey."""
    last = pixels[-1, -1]
    if last[0] not in nothing or (last != last[0]).any():
        return len(pixels)
    return int(np.flatnonzero((pixels != last[0]).any(axis=(1, 2))).max(initial=-1)) + 1


def _bgr(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey = np.asarray(image, dtype=np.float32)
        if image.mode == "F":
            grey = np.nan_to_num(grey)
        brightest = grey.max(initial=0)
        if brightest > 255:
            grey = grey / 257.0  # 16 bits: 65535 / 255
        elif image.mode == "F" and brightest <= 1:
            grey = grey * 255.0
        return cv2.cvtColor(np.clip(grey, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        backdrop = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(backdrop, image)
    rgb = image if image.mode == "RGB" else image.convert("RGB")  # convert copies in any case
    return cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 to 8. `ImageOps.exif_transpose` gives up on a picture whose EXIF is damaged."""
    try:
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODER_ERRORS:
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def _upright(pixels: Pixels, turn: int) -> Pixels:
    """Turned and mirrored as an EXIF orientation asks for."""
    if turn in (5, 7):  # along a diagonal
        pixels = cv2.transpose(pixels).astype(np.uint8, copy=False)
    match turn:
        case 2:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        case 3 | 7:
            pixels = np.ascontiguousarray(pixels[::-1, ::-1])
        case 4:
            pixels = np.ascontiguousarray(pixels[::-1])
        case 6:
            pixels = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE).astype(np.uint8, copy=False)
        case 8:
            pixels = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE).astype(np.uint8, copy=False)
    return pixels


def _taken_at(image: Image.Image) -> str | None:
    try:
        exif = image.getexif()
        text = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        return datetime.strptime(str(text).strip("\x00 "), "%Y:%m:%d %H:%M:%S").isoformat() if text else None
    except _DECODER_ERRORS:
        return None  # a picture with damaged EXIF is still a picture


def preview_webp(pixels: Pixels, longest_side: int) -> tuple[bytes, float]:
    """The picture as WebP with at most `longest_side` pixels a side, and the scale (at most 1) it was shrunk by."""
    height, width = pixels.shape[:2]
    scale = min(1.0, longest_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    ok, encoded = cv2.imencode(".webp", shrunk, [cv2.IMWRITE_WEBP_QUALITY, 82])
    if not ok:
        raise OceanoError("internal", "a preview could not be encoded")
    return encoded.tobytes(), scale
