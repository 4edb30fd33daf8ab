"""Frames of GIF files, and files that are made to keep a decoder busy."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from app.core.errors import OceanoError
from app.images import gif
from app.images.decoding import decode

HEADER = 13  # bytes before the colour table


def _gif(frames: int = 3, transparency: int | None = None) -> bytes:
    images = [Image.fromarray(np.full((20, 30), index, np.uint8), "P") for index in range(frames)]
    for image in images:
        image.putpalette([value for index in range(256) for value in (index * 40 % 256, index, 255 - index)])
    file = io.BytesIO()
    options = {} if transparency is None else {"transparency": transparency}
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=50, **options)
    return file.getvalue()


def _with_extensions(data: bytes, extension: bytes) -> bytes:
    start = HEADER + (3 << ((data[10] & 7) + 1))
    return data[:start] + extension + data[start:]


def test_frames_are_counted_and_the_first_is_cut_out() -> None:
    data = _gif()
    assert gif.frames(data) == 3
    first = gif.first_frame(data)
    assert gif.frames(first) == 1
    assert (decode(first, max_pixels=10**6).pixels == decode(data, max_pixels=10**6).pixels).all()
    assert decode(data, max_pixels=10**6).frames == 3


def test_the_transparent_colour_of_the_first_frame_stays() -> None:
    assert (decode(_gif(transparency=0), max_pixels=10**6).pixels == 255).all()


def test_megabytes_of_comments_are_left_out() -> None:
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * 20_000 + b"\0"
    data = _with_extensions(_gif(), comment)
    assert len(gif.first_frame(data)) < 5_000
    assert decode(data, max_pixels=10**6).frames == 3


def test_a_file_of_too_many_parts_is_refused() -> None:
    with pytest.raises(OceanoError, match="more than 20,000 frames and extensions") as caught:
        decode(_with_extensions(_gif(), b"!\xfe\0" * 30_000), max_pixels=10**6)
    assert caught.value.code == "invalid_image"


@pytest.mark.parametrize("length", [0, 5, 13, 20])
def test_a_file_that_ends_before_its_first_frame_stays_as_it_is(length: int) -> None:
    data = _gif()[:length]
    assert gif.first_frame(data) == data
    assert gif.frames(data) == 0


def test_a_file_that_ends_early_is_cut_off() -> None:
    data = _gif()
    assert not gif.is_cut_off(data)
    assert all(gif.is_cut_off(data[:length]) for length in range(len(data)))
