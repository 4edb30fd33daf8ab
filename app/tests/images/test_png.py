from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from app.core.errors import OceanoError
from app.images.decoding import decode
from app.images.png import png_parts

MOST = 64_000_000
_HEADER = 33  # signature and IHDR


def _chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def _png(image: Image.Image | None = None, chunk: bytes = b"", **options: object) -> bytes:
    out = io.BytesIO()
    (image or Image.new("RGB", (20, 10), (10, 20, 200))).save(out, "PNG", **options)
    return out.getvalue()[:_HEADER] + chunk + out.getvalue()[_HEADER:]


_LARGE = zlib.compress(b"x" * 2_000_000)


@pytest.mark.parametrize(
    "chunk",
    [
        _chunk(b"zTXt", b"parameters\0\0" + _LARGE),
        _chunk(b"tEXt", b"parameters\0" + b"x" * 2_000_000),
        _chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + _LARGE),
        _chunk(b"iCCP", b"profile\0\0" + _LARGE),
        _chunk(b"iCCP", b"profile\0\5" + _LARGE),
        _chunk(b"iCCP", b""),
        _chunk(b"tEXt", b"Comment\0hello", crc=0),
        _chunk(b"iTXt", b"Comment\0\0\0\0\0hello", crc=0),
        _chunk(b"zTXt", b"Comment\0\0no zlib"),
        _chunk(b"gAMA", b"\0\0\0\1", crc=1),
        _chunk(b"pHYs", b"", crc=1),
        _chunk(b"eXIf", b"damaged", crc=1),
        _chunk(b"acTL", b""),
        _chunk(b"abCd", b"?" * 100, crc=1),
        _chunk(b"tEXt", b"a\0" + b"x" * 900_000) * 80,
    ],
)
def test_side_chunks_never_decide_whether_a_png_is_read(chunk: bytes) -> None:
    assert decode(_png(chunk=chunk), max_pixels=MOST).pixels[5, 5].tolist() == [200, 20, 10]


def test_a_transparent_colour_with_a_wrong_checksum_is_used() -> None:
    image = Image.new("P", (20, 10), 0)
    image.putpalette([9, 9, 9, 200, 0, 0])
    data = _png(image, transparency=0)
    at = data.index(b"tRNS")
    assert decode(data[: at + 5] + b"\1\1\1\1" + data[at + 9 :], max_pixels=MOST).pixels[5, 5].tolist() == [255] * 3


def test_a_wrong_checksum_of_the_pixels_is_invalid_image() -> None:
    data = bytearray(_png())
    data[data.index(b"IDAT") + 6] ^= 1
    with pytest.raises(OceanoError) as caught:
        decode(bytes(data), max_pixels=MOST)
    assert caught.value.code == "invalid_image"


def test_endless_chunks_are_invalid_image() -> None:
    with pytest.raises(ValueError, match="chunks"):
        png_parts(_png(chunk=_chunk(b"tEXt", b"") * 100_001))


def test_frames_are_counted() -> None:
    others = [Image.new("RGB", (20, 10), (shade, 0, 0)) for shade in (50, 100)]
    assert decode(_png(save_all=True, append_images=others), max_pixels=MOST).frames == 3
    assert decode(_png(), max_pixels=MOST).frames == 1
