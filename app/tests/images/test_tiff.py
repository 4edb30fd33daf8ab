from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.core.errors import OceanoError
from app.images.decoding import decode
from app.images.tiff import directories
from app.web.i18n import error_message

MOST = 64_000_000
_CFA = 32803

Tags = Mapping[int, tuple[int, Sequence[int]]]  # by tag: type and values


def _tiff(main: Sequence[Tags], inner: Sequence[Tags] = (), blobs: Sequence[bytes] = (), mark: bytes = b"") -> bytes:
    """A TIFF of directories; `inner` are in the first. A value of -n-1 becomes the offset of blob n."""
    head = 8 + len(mark)
    sizes = {1: 1, 3: 2, 4: 4}
    letters = {1: "B", 3: "H", 4: "I"}
    chain = [*main, *inner]
    if inner:
        chain[0] = {**chain[0], 330: (4, [0] * len(inner))}
    starts, at = [], head
    for tags in chain:
        starts.append(at)
        at += 6 + 12 * len(tags) + sum(len(v) * sizes[k] for k, v in tags.values() if len(v) * sizes[k] > 4)
    places = []
    for blob in blobs:
        places.append(at)
        at += len(blob)
    if inner:
        chain[0] = {**chain[0], 330: (4, starts[len(main) :])}
    out = b"II*\0" + struct.pack("<I", head) + mark
    for number, tags in enumerate(chain):
        entries, extra = b"", b""
        extra_at = starts[number] + 6 + 12 * len(tags)
        for tag, (kind, values) in sorted(tags.items()):
            packed = b"".join(struct.pack("<" + letters[kind], places[-v - 1] if v < 0 else v) for v in values)
            if len(packed) > 4:
                entries += struct.pack("<HHII", tag, kind, len(values), extra_at + len(extra))
                extra += packed
            else:
                entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
        following = starts[number + 1] if number + 1 < len(main) else 0
        out += struct.pack("<H", len(tags)) + entries + struct.pack("<I", following) + extra
    return out + b"".join(blobs)


def _pixels(width: int, height: int, blob: int, **more: Any) -> dict[int, tuple[int, Sequence[int]]]:
    return {
        254: (4, [0]),
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8, 8, 8]),
        259: (3, [1]),
        262: (3, [2]),
        273: (4, [-blob - 1]),
        277: (3, [3]),
        278: (4, [height]),
        279: (4, [width * height * 3]),
        **{int(tag[1:]): value for tag, value in more.items()},
    }


def _sensor(blob: int, size: int, compression: int = 1) -> dict[int, tuple[int, Sequence[int]]]:
    return _pixels(2000, 1500, blob, t262=(3, [_CFA]), t259=(3, [compression]), t279=(4, [size]))


def _jpeg(width: int, height: int, colour: tuple[int, int, int] = (10, 20, 200), **options: Any) -> bytes:
    out = io.BytesIO()
    image = Image.new("RGB", (width, height), colour)
    image.paste((250, 250, 250), (0, 0, width // 2, height))
    image.save(out, "JPEG", **options)
    return out.getvalue()


THUMBNAIL = bytes([90, 160, 30]) * (160 * 120)


def _raw(preview: bytes, **more: Any) -> bytes:
    """As a camera writes it: a thumbnail, the sensor's data and a preview within it."""
    tags = _pixels(160, 120, 0, t254=(4, [1]), **more)
    jpeg: Tags = {254: (4, [1]), 513: (4, [-2]), 514: (4, [len(preview)])}
    return _tiff([tags], [_sensor(2, 100), jpeg], [THUMBNAIL, preview, bytes(100)])


def test_a_raw_file_is_read_from_its_preview() -> None:
    picture = decode(_raw(_jpeg(1600, 1200)), max_pixels=MOST)
    assert (picture.format, picture.width, picture.height) == ("TIFF", 1600, 1200)
    assert picture.pixels[600, 1200].tolist() == pytest.approx([200, 20, 10], abs=3)
    assert decode(_raw(_jpeg(1600, 1200)), max_pixels=MOST, min_decoded_side=700).pixels.shape == (600, 800, 3)


def test_the_orientation_of_the_raw_file_precedes_that_of_its_preview() -> None:
    exif = Image.Exif()
    exif[274] = 3
    picture = decode(_raw(_jpeg(1600, 1200, exif=exif), t274=(3, [6])), max_pixels=MOST)
    assert (picture.width, picture.height) == (1200, 1600)
    assert picture.pixels[100, 600].min() > 200
    assert decode(_raw(_jpeg(1600, 1200, exif=exif)), max_pixels=MOST).pixels[600, 1500].min() > 200


def test_the_largest_preview_is_taken_wherever_it_is() -> None:
    small, large = _jpeg(800, 600), _jpeg(1600, 1200)
    first = _pixels(1600, 1200, 1, t254=(4, [1]), t259=(3, [6]), t279=(4, [len(large)]), t513=(4, [-1]))
    data = _tiff([{**first, 514: (4, [len(small)])}, _sensor(2, 100)], (), [small, large, bytes(100)])
    assert decode(data, max_pixels=MOST).width == 1600


def test_canon_writes_its_preview_as_the_first_image() -> None:
    preview = _jpeg(1600, 1200)
    first = _pixels(1600, 1200, 0, t259=(3, [6]), t279=(4, [len(preview)]))
    data = _tiff([first], (), [preview], mark=b"CR\2\0\0\0\0\0")
    assert decode(data, max_pixels=MOST).width == 1600


@pytest.mark.parametrize("preview", [_jpeg(639, 400), b"\xff\xd8\xff", b"", b"\xff\xd8\xff\xc9" + bytes(50)])
def test_a_raw_file_without_a_large_preview_is_unsupported(preview: bytes) -> None:
    with pytest.raises(OceanoError) as caught:
        decode(_raw(preview), max_pixels=MOST)
    assert (caught.value.code, caught.value.details["cause"]) == ("unsupported_image", "raw_without_preview")
    assert "640 pixels" in caught.value.message
    assert "RAW" in error_message(caught.value, "es")


def test_a_dng_without_reduced_images_is_a_raw_file() -> None:
    dng = _pixels(160, 120, 0, t50706=(1, [1, 4, 0, 0]))
    for data in (_tiff([dng], (), [THUMBNAIL]), _tiff([_sensor(0, 100)], (), [bytes(100)])):
        with pytest.raises(OceanoError) as caught:
            decode(data, max_pixels=MOST)
        assert caught.value.details["cause"] == "raw_without_preview"


def test_a_tiff_with_smaller_copies_of_itself_is_no_raw_file() -> None:
    copy = _pixels(160, 120, 0, t254=(4, [1]))
    data = _tiff([_pixels(160, 120, 0)], [copy], [THUMBNAIL])
    picture = decode(data, max_pixels=MOST)
    assert (picture.width, picture.frames) == (160, 1)


def test_pages_are_counted() -> None:
    out = io.BytesIO()
    others = [Image.new("RGB", (30, 20), (shade, 0, 0)) for shade in (50, 100)]
    Image.new("RGB", (30, 20)).save(out, "TIFF", save_all=True, append_images=others)
    assert decode(out.getvalue(), max_pixels=MOST).frames == 3


def test_directories_that_follow_each_other_in_a_circle_end() -> None:
    data = bytearray(_tiff([_pixels(160, 120, 0)], (), [THUMBNAIL]))
    after = 8 + 2 + 12 * 10
    data[after : after + 4] = struct.pack("<I", 8)
    assert len(directories(bytes(data))) == 1
    assert directories(b"II*\0") == []
    assert directories(b"II*\0\xff\xff\xff\xff") == []
    assert directories(b"II+\0\x08\0\0\0" + b"\x10" + bytes(7) + b"\xff" * 8) == []


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_tiff_of_floats_is_rotated(orientation: int) -> None:
    rough = np.zeros((40, 60, 3), np.uint8)
    rough[:20, :30] = (200, 40, 10)
    floats = (rough / 255.0).astype("<f4").tobytes()
    more = {"t274": (3, [orientation])}
    plain = _tiff([_pixels(60, 40, 0, **more)], (), [rough.tobytes()])
    more |= {"t258": (3, [32, 32, 32]), "t339": (3, [3, 3, 3]), "t279": (4, [len(floats)])}
    data = _tiff([_pixels(60, 40, 0, **more)], (), [floats])
    a, b = (decode(one, max_pixels=MOST).pixels.astype(int) for one in (plain, data))
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= 1
