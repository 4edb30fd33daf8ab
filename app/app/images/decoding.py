"""Decoding of image files to upright BGR pixels, within a size limit."""

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

# A JPEG decoder can decode at a half, a quarter or an eighth of the size in less time than at full size.
_REDUCED: Final[Mapping[int, int]] = MappingProxyType(
    {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2, 1: cv2.IMREAD_COLOR}
)
_END_OF_JPEG: Final = b"\xff\xd9"
_SCAN: Final = b"\xff\xda"
_MAX_SCANS: Final = 100  # a progressive JPEG has about ten; each covers the whole image
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data, FF is followed by 00 or a restart
# Grey levels that decoders fill in for missing rows of a truncated JPEG, with three or fewer channels and with four.
_FILL_RGB: Final = (128,)
_FILL_CMYK: Final = (65, 64)  # CMYK, YCCK
_TRANSPOSED: Final = range(5, 9)  # EXIF orientations that swap width and height

# Exceptions of the decoders on invalid data.
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
    """Return the id of an image: the SHA-256 (hex) of the file's bytes."""
    return hashlib.sha256(data).hexdigest()


def decode(
    data: bytes, *, max_pixels: int, image_id: str | None = None, min_decoded_side: int | None = None
) -> Picture:
    """Decode an image to 8 bits per channel, rotated by its EXIF orientation, with transparency over white.

    A truncated JPEG is accepted if at least half of its rows can be decoded.

    Args:
        data: the file's bytes.
        max_pixels: the largest number of pixels, checked against the header before decoding.
        image_id: the image's id, computed from `data` if None.
        min_decoded_side: pixels of the longer side that the caller needs. A JPEG with at least twice as many is
            decoded at a half, a quarter or an eighth of its size. None: all pixels.

    Returns:
        The image.

    Raises:
        OceanoError: `unsupported_image` if the format is not supported, `image_too_large`, `invalid_image` if the file
            is empty or damaged.
    """
    name = sniff(data[:SNIFF_BYTES])
    if name is None:
        raise OceanoError(
            "unsupported_image" if data else "invalid_image",
            f"not an image of a supported format ({', '.join(FORMATS)})" if data else "the file is empty",
            details={"supported": list(FORMATS)},
        )
    try:
        return _decode(data, name, max_pixels, image_id or image_id_of(data), min_decoded_side)
    except UnidentifiedImageError as failure:  # its message names an object in memory
        raise OceanoError(
            "invalid_image", f"the file begins like {name}, but it is not a valid {name} file", details={"format": name}
        ) from failure
    except _DECODER_ERRORS as failure:
        raise OceanoError(
            "invalid_image", f"the {name} file is damaged: {failure}", details={"format": name}
        ) from failure


def _decode(data: bytes, name: str, max_pixels: int, image_id: str, min_decoded_side: int | None) -> Picture:
    Image.MAX_IMAGE_PIXELS = None  # replaced by our own limit below, which is checked before decoding
    if name == "HEIF":
        _register_heif()
    with Image.open(io.BytesIO(data), formats=(name,)) as image:
        width, height = image.size
        _check_size(width, height, max_pixels)
        taken_at = _taken_at(image)
        if name == "JPEG":
            _check_scans(data)
            orientation = _orientation(image)
            divisor = _divisor(max(width, height), min_decoded_side)
            if orientation in _TRANSPOSED:
                width, height = height, width
            fill = _FILL_CMYK if image.mode == "CMYK" else _FILL_RGB
            pixels = _jpeg(data, orientation, divisor, fill)
            full = cache(partial(_jpeg, data, orientation, 1, fill)) if divisor > 1 else None
            return Picture(image_id, pixels, name, taken_at, width, height, 1 / divisor, full)
        image.load()
        pixels = _upright(_bgr(image), _orientation(image))  # read after load, which rotates a TIFF itself
        height, width = pixels.shape[:2]
        return Picture(image_id, pixels, name, taken_at, width, height)


@cache
def _register_heif() -> None:
    """Let Pillow read HEIC with a plug-in; it reads AVIF without one."""
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False, decode_threads=1)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise OceanoError(
            "image_too_large",
            f"{width} x {height} is {width * height / 1e6:.1f} megapixels; at most {max_pixels / 1e6:g} are accepted",
            details={"width": width, "height": height, "max_megapixels": max_pixels / 1e6},
        )
    if min(width, height) < 1:
        raise ValueError("a side has 0 pixels")


def _check_scans(data: bytes) -> None:
    """Refuse JPEGs with too many scans: a few megabytes of empty scans take minutes to decode."""
    if _count(data, _SCAN) <= _MAX_SCANS:
        return
    scans, position = 0, 2
    while (marker := _MARKER.search(data, position)) is not None and marker.group() != _END_OF_JPEG:
        scans += marker.group() == _SCAN
        if scans > _MAX_SCANS:
            raise ValueError(f"it has more than {_MAX_SCANS} scans")
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")


def _count(data: bytes, pair: bytes) -> int:
    """Count a pair of two different bytes; `bytes.count` takes four times as long."""
    target = np.frombuffer(pair, np.uint16)
    words = (np.frombuffer(data, np.uint16, (len(data) - start) // 2, start) for start in (0, 1))
    return sum(int(np.count_nonzero(some == target)) for some in words)


def _divisor(longer_side: int, min_decoded_side: int | None) -> int:
    """The largest of 8, 4, 2 and 1 that leaves the longer side at least `min_decoded_side` pixels."""
    return (
        1
        if min_decoded_side is None
        else next(divisor for divisor in _REDUCED if longer_side >= divisor * min_decoded_side or divisor == 1)
    )


def _jpeg(data: bytes, orientation: int, divisor: int, fill: tuple[int, ...]) -> Pixels:
    """Decode a JPEG; missing rows at its end are grey."""
    truncated = _END_OF_JPEG not in data[-64:]  # or data follows the end, as in a phone's "motion photo"
    complete = data + _END_OF_JPEG if truncated else data  # OpenCV 5 refuses files without an end marker
    decoded = cv2.imdecode(np.frombuffer(complete, np.uint8), _REDUCED[divisor] | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None:
        raise ValueError("it cannot be decoded")
    pixels = decoded.astype(np.uint8, copy=False)
    if truncated and _decoded_rows(pixels, fill) < pixels.shape[0] / 2:
        raise ValueError("more than half of it is missing")
    return _upright(pixels, orientation)


def _decoded_rows(pixels: Pixels, fill: tuple[int, ...]) -> int:
    """Number of rows before those at the end that hold nothing but the fill grey."""
    last = pixels[-1, -1]
    if last[0] not in fill or (last != last[0]).any():
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
    """The EXIF orientation, 1 to 8. `ImageOps.exif_transpose` fails on damaged EXIF data; this returns 1."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODER_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Rotate and mirror an image by its EXIF orientation."""
    if orientation in (5, 7):  # mirrored along a diagonal
        pixels = cv2.transpose(pixels).astype(np.uint8, copy=False)
    match orientation:
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
        return None  # damaged EXIF data does not make the image invalid


def preview_webp(pixels: Pixels, longest_side: int) -> tuple[bytes, float]:
    """Encode a preview of an image as WebP.

    Args:
        pixels: the image, BGR, uint8, (H, W, 3).
        longest_side: the largest side of the preview in pixels.

    Returns:
        The WebP file, and its scale relative to the image, at most 1.

    Raises:
        OceanoError: `internal` if encoding fails.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, longest_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    ok, encoded = cv2.imencode(".webp", shrunk, [cv2.IMWRITE_WEBP_QUALITY, 82])
    if not ok:
        raise OceanoError("internal", "a preview could not be encoded")
    return encoded.tobytes(), scale
