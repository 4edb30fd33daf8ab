from __future__ import annotations

import hashlib
import io
import random
import struct
import threading
import time
import tracemalloc
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from pillow_heif import register_heif_opener

from app.core.errors import OceanoError
from app.core.types import Pixels
from app.images.decoding import decode, image_id_of, preview_webp
from app.images.formats import FORMATS, SNIFF_BYTES, sniff
from app.images.jpeg import check_scans

register_heif_opener()  # to write them
MOST = 64_000_000
SIZE = (60, 40)
# four corners that can be told apart, in any format and after any turn
CORNERS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}


def _quadrants(size: tuple[int, int] = SIZE) -> Image.Image:
    """Red and green above, blue and white below."""
    width, height = size
    image = Image.new("RGB", size)
    for place, colour in enumerate(CORNERS.values()):
        left, top = (place % 2) * width // 2, (place // 2) * height // 2
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    return image


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _decode(data: bytes, max_pixels: int = MOST) -> Pixels:
    return decode(data, max_pixels=max_pixels).pixels


def _refused(data: bytes, max_pixels: int = MOST) -> OceanoError:
    with pytest.raises(OceanoError) as caught:
        decode(data, max_pixels=max_pixels)
    return caught.value


def _seen(pixels: npt.NDArray[np.uint8]) -> list[str]:
    """The names of the colours of the four corners, read like a page."""
    height, width = pixels.shape[:2]
    at = [(height // 4, width // 4), (height // 4, 3 * width // 4)]
    at += [(3 * height // 4, width // 4), (3 * height // 4, 3 * width // 4)]
    seen = []
    for y, x in at:
        rgb = pixels[y, x, ::-1].astype(int)
        seen.append(min(CORNERS, key=lambda name: int(np.abs(rgb - np.array(CORNERS[name])).sum())))
    return seen


def _assert_upright(pixels: Pixels, size: tuple[int, int] = SIZE) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.shape == (size[1], size[0], 3)
    assert pixels.flags["C_CONTIGUOUS"]
    assert _seen(pixels) == ["red", "green", "blue", "white"]


# what is read


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind: str) -> None:
    data = _saved(_quadrants(), kind)
    picture = decode(data, max_pixels=MOST)
    assert picture.format == sniff(data[:SNIFF_BYTES]) == kind
    assert (picture.width, picture.height) == SIZE
    assert picture.taken_at is None
    assert picture.image_id == hashlib.sha256(data).hexdigest() == image_id_of(data)
    _assert_upright(picture.pixels)


def test_an_image_id_that_is_known_is_not_worked_out_again() -> None:
    assert decode(_saved(_quadrants(), "PNG"), max_pixels=MOST, image_id="known").image_id == "known"


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"quality": 100, "subsampling": 0, "optimize": True}),
        ("TIFF", "CMYK", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("TIFF", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("GIF", "P", {}),
        ("BMP", "P", {}),
        ("BMP", "RGBA", {}),
        ("WEBP", "RGBA", {"lossless": True}),
    ],
)
def test_every_kind_of_colour_becomes_bgr(kind: str, mode: str, options: dict[str, Any]) -> None:
    _assert_upright(_decode(_saved(_quadrants().convert(mode), kind, **options)))


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "L"), ("PNG", "L"), ("PNG", "1"), ("PNG", "LA"), ("TIFF", "L"), ("GIF", "L")]
)
def test_grey_becomes_three_equal_channels(kind: str, mode: str) -> None:
    grey = Image.new("L", SIZE, 0)
    grey.paste(255, (30, 0, 60, 40))
    pixels = _decode(_saved(grey.convert(mode), kind))
    assert pixels.shape == (40, 60, 3)
    assert (pixels[:, :, 0] == pixels[:, :, 1]).all()
    assert (pixels[:, :, 0] == pixels[:, :, 2]).all()
    assert pixels[20, 5].tolist() == [0, 0, 0]
    assert pixels[20, 55].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_become_eight(kind: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    data = _saved(Image.fromarray(np.tile(ramp, (8, 1))), kind)
    pixels = _decode(data)
    assert pixels.shape == (8, 256, 3)
    assert np.abs(pixels[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    assert int(pixels.max()) == 255


def test_sixteen_bits_of_colour_become_eight() -> None:
    colours = np.zeros((8, 8, 3), np.uint16)
    colours[:] = (10 * 257, 100 * 257, 200 * 257)
    ok, data = cv2.imencode(".png", colours)
    assert ok
    assert _decode(data.tobytes())[4, 4].tolist() == [10, 100, 200]


@pytest.mark.parametrize(("most", "expected"), [(1.0, 255), (255.0, 255), (65535.0, 255)])
def test_numbers_with_a_point_are_scaled_to_what_can_be_seen(most: float, expected: int) -> None:
    grey = np.tile(np.linspace(0, most, 64, dtype=np.float32), (8, 1))
    grey[0, 0] = np.nan
    pixels = _decode(_saved(Image.fromarray(grey), "TIFF"))
    assert int(pixels.max()) == expected
    assert 100 < int(pixels[4, 32, 0]) < 150
    assert int(pixels[0, 0, 0]) == 0


def test_32_bits_of_grey_are_read() -> None:
    grey = np.tile(np.arange(64, dtype=np.int32) * 1000, (8, 1))
    assert int(_decode(_saved(Image.fromarray(grey), "TIFF")).max()) == 63000 // 257


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_is_white(kind: str) -> None:
    image = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    image.paste((10, 20, 200, 255), (0, 0, 30, 40))
    pixels = _decode(_saved(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert pixels[20, 10].tolist() == [200, 20, 10]
    assert pixels[20, 50].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_is_white(kind: str) -> None:
    image = Image.new("P", SIZE, 0)
    image.putpalette([9, 9, 9, 200, 0, 0])
    image.paste(1, (0, 0, 30, 40))
    pixels = _decode(_saved(image, kind, transparency=0))
    assert pixels[20, 10].tolist() == [0, 0, 200]
    assert pixels[20, 50].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG", "HEIF", "AVIF"])
def test_the_first_frame_of_several_is_taken(kind: str) -> None:
    others = [Image.new("RGB", SIZE, (0, 0, 0)), Image.new("RGB", SIZE, (9, 200, 9))]
    data = _saved(_quadrants(), kind, save_all=True, append_images=others)
    _assert_upright(_decode(data))
    assert decode(data, max_pixels=MOST).frames == 3
    assert decode(_saved(_quadrants(), kind), max_pixels=MOST).frames == 1


def test_a_jpeg_with_several_pictures_in_it_is_read_like_any_other() -> None:
    second = Image.new("RGB", SIZE, (1, 2, 3))
    data = _saved(_quadrants(), "MPO", save_all=True, append_images=[second])
    picture = decode(data, max_pixels=MOST)
    assert picture.format == "JPEG"
    _assert_upright(picture.pixels)


def test_a_picture_of_one_pixel_is_a_picture() -> None:
    for kind in FORMATS:
        assert _decode(_saved(Image.new("RGB", (1, 1), (250, 250, 250)), kind)).shape == (1, 1, 3)


# EXIF


def _turned(orientation: int) -> Image.Image:
    """Pixels as a camera stores them that was held so that this orientation turns them upright."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    image = _quadrants()
    return image if undo is None else image.transpose(undo)


def _exif(orientation: object = 1, taken: str | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    if taken is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
        read = Image.Exif()
        read.load(exif.tobytes())  # Pillow writes a TIFF's inner directory only from one that it has read
        return read
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "HEIF", "AVIF"])
def test_all_eight_orientations_give_the_same_upright_picture(kind: str, orientation: int) -> None:
    exif = _exif(orientation)  # pillow_heif turns it into the rotation that HEIF knows, from bytes only
    data = _saved(_turned(orientation), kind, exif=exif.tobytes() if kind == "HEIF" else exif)
    _assert_upright(_decode(data))


def _orientation_bytes(orientation: int) -> bytes:
    return _exif(orientation).tobytes()[6:]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_without_a_rotation_of_its_own_follows_exif(orientation: int) -> None:
    data = _saved(_turned(orientation), "HEIF", exif=_exif(1).tobytes())
    assert b"irot" not in data
    assert _orientation_bytes(1) in data
    _assert_upright(_decode(data.replace(_orientation_bytes(1), _orientation_bytes(orientation))))


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_a_heic_with_a_rotation_of_its_own_ignores_exif(orientation: int) -> None:
    data = _saved(_turned(orientation), "HEIF", exif=_exif(orientation).tobytes())
    assert _orientation_bytes(orientation) in data
    _assert_upright(_decode(data.replace(_orientation_bytes(orientation), _orientation_bytes(8))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_of_xmp_counts_where_exif_has_none(kind: str) -> None:
    packet = b'<x tiff:Orientation="6"/>'
    if kind == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", packet.decode())
        data = _saved(_turned(6), kind, pnginfo=text)
    else:
        data = _saved(_turned(6), kind, xmp=packet)
    _assert_upright(_decode(data))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    _assert_upright(_decode(_saved(_quadrants(), "JPEG", exif=_exif(orientation))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "HEIF", "AVIF"])
def test_the_time_a_picture_was_taken_is_read(kind: str) -> None:
    data = _saved(_quadrants(), kind, exif=_exif(6, "2019:07:20 20:17:40"))
    assert decode(data, max_pixels=MOST).taken_at == "2019-07-20T20:17:40"


@pytest.mark.parametrize("taken", ["0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday", "", "2019-07"])
def test_a_time_that_is_none_is_left_out(taken: str) -> None:
    picture = decode(_saved(_quadrants(), "JPEG", exif=_exif(1, taken)), max_pixels=MOST)
    assert picture.taken_at is None
    _assert_upright(picture.pixels)


@pytest.mark.filterwarnings("ignore")  # Pillow says in a warning what it leaves out
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_with_damaged_exif_is_still_a_picture(kind: str) -> None:
    exif = _exif(6, "2019:07:20 20:17:40")
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (1.0, 2.0, 3.0)}
    whole = exif.tobytes()
    chance = random.Random(7)
    damaged = [
        b"Exif\0\0",
        b"Exif\0\0II",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"\xff" * 40,
        whole[:20],
        b"nothing at all",
    ]
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            broken[chance.randrange(6, len(broken))] = chance.choice((chance.randrange(256), 0, 1, 2, 5, 12, 255))
        damaged.append(bytes(broken))
    assert len(damaged) == 306
    for one in damaged:
        pixels = _decode(_saved(_quadrants(), kind, exif=one))
        assert pixels.shape in ((40, 60, 3), (60, 40, 3)), one


# what is refused


def test_an_empty_file_is_invalid_image() -> None:
    error = _refused(b"")
    assert (error.code, error.message) == ("invalid_image", "the file is empty")


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"hello, world, this is text",
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"PK\x03\x04" + b"\0" * 40,
        b"\0\0\0\x20ftypisom" + b"\0" * 40,
        b"\0" * 1000,
        b"\x89PNG\r\n",
    ],
)
def test_what_is_no_picture_is_unsupported_image(data: bytes) -> None:
    error = _refused(data)
    assert error.code == "unsupported_image"
    assert error.details["supported"] == list(FORMATS)


def test_the_magic_bytes_alone_are_invalid_image() -> None:
    beginnings: tuple[bytes, ...] = (
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"II*\0",
        b"MM\0*",
        b"RIFF\x08\0\0\0WEBP",
    )
    beginnings += (b"BM" + bytes(12) + b"\x28\0\0\0",)
    beginnings += (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf")
    for beginning in beginnings:
        error = _refused(beginning)
        assert error.code == "invalid_image"
        assert "object at 0x" not in error.message


def _noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "JPEG"])
def test_a_truncated_picture_is_invalid_image(kind: str) -> None:
    data = _saved(_noise(), kind)
    for share in (0.3, 0.6, 0.9):
        error = _refused(data[: int(len(data) * share)])
        assert error.code == "invalid_image"
        assert error.details == {"format": kind}


@pytest.mark.parametrize("min_decoded_side", [None, 100])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_cut_off_near_its_end_is_a_picture(
    orientation: int, progressive: bool, min_decoded_side: int | None
) -> None:
    whole = _noise(256)
    data = _saved(whole, "JPEG", progressive=progressive, exif=_exif(orientation))
    for share in (0.6, 0.9, 0.99):
        picture = decode(data[: int(len(data) * share)], max_pixels=MOST, min_decoded_side=min_decoded_side)
        assert (picture.width, picture.height) == (256, 256)
        assert picture.pixels.shape == ((256, 256, 3) if min_decoded_side is None else (128, 128, 3))
        assert picture.full().shape == (256, 256, 3)


def test_what_is_there_of_a_cut_off_jpeg_is_as_in_the_whole_one() -> None:
    data = _saved(_noise(256), "JPEG")
    rows = _decode(data[: int(len(data) * 0.75)])[:160]
    assert np.abs(rows.astype(int) - _decode(data)[:160]).max() == 0


def _four_inks(side: int, transform: int) -> bytes:
    """A JPEG for print: CMYK (0) or YCCK (2), by the last byte of Adobe's marker."""
    data = bytearray(_saved(_noise(side).convert("CMYK"), "JPEG"))
    data[data.index(b"Adobe") + 11] = transform
    return bytes(data)


@pytest.mark.parametrize("transform", [0, 2])
def test_a_jpeg_of_four_inks_may_be_cut_off_and_reduced(transform: int) -> None:
    data = _four_inks(256, transform)
    whole = _decode(data)
    with Image.open(io.BytesIO(data)) as image:
        assert np.abs(whole.astype(int) - np.asarray(image.convert("RGB"))[:, :, ::-1]).max() <= 3
    cut_off = decode(data[: int(len(data) * 0.75)], max_pixels=MOST, min_decoded_side=128)
    assert (cut_off.width, cut_off.height, cut_off.pixels.shape) == (256, 256, (128, 128, 3))
    assert np.abs(cut_off.full()[:160].astype(int) - whole[:160]).max() == 0
    assert "missing" in _refused(data[: int(len(data) * 0.4)]).message


@pytest.mark.parametrize("grey", [64, 65])
def test_a_whole_picture_whose_lower_part_is_grey_is_whole(grey: int) -> None:
    image = _noise(256)
    image.paste((grey, grey, grey), (0, 100, 256, 256))
    assert _decode(_saved(image, "JPEG", quality=95) + b"\0" * 5000).shape == (256, 256, 3)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("share", [0.2, 0.4])
def test_a_jpeg_of_which_more_than_half_is_missing_is_invalid_image(share: float, mode: str) -> None:
    data = _saved(_noise(256).convert(mode), "JPEG")
    error = _refused(data[: int(len(data) * share)])
    assert error.code == "invalid_image"
    assert "missing" in error.message


def test_a_jpeg_with_endless_scans_is_invalid_image_at_once() -> None:
    data = _saved(_noise(256), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    bomb = data[:-2] + data[last:-2] * 20_000 + data[-2:]
    start = time.perf_counter()
    error = _refused(bomb)
    assert (error.code, "scans" in error.message) == ("invalid_image", True)
    assert time.perf_counter() - start < 5


def test_a_large_jpeg_may_have_fewer_scans() -> None:
    data = _saved(_noise(256), "JPEG", progressive=True)
    check_scans(data, 64_000_000)
    scan = data.index(b"\xff\xda")
    many = data[:-2] + data[scan:-2] * 4 + data[-2:]  # about 50 scans
    check_scans(many, 1_000_000)
    with pytest.raises(ValueError, match="more than 23 scans"):
        check_scans(many, 64_000_000)


def test_scans_in_what_follows_a_jpeg_are_not_its_own() -> None:
    film = b"\xff\xda\x00\x01" * 500
    _assert_upright(_decode(_saved(_quadrants(), "JPEG") + film))
    _assert_upright(_decode(_saved(_quadrants(), "JPEG", progressive=True) + film))


def test_what_follows_a_jpeg_does_not_matter() -> None:
    data = _saved(_quadrants(), "JPEG")
    _assert_upright(_decode(data + b"\0" * 5000))
    _assert_upright(_decode(data + _saved(_noise(), "PNG")))


@pytest.mark.filterwarnings("ignore")
def test_whatever_a_decoder_says_becomes_an_oceano_error() -> None:
    """Every format, flipped bits and cuts: a picture or a code, never another exception."""
    noise = np.random.default_rng(2).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    exif = _exif(6, "2019:07:20 20:17:40")
    whole = [
        *(
            _saved(image, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
            for kind in FORMATS
        ),
        _saved(image, "TIFF", compression="tiff_lzw"),
        _saved(image.convert("P"), "PNG", transparency=3, pnginfo=None),
        _saved(image, "JPEG", progressive=True, icc_profile=b"no profile"),
        _saved(image, "MPO", save_all=True, append_images=[image]),
        _saved(image, "GIF", save_all=True, append_images=[image]),
    ]
    chance = random.Random(3)
    outcomes = {"read": 0, "refused": 0}
    for data in whole:
        for _ in range(60):
            broken = bytearray(data)
            for _ in range(chance.choice((1, 1, 3, 20))):
                # headers are where decoders believe what they read
                where = (
                    chance.randrange(8, min(len(broken), 400))
                    if chance.random() < 0.7
                    else chance.randrange(len(broken))
                )
                broken[where] ^= 1 << chance.randrange(8)
            if chance.random() < 0.3:
                del broken[chance.randrange(len(broken)) :]
            try:
                pixels = _decode(bytes(broken), max_pixels=4_000_000)
            except OceanoError as error:
                assert error.code in ("invalid_image", "unsupported_image", "image_too_large")
                outcomes["refused"] += 1
            else:
                assert pixels.dtype == np.uint8
                assert pixels.ndim == 3
                outcomes["read"] += 1
    assert min(outcomes.values()) > 50, outcomes


def _png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 2_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _bmp_claiming(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    )


def _gif_claiming(width: int, height: int) -> bytes:
    data = bytearray(_saved(_quadrants(), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def _jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(_saved(_quadrants(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("claiming", [_png_claiming, _bmp_claiming, _gif_claiming, _jpeg_claiming])
def test_a_header_that_claims_too_many_pixels_is_refused_before_decoding(claiming: Any) -> None:
    data = claiming(60_000, 60_000)
    tracemalloc.start()
    start = time.perf_counter()
    error = _refused(data)
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.code == "image_too_large"
    assert error.details == {"width": 60_000, "height": 60_000, "max_megapixels": 64.0}
    assert "3600.0 megapixels" in error.message
    assert seconds < 0.5
    assert peak < 20_000_000


def test_the_largest_picture_that_is_allowed_is_read_and_one_pixel_more_is_not() -> None:
    data = _saved(_quadrants(), "PNG")
    assert _decode(data, max_pixels=2400).shape == (40, 60, 3)
    assert _refused(data, max_pixels=2399).code == "image_too_large"


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (0, 0)])
def test_a_side_of_no_pixels_is_invalid_image(size: tuple[int, int]) -> None:
    assert _refused(_png_claiming(*size)).code == "invalid_image"


def test_pictures_are_decoded_in_many_threads_at_once() -> None:
    data = {kind: _saved(_quadrants(), kind) for kind in FORMATS}
    failures: list[str] = []

    def work() -> None:
        for kind in FORMATS:
            if _seen(_decode(data[kind])) != ["red", "green", "blue", "white"]:
                failures.append(kind)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# the preview


@pytest.mark.parametrize(
    ("size", "shown", "scale"),
    [
        ((60, 40), (60, 40), 1.0),
        ((2000, 1000), (1000, 500), 0.5),
        ((1000, 2000), (500, 1000), 0.5),
        ((1000, 1000), (1000, 1000), 1.0),
        ((30_000, 1), (1000, 1), 1 / 30),
        ((1, 30_000), (1, 1000), 1 / 30),
    ],
)
def test_a_preview_is_shrunk_never_enlarged(size: tuple[int, int], shown: tuple[int, int], scale: float) -> None:
    webp, factor = preview_webp(np.zeros((size[1], size[0], 3), np.uint8), 1000)
    assert sniff(webp[:SNIFF_BYTES]) == "WEBP"
    assert _decode(webp).shape == (shown[1], shown[0], 3)
    assert factor == pytest.approx(scale)


def test_a_preview_shows_the_picture() -> None:
    webp, _ = preview_webp(_decode(_saved(_quadrants((600, 400)), "PNG")), 300)
    assert _seen(_decode(webp)) == ["red", "green", "blue", "white"]


def test_an_absurdly_long_image_is_refused_before_decoding() -> None:
    with pytest.raises(OceanoError) as caught:
        decode(_png_claiming(1, 65_536), max_pixels=10**9)
    assert caught.value.code == "image_too_large"
    assert caught.value.details["max_side"] == 65_535
