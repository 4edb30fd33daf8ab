"""Decoding of image files to upright BGR pixels, within a size limit."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from app.core.errors import OceanoError
from app.core.types import Picture, Pixels
from app.images import gif
from app.images.damage import DECODER_ERRORS
from app.images.dates import Metadata, taken_at
from app.images.depth import decode_wide, eight_bits
from app.images.details import details_of
from app.images.formats import FORMATS, SNIFF_BYTES, sniff
from app.images.heif import has_rotation, items, register_heif
from app.images.jpeg import DIVISORS, JpegHeader, check_scans, jpeg_pixels, read_header
from app.images.pages import mp_pages, page_of, with_first_page
from app.images.png import png_parts
from app.images.structure import check_structure
from app.images.tiff import Directory, directories, embedded_jpegs, further_pages, is_raw
from app.images.xmp import webp_chunk

_MAX_HEADER_PIXELS: Final = 500_000_000  # of a JPEG that is decoded at a part of its size
_MAX_SIDE: Final = 65_535  # as in a JPEG; a longer image costs memory and shows no faces
_MIN_PREVIEW_SIDE: Final = 640  # of a raw file's preview: with less, faces are too small
_WIDE_BYTES: Final = 8  # of a pixel with 16 bits in four channels; wider pixels count as several
_FAINT: Final = 64  # 14 bits or fewer, of 16, if no sample of the high bytes reaches this
_MAX_PACKET: Final = 1_000_000  # bytes of XMP that are searched
_XMP_ORIENTATION: Final = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")
_BMP_COMPRESSION: Final = 30  # offset of the kind
_BMP_RUN_LENGTHS: Final = (1, 2)  # RLE8, RLE4
_XMP_TAG: Final = 700
_IPTC_TAG: Final = 33723
_PNG_XMP: Final = "XML:com.adobe.xmp"
_EXIF_HEAD: Final = b"Exif\x00\x00"
_TRANSPOSED: Final = range(5, 9)  # EXIF orientations that swap width and height


def image_id_of(data: bytes) -> str:
    """Return the id of an image: the SHA-256 (hex) of the file's bytes."""
    return hashlib.sha256(data).hexdigest()


def decode(
    data: bytes,
    *,
    max_pixels: int,
    image_id: str | None = None,
    min_decoded_side: int | None = None,
    page: int = 0,
) -> Picture:
    """Decode an image to 8 bits per channel, rotated by its EXIF orientation, with transparency over white.

    A truncated JPEG is accepted if at least half of its rows can be decoded.

    Args:
        data: the file's bytes.
        max_pixels: the largest number of pixels that are decoded, checked against the header. A larger JPEG with one
            scan, of up to 500 megapixels, is decoded at a half, a quarter or an eighth of its size.
        image_id: the image's id, computed from `data` if None.
        min_decoded_side: pixels of the longer side that the caller needs. A JPEG with at least twice as many is
            decoded at a half, a quarter or an eighth of its size. None: all pixels.
        page: number of the page, from 0; further pages are counted in `Picture.pages`.

    Returns:
        The image.

    Raises:
        OceanoError: `unsupported_image` if the format is not supported, `image_too_large`, `invalid_image` if the file
            is empty or damaged, `invalid_request` if it has no such page.
    """
    name = sniff(data[:SNIFF_BYTES])
    if name is None:
        raise OceanoError(
            "unsupported_image" if data else "invalid_image",
            f"not an image of a supported format ({', '.join(FORMATS)})" if data else "the file is empty",
            details={"supported": list(FORMATS)},
        )
    try:
        image_id = image_id or image_id_of(data)
        check_structure(data, name)
        data, page = with_first_page(data, page)
        return _decode(data, name, image_id, _Limits(max_pixels, min_decoded_side), page)
    except UnidentifiedImageError as failure:  # its message names an object in memory
        raise OceanoError(
            "invalid_image", f"the file begins like {name}, but it is not a valid {name} file", details={"format": name}
        ) from failure
    except DECODER_ERRORS as failure:
        raise OceanoError(
            "invalid_image", f"the {name} file is damaged: {_reason(failure)}", details={"format": name}
        ) from failure


def _reason(failure: Exception) -> str:
    return "decoding it needs too much memory" if isinstance(failure, MemoryError) else str(failure)


@dataclass(frozen=True, slots=True)
class _Limits:
    """The limits given to `decode`."""

    max_pixels: int
    min_decoded_side: int | None


def _decode(data: bytes, name: str, image_id: str, limits: _Limits, page: int) -> Picture:
    Image.MAX_IMAGE_PIXELS = None  # replaced by our own limit below, which is checked before decoding
    match name:
        case "JPEG":
            return _decode_jpeg(data, image_id, limits)
        case "PNG":
            return _decode_png(data, image_id, limits)
        case "TIFF":
            return _decode_tiff(data, image_id, limits)
        case _:
            return _decode_other(data, name, image_id, limits, page)


def _decode_jpeg(
    data: bytes, image_id: str, limits: _Limits, name: str = "JPEG", outer: Metadata | None = None
) -> Picture:
    """Decode a JPEG.

    Args:
        data: the JPEG.
        image_id: the id of the file that it is, or is in.
        limits: those of `decode`.
        name: the format of that file.
        outer: the metadata of a raw file that the JPEG is in, which precede its own.
    """
    header = read_header(data)
    width, height = header.width, header.height
    smallest = _smallest_divisor(header, limits.max_pixels)
    check_scans(data, width * height)
    metadata = Metadata(_exif(header.exif), header.xmp, header.iptc)
    orientation = (_orientation(outer) if outer else None) or _orientation(metadata) or 1
    divisor = max(smallest, _divisor(max(width, height), limits.min_decoded_side))
    if orientation in _TRANSPOSED:
        width, height = height, width
    read = partial(_upright_jpeg, data, header, orientation)
    pixels = read(divisor)
    return Picture(
        image_id,
        pixels,
        name,
        (taken_at(outer) if outer else None) or taken_at(metadata),
        width,
        height,
        1 / divisor,
        cache(partial(read, smallest)) if divisor > smallest else None,
        full_scale=1 / smallest,
        frames=1 if outer else 1 + len(mp_pages(data, header)),
        details=details_of(outer or metadata),
    )


def _upright_jpeg(data: bytes, header: JpegHeader, orientation: int, divisor: int) -> Pixels:
    return _upright(jpeg_pixels(data, header, divisor), orientation)


def _smallest_divisor(header: JpegHeader, max_pixels: int) -> int:
    """The smallest of 1, 2, 4 and 8 that leaves at most `max_pixels`.

    The decoder holds a few rows of a JPEG with one scan, but all coefficients of one with several scans: only the
    former may be larger than the limit.
    """
    width, height = header.width, header.height
    if header.streamed and max_pixels < width * height <= _MAX_HEADER_PIXELS:
        for divisor in sorted(DIVISORS):
            if -(-width // divisor) * -(-height // divisor) <= max_pixels:
                return divisor
    _check_size(width, height, max_pixels)
    return 1


def _decode_png(data: bytes, image_id: str, limits: _Limits) -> Picture:
    parts = png_parts(data)
    xmp = parts.texts.get(_PNG_XMP, "").encode()
    metadata = Metadata(_exif(parts.exif), xmp, b"", parts.texts)
    with Image.open(io.BytesIO(parts.data), formats=("PNG",)) as image:
        _check_size(*image.size, limits.max_pixels)
        pixels = _loaded(image, parts.data if parts.is_wide_colour else None)
    return _whole(pixels, image_id, "PNG", metadata, _orientation(metadata), parts.frames)


def _decode_tiff(data: bytes, image_id: str, limits: _Limits) -> Picture:
    images = directories(data)
    exif = Image.Exif()
    with contextlib.suppress(*DECODER_ERRORS):
        exif.load_from_fp(io.BytesIO(data))
    metadata = Metadata(exif, _bytes(exif.get(_XMP_TAG)), _bytes(exif.get(_IPTC_TAG)))
    if is_raw(data, images):
        return _decode_preview(data, images, image_id, limits, metadata)
    pages = 1 + len(further_pages(images))
    first = images[0] if images else None
    if first is not None and (first.bits == 64 or (first.bits == 32 and first.is_rgb)):
        return _whole(_wide(data, first, limits.max_pixels), image_id, "TIFF", metadata, None, pages)
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
        _check_size(*image.size, limits.max_pixels)
        is_wide = first is not None and first.bits == 16 and first.is_rgb
        pixels = _loaded(image, data if is_wide else None)
    return _whole(pixels, image_id, "TIFF", metadata, None, pages)  # Pillow and OpenCV rotate a TIFF themselves


def _decode_preview(
    data: bytes, images: list[Directory], image_id: str, limits: _Limits, metadata: Metadata
) -> Picture:
    """Decode the largest preview of a raw file."""
    best, most = b"", 0
    for jpeg in embedded_jpegs(data, images):
        with contextlib.suppress(OceanoError, ValueError):  # such as sensor data as a lossless JPEG
            header = read_header(jpeg)
            if max(header.width, header.height) >= _MIN_PREVIEW_SIDE and header.width * header.height > most:
                best, most = jpeg, header.width * header.height
    if not best:
        raise OceanoError(
            "unsupported_image",
            "the file is a camera's raw file without an embedded JPEG of at least "
            f"{_MIN_PREVIEW_SIDE} pixels; export it as JPEG or TIFF",
            details={"cause": "raw_without_preview"},
        )
    return _decode_jpeg(best, image_id, limits, "TIFF", metadata)


def _decode_other(data: bytes, name: str, image_id: str, limits: _Limits, page: int) -> Picture:
    if name == "HEIF":
        register_heif()
    content = gif.first_frame(data) if name == "GIF" else data
    with Image.open(io.BytesIO(content), formats=(name,)) as image:
        frames = gif.frames(data) if name == "GIF" else int(getattr(image, "n_frames", 1))
        if page:
            others = [frame for frame in range(frames) if frame != image.tell()]
            image.seek(page_of(others, page))
        _check_size(*image.size, limits.max_pixels)
        xmp = _bytes(image.info.get("xmp"))
        try:
            metadata = Metadata(image.getexif(), xmp)
        except DECODER_ERRORS:
            metadata = Metadata(None, xmp)
        if name == "HEIF" and not has_rotation(data):  # HEIF's own rotation precedes that of Exif
            orientation = image.info.get("original_orientation")
        else:
            orientation = _orientation(metadata)
        compressed = name == "BMP" and data[_BMP_COMPRESSION] in _BMP_RUN_LENGTHS
        pixels = _run_lengths(data) if compressed else _loaded(image)
    return _whole(pixels, image_id, name, metadata, orientation, frames)


def _whole(
    pixels: Pixels, image_id: str, name: str, metadata: Metadata, orientation: int | None, frames: int
) -> Picture:
    """The picture of pixels at full size, not rotated yet."""
    pixels = _upright(pixels, orientation or 1)
    height, width = pixels.shape[:2]
    return Picture(
        image_id,
        pixels,
        name,
        taken_at(metadata),
        width,
        height,
        frames=max(1, frames),
        details=details_of(metadata),
    )


def _loaded(image: Image.Image, wide: bytes | None = None) -> Pixels:
    """Decode an image to BGR.

    Args:
        image: opened, not loaded.
        wide: the file, if it has 16 bits for each of several channels. Pillow reads the high 8 of them, which are not
            enough if a camera's 10, 12 or 14 bits are stored as they are.
    """
    image.load()
    if wide is not None and 0 < _brightest(image) < _FAINT:
        size = image.size
        image.close()  # frees the pixels before they are decoded again
        pixels = decode_wide(wide)
        if pixels is None or sorted(pixels.shape[:2]) != sorted(size):
            raise ValueError("its 16 bits cannot be decoded")
        image = Image.fromarray(pixels)
    return _bgr(image)


def _run_lengths(data: bytes) -> Pixels:
    """Decode a BMP with run lengths, for which Pillow takes a minute per 100 MB."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError("it cannot be decoded")
    return pixels.astype(np.uint8, copy=False)


def _brightest(image: Image.Image) -> int:
    bands = image.getextrema()
    return max(int(band[1]) for band in bands[:3] if isinstance(band, tuple))


def _wide(data: bytes, first: Directory, max_pixels: int) -> Pixels:
    """Decode a TIFF with 32 or 64 bits per channel, which Pillow does not read."""
    width, height = first.size
    _check_size(width, height, min(max_pixels, max_pixels * 8 * _WIDE_BYTES // (first.samples * first.bits or 1)))
    pixels = decode_wide(data)
    if pixels is None or sorted(pixels.shape[:2]) != sorted((width, height)):  # it may be rotated
        raise ValueError("it cannot be decoded")
    return _bgr(Image.fromarray(pixels))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise OceanoError(
            "image_too_large",
            f"{width} x {height} is {width * height / 1e6:.1f} megapixels; at most {max_pixels / 1e6:g} are accepted",
            details={"width": width, "height": height, "max_megapixels": max_pixels / 1e6},
        )
    if min(width, height) < 1:
        raise ValueError("a side has 0 pixels")
    if max(width, height) > _MAX_SIDE:
        raise OceanoError(
            "image_too_large",
            f"{width} x {height}: a side has more than {_MAX_SIDE:,} pixels",
            details={"width": width, "height": height, "max_side": _MAX_SIDE},
        )


def _divisor(longer_side: int, min_decoded_side: int | None) -> int:
    """The largest of 8, 4, 2 and 1 that leaves the longer side at least `min_decoded_side` pixels."""
    return (
        1
        if min_decoded_side is None
        else next(divisor for divisor in DIVISORS if longer_side >= divisor * min_decoded_side or divisor == 1)
    )


def _bgr(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = Image.fromarray(eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        backdrop = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(backdrop, image)
    rgb = image if image.mode == "RGB" else image.convert("RGB")  # convert copies in any case
    return cv2.cvtColor(np.asarray(rgb), cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)


def _exif(data: bytes) -> Image.Exif | None:
    """Read Exif data; None if there is none, or if it is damaged from its beginning."""
    if not data:
        return None
    exif = Image.Exif()
    try:
        exif.load(data)
    except DECODER_ERRORS:
        return None
    return exif


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _orientation(metadata: Metadata) -> int | None:
    """The orientation, 1 to 8, of Exif or else of XMP; None if it is missing or invalid."""
    orientation = None
    with contextlib.suppress(*DECODER_ERRORS):
        orientation = metadata.exif.get(ExifTags.Base.Orientation) if metadata.exif else None
    if orientation is None and (found := _XMP_ORIENTATION.search(metadata.xmp, 0, _MAX_PACKET)):
        return int(found.group(1))
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else None


def orientation_of(data: bytes) -> int:
    """Return how the image stored in a file becomes upright: the orientation of Exif, 1 to 8; 1 if there is none.

    Args:
        data: the file's bytes. No decoder reads them.
    """
    metadata = Metadata()
    with contextlib.suppress(*DECODER_ERRORS, OceanoError):
        match sniff(data[:SNIFF_BYTES]):
            case "JPEG":
                header = read_header(data)
                metadata = Metadata(_exif(header.exif), header.xmp)
            case "PNG":
                parts = png_parts(data)
                metadata = Metadata(_exif(parts.exif), parts.texts.get(_PNG_XMP, "").encode())
            case "TIFF":
                found = directories(data)[0].orientation
                return found if 1 <= found <= 8 else 1
            case "WEBP":
                metadata = Metadata(_exif(webp_chunk(data, b"EXIF").removeprefix(_EXIF_HEAD)))
            case "HEIF" | "AVIF":
                item = next(items(data, b"Exif", b"", _MAX_PACKET), b"")
                metadata = Metadata(_exif(item[4 + int.from_bytes(item[:4], "big") :]))
    return _orientation(metadata) or 1


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
