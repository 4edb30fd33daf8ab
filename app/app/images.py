"""Bytes become bounded, upright BGR pixels; pixels become thumbnails."""

from __future__ import annotations

import errno
import hashlib
import io
import struct
import uuid
import zlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from app.errors import OceanoError
from app.types import BBox, Picture, Pixels

# First bytes of what we read, by Pillow's name of the format.
_MAGIC: Final = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\x00", b"MM\x00*"),
    "WEBP": (b"RIFF",),
}
SNIFF_BYTES: Final = 16
THUMB_SIDE: Final = 192
_THUMB_MARGIN: Final = 1.7  # the thumbnail's side over the face's longer side: hair and chin belong to a face

# EXIF orientation -> what turns the picture upright.
_TURNS: Final[Mapping[int, Image.Transpose]] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)

# What Pillow's decoders raise on bytes that are not what they claim to be.
_DECODER_ERRORS: Final = (
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


def sniff(head: bytes) -> str | None:
    """Format by content ("JPEG", "PNG", ...) from the first `SNIFF_BYTES` bytes; None if it is none we read."""
    for name, beginnings in _MAGIC.items():
        if head.startswith(beginnings) and (name != "WEBP" or head[8:12] == b"WEBP"):
            return name
    return None


def image_id_of(data: bytes) -> str:
    """SHA-256 (hex) of the file's bytes: the identity of an image."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, *, max_pixels: int, image_id: str | None = None) -> Picture:
    """Decode a picture, turned upright by its EXIF orientation, transparency over white, 8 bits per channel.

    The size is read from the header and checked against `max_pixels` before anything is decoded.
    Raises OceanoError `unsupported_image` (not a format we read), `image_too_large`, `invalid_image`.
    """
    name = sniff(data[:SNIFF_BYTES])
    if name is None:
        raise OceanoError(
            "unsupported_image" if data else "invalid_image",
            f"not a picture of a supported format ({', '.join(_MAGIC)})" if data else "the file is empty",
            details={"supported": list(_MAGIC)},
        )
    Image.MAX_IMAGE_PIXELS = None  # our own limit, just below, comes before any decoding
    try:
        with Image.open(io.BytesIO(data), formats=(name,)) as image:
            _check_size(image.width, image.height, max_pixels)
            taken_at = _taken_at(image)
            image.load()  # a TIFF is turned upright by that
            pixels = _bgr(_upright(image))
    except UnidentifiedImageError as failure:  # its own words name an object in memory
        raise OceanoError(
            "invalid_image", f"it begins like a {name} file, but is none", details={"format": name}
        ) from failure
    except _DECODER_ERRORS as failure:
        raise OceanoError(
            "invalid_image", f"the {name} file is damaged: {failure}", details={"format": name}
        ) from failure
    return Picture(image_id or image_id_of(data), pixels, name, taken_at)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise OceanoError(
            "image_too_large",
            f"{width} x {height} is {width * height / 1e6:.1f} megapixels; at most {max_pixels / 1e6:g} are taken",
            details={"width": width, "height": height, "max_megapixels": max_pixels / 1e6},
        )
    if min(width, height) < 1:
        raise ValueError("a side of 0 pixels")


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


def _upright(image: Image.Image) -> Image.Image:
    """Turned by its EXIF orientation. `ImageOps.exif_transpose` gives up on a picture whose EXIF is damaged."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DECODER_ERRORS:
        turn = None
    return image if turn is None else image.transpose(turn)


def _taken_at(image: Image.Image) -> str | None:
    try:
        exif = image.getexif()
        text = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        return datetime.strptime(str(text).strip("\x00 "), "%Y:%m:%d %H:%M:%S").isoformat() if text else None
    except _DECODER_ERRORS:
        return None  # a picture with damaged EXIF is still a picture


def face_thumbnail(pixels: Pixels, bbox: BBox, side: int = THUMB_SIDE) -> bytes:
    """A square WebP of `side` pixels around a face, with a margin; at the picture's edge it moves inwards, and it is
    never larger than the picture is high or wide."""
    x1, y1, x2, y2 = bbox
    height, width = pixels.shape[:2]
    length = round(min(max(1.0, max(x2 - x1, y2 - y1) * _THUMB_MARGIN), height, width))
    left = _start((x1 + x2) / 2, length, width)
    top = _start((y1 + y2) / 2, length, height)
    square = pixels[top : top + length, left : left + length]
    interpolation = cv2.INTER_AREA if length > side else cv2.INTER_CUBIC
    return _webp(cv2.resize(square, (side, side), interpolation=interpolation))


def _start(centre: float, length: int, available: int) -> int:
    """Where a window of `length` pixels around `centre` begins, moved into [0, available)."""
    return min(max(0, round(centre - length / 2)), available - length)


def preview_webp(pixels: Pixels, longest_side: int) -> tuple[bytes, float]:
    """The picture as WebP with at most `longest_side` pixels a side, and the scale (at most 1) it was shrunk by."""
    height, width = pixels.shape[:2]
    scale = min(1.0, longest_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _webp(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels), scale


def _webp(pixels: Pixels | np.ndarray) -> bytes:
    ok, encoded = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 82])
    if not ok:
        raise OceanoError("internal", "a thumbnail could not be encoded")
    return encoded.tobytes()


class ThumbStore:
    """Thumbnails on disk, two levels of folders deep: `ab/cd/abcd....webp`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, face_id: str) -> Path:
        """Where a face's thumbnail is or would be. Raises OceanoError `face_unknown` if it is no face id."""
        try:
            name = str(uuid.UUID(face_id))
        except ValueError:
            raise OceanoError("face_unknown", "a face id is a UUID", details={"face_id": face_id[:64]}) from None
        return self._root / name[:2] / name[2:4] / f"{name}.webp"

    def write(self, face_id: str, webp: bytes) -> None:
        """Write beside, then rename: a reader sees a whole thumbnail or none. Raises OceanoError `disk_full`."""
        target = self.path(face_id)
        beside = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")  # two threads may draw the same one
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(webp)
            beside.replace(target)
        except OSError as failure:
            beside.unlink(missing_ok=True)
            if failure.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OceanoError("disk_full", f"no room for thumbnails in {self._root}") from failure
            raise

    def read(self, face_id: str) -> bytes | None:
        """The WebP bytes, or None where there is no thumbnail."""
        try:
            return self.path(face_id).read_bytes()
        except FileNotFoundError:
            return None
