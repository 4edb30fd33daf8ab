"""Image files: detection, structure, decoding, metadata. The C libraries run, but do not guide."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Final

import cv2
import numpy as np
from PIL import ExifTags, Image

from app.core.errors import OceanoError
from app.images import SNIFF_BYTES, decode, is_cut_off, sniff
from app.images.heif import register_heif
from app.images.jpeg import is_plain_jpeg

_MAX_PIXELS: Final = 300_000
_SIZE: Final = (24, 16)


def fuzz_one(data: bytes) -> None:
    """Decode with all pixels and with fewer, and the second page of several."""
    sniff(data[:SNIFF_BYTES])
    is_cut_off(data)
    is_plain_jpeg(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged files
        try:
            picture = decode(data, max_pixels=_MAX_PIXELS, min_decoded_side=8 if len(data) % 2 else None)
        except OceanoError as failure:
            assert failure.status < 500, failure
            return
        height, width = picture.pixels.shape[:2]
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.shape == (height, width, 3)
        assert 0 < height * width <= _MAX_PIXELS
        assert picture.frames >= 1
        if picture.frames > 1:
            try:
                decode(data, max_pixels=_MAX_PIXELS, page=1)
            except OceanoError as failure:
                assert failure.status < 500, failure


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.DateTime] = "2021:06:30 18:00:00"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2021:06:30 18:00:00"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSDateStamp] = "2021:06:30"
    gps[ExifTags.GPS.GPSTimeStamp] = (18.0, 0.0, 0.0)
    return exif


def _saved(kind: str, mode: str = "RGB", *, pages: int = 1, **options: object) -> bytes:
    rows, columns = np.mgrid[: _SIZE[1], : _SIZE[0]]
    pixels = np.stack((rows * 15, columns * 10, rows * columns), axis=-1).astype(np.uint8)
    if pages > 1:
        options |= {"save_all": True, "append_images": [Image.new("RGB", _SIZE, "red") for _ in range(pages - 1)]}
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, kind, **options)
    return out.getvalue()


def _raw() -> bytes:
    """A camera's raw file: the sensor's data, and a preview as JPEG."""
    out = io.BytesIO()
    Image.new("L", (640, 8)).save(out, "JPEG")
    preview = out.getvalue()
    tags = {254: 0, 256: 24, 257: 16, 258: 8, 259: 1, 262: 32803, 277: 1, 278: 16, 279: 384}
    start = 8 + 2 + 12 * (len(tags) + 3) + 4
    tags |= {273: start + len(preview), 513: start, 514: len(preview)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + preview + bytes(384)


def _wide(suffix: str, dtype: type) -> bytes:
    rows, columns = np.mgrid[: _SIZE[1], : _SIZE[0]]
    pixels = np.stack((rows, columns, rows + columns), axis=-1).astype(dtype)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def _seeds() -> list[bytes]:
    register_heif()
    exif = _exif()
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6" xmp:CreateDate="2021-06-30T18:00:00"/></x:xmpmeta>'
    return [
        _saved("JPEG", exif=exif, quality=50),
        _saved("JPEG", progressive=True, xmp=xmp),
        _saved("JPEG", "L"),
        _saved("JPEG", "CMYK"),
        _saved("MPO", pages=2),
        _saved("PNG", exif=exif),
        _saved("PNG", "P"),
        _saved("PNG", "LA"),
        _saved("PNG", pages=2),
        _wide(".png", np.uint16),
        _saved("GIF", "P", pages=2),
        _saved("BMP"),
        _saved("WEBP", exif=exif, xmp=xmp),
        _saved("WEBP", lossless=True, pages=2),
        _saved("TIFF", exif=exif),
        _saved("TIFF", compression="tiff_lzw", pages=2),
        _saved("TIFF", "1", compression="group4"),
        _saved("TIFF", big_tiff=True),
        _wide(".tiff", np.uint16),
        _wide(".tiff", np.float32),
        _raw(),
        _saved("HEIF", exif=exif.tobytes()),
        _saved("AVIF", exif=exif),
    ]


SEEDS: Final = _seeds()
