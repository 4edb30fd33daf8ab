"""Decoder processes: same pixels, and a file that crashes, fills or hangs its decoder is one error."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import psutil
import pytest
from PIL import Image

from app.core.errors import OceanoError
from app.images import DecoderPool, decode, decoder_pool
from app.images.heif import register_heif
from app.images.jpeg import is_plain_jpeg

pytestmark = pytest.mark.decoders
MAX_PIXELS = 4_000_000


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    with closing(DecoderPool(2, seconds=5)) as pool:
        yield pool


def _encoded(kind: str, size: tuple[int, int] = (90, 60), **options: object) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def _png(width: int, height: int) -> bytes:
    """A PNG of one colour: a few kilobytes, however large."""
    rows = zlib.compress(bytes((width * 3 + 1) * height), 9)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "app.images.decoder_process" in one.cmdline()]


def _error(pool: DecoderPool, data: bytes, **options: int) -> OceanoError:
    with pytest.raises(OceanoError) as caught:
        pool.decode(data, max_pixels=options.get("max_pixels", MAX_PIXELS))
    return caught.value


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_process_gives_the_same_picture(pool: DecoderPool, kind: str) -> None:
    data = _encoded(kind)
    here, there = decode(data, max_pixels=MAX_PIXELS), pool.decode(data, max_pixels=MAX_PIXELS)
    assert np.array_equal(here.pixels, there.pixels)
    assert (here.image_id, here.format, here.width, here.height) == (
        there.image_id,
        there.format,
        there.width,
        there.height,
    )
    assert np.array_equal(there.full(), here.full())


def test_a_jpeg_that_is_not_plain_is_decoded_at_a_part_of_its_size_and_in_full_later(pool: DecoderPool) -> None:
    data = _encoded("JPEG", (1200, 800), comment=b"x" * 60_000)
    data = data[:2] + 6 * (b"\xff\xfe\xff\xff" + bytes(65_533)) + data[2:]
    assert not is_plain_jpeg(data)
    picture = pool.decode(data, max_pixels=MAX_PIXELS, min_decoded_side=300)
    assert picture.scale == 0.25
    assert picture.pixels.shape == (200, 300, 3)
    assert picture.full().shape == (800, 1200, 3)
    assert _children()


def test_a_plain_jpeg_needs_no_process(pool: DecoderPool) -> None:
    data = _encoded("JPEG")
    assert is_plain_jpeg(data)
    assert pool.decode(data, max_pixels=MAX_PIXELS).width == 90
    assert not _children()


def test_a_jpeg_that_ends_in_any_place_of_its_header_is_not_plain() -> None:
    data = _encoded("JPEG")
    scan = data.index(b"\xff\xda")
    assert is_plain_jpeg(data[: scan + 4])
    assert not any(is_plain_jpeg(data[:end]) for end in range(scan))
    assert not is_plain_jpeg(bytes.fromhex("ffd8ffc0c7ec"))


def test_an_error_of_the_decoder_is_the_same_in_a_process(pool: DecoderPool) -> None:
    for data in (b"rubbish", b"", _encoded("PNG")[:60], _encoded("WEBP")[:60], _png(3000, 3000)):
        with pytest.raises(OceanoError) as here:
            decode(data, max_pixels=MAX_PIXELS)
        there = _error(pool, data)
        assert (there.code, there.details) == (here.value.code, here.value.details)
    assert len(_children()) == 1, "an error of the file ends no process"


def test_a_process_that_is_killed_is_one_error_and_replaced(pool: DecoderPool) -> None:
    pool.decode(_encoded("PNG"), max_pixels=MAX_PIXELS)
    _children()[0].kill()
    error = _error(pool, _encoded("PNG"))
    assert error.code == "invalid_image"
    assert "crashed" in error.message
    assert pool.decode(_encoded("PNG"), max_pixels=MAX_PIXELS).width == 90


def test_a_file_that_takes_too_long_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(DecoderPool(1, seconds=5)) as pool:
        pool.decode(_encoded("PNG"), max_pixels=MAX_PIXELS)
        os.kill(_children()[0].pid, 19)  # SIGSTOP
        pool._seconds = 0.3
        start = time.monotonic()
        error = _error(pool, _encoded("PNG"))
        assert "longer than 0.3 s" in error.message
        assert time.monotonic() - start < 3
        assert not _children()
        pool._seconds = 5
        assert pool.decode(_encoded("PNG"), max_pixels=MAX_PIXELS).width == 90


def test_a_file_that_needs_too_much_memory_is_one_error(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "_BYTES_PER_PIXEL", 1)
    monkeypatch.setattr(decoder_pool, "_SMALL_BYTES", 10_000_000)
    error = _error(pool, _png(6000, 6000), max_pixels=37_000_000)
    assert error.code == "invalid_image"
    assert "memory" in error.message
    assert pool.decode(_encoded("PNG"), max_pixels=MAX_PIXELS).width == 90


def test_large_images_wait_for_memory(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "_SMALL_BYTES", 40_000_000)
    data = _png(2000, 2000)
    with ThreadPoolExecutor(1) as threads:
        with pool._large.reserve(10**9):
            waiting = threads.submit(pool.decode, data, max_pixels=MAX_PIXELS)
            assert pool.decode(_encoded("PNG"), max_pixels=MAX_PIXELS).width == 90, "a small one does not wait"
            time.sleep(0.3)
            assert not waiting.done()
        assert waiting.result(10).width == 2000


def test_a_large_image_that_waits_too_long_is_refused_and_the_process_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "_SMALL_BYTES", 40_000_000)
    with closing(DecoderPool(1, seconds=10, wait_seconds=0.1)) as pool:
        with pool._large.reserve(10**9):
            error = _error(pool, _png(2000, 2000), max_pixels=MAX_PIXELS)
            assert (error.code, error.retry_after) == ("overloaded", 2)
        (process,) = pool._idle
        assert pool.decode(_png(2000, 2000), max_pixels=MAX_PIXELS).width == 2000
        assert pool._idle == [process]


def test_a_large_image_that_waits_leaves_the_only_process_to_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "_SMALL_BYTES", 40_000_000)
    with closing(DecoderPool(1, seconds=10, wait_seconds=30)) as pool, ThreadPoolExecutor(1) as threads:
        with pool._large.reserve(10**9):
            waiting = threads.submit(pool.decode, _png(2000, 2000), max_pixels=MAX_PIXELS)
            time.sleep(1)
            assert pool.decode(_encoded("PNG"), max_pixels=MAX_PIXELS).width == 90
            assert not waiting.done()
        assert waiting.result(10).width == 2000


def test_an_admission_keeps_other_large_images_waiting_after_the_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "_SMALL_BYTES", 40_000_000)
    monkeypatch.setattr(decoder_pool, "_LARGE_BYTES", 60_000_000)
    with closing(DecoderPool(2, seconds=10, wait_seconds=0.1)) as pool:
        with closing(pool.admission()) as admission:
            assert pool.decode(_png(2000, 2000), max_pixels=MAX_PIXELS, admission=admission).width == 2000
            assert _error(pool, _png(2000, 2000)).code == "overloaded"
            assert pool.decode(_encoded("PNG"), max_pixels=MAX_PIXELS).width == 90, "a small one is decoded"
            again = pool.decode(_png(2000, 2000), max_pixels=MAX_PIXELS, admission=admission)
            assert again.width == 2000, "the next image of the same request"
        assert pool.decode(_png(2000, 2000), max_pixels=MAX_PIXELS).width == 2000


def test_a_large_plain_jpeg_is_admitted_like_other_large_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_pool, "_LARGE_JPEG", 1_000_000)
    large, small = _encoded("JPEG", (1200, 900)), _encoded("JPEG")
    with closing(DecoderPool(1, seconds=10, wait_seconds=0.1)) as pool:
        with pool._large.reserve(10**9), closing(pool.admission()) as admission:
            with pytest.raises(OceanoError) as caught:
                pool.decode(large, max_pixels=MAX_PIXELS, admission=admission)
            assert (caught.value.code, caught.value.retry_after) == ("overloaded", 2)
            assert pool.decode(small, max_pixels=MAX_PIXELS, admission=admission).width == 90
            assert pool.decode(large, max_pixels=MAX_PIXELS).width == 1200, "an ingest does not ask"
        with closing(pool.admission()) as admission:
            assert pool.decode(large, max_pixels=MAX_PIXELS, admission=admission).width == 1200


def test_a_decoder_that_waited_for_the_cpu_is_overloaded_not_an_invalid_image() -> None:
    with closing(DecoderPool(1, seconds=5, wait_seconds=1)) as pool:
        pool.decode(_encoded("PNG"), max_pixels=MAX_PIXELS)
        os.kill(_children()[0].pid, 19)  # SIGSTOP: it gets no time of the CPU
        pool._seconds = 0.3
        assert _error(pool, _encoded("PNG")).code == "overloaded"
        pool._seconds = 5
        assert pool.decode(_encoded("PNG"), max_pixels=MAX_PIXELS).width == 90


def test_a_new_process_knows_how_large_a_heic_is(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    register_heif()
    monkeypatch.setattr(decoder_pool, "_SMALL_BYTES", 10_000_000)
    data = _encoded("HEIF", (1200, 800))
    with ThreadPoolExecutor(1) as threads:
        with pool._large.reserve(10**9):
            waiting = threads.submit(pool.decode, data, max_pixels=MAX_PIXELS)
            time.sleep(1.5)
            assert not waiting.done()
        assert waiting.result(10).width == 1200


def test_many_threads_share_few_processes(pool: DecoderPool) -> None:
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, len(_children()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    data = [_encoded("PNG", (60 + n, 60)) for n in range(24)]
    with ThreadPoolExecutor(8) as threads:
        widths = list(threads.map(lambda one: pool.decode(one, max_pixels=MAX_PIXELS).width, data))
    done.set()
    watcher.join()
    assert widths == [60 + n for n in range(24)]
    assert 1 <= most <= 2


def test_closing_ends_the_processes() -> None:
    pool = DecoderPool(2, seconds=5)
    pool.decode(_encoded("PNG"), max_pixels=MAX_PIXELS)
    (process,) = _children()
    pool.close()
    process.wait(5)
    assert not _children()


@pytest.mark.parametrize("kind", ["progressive", "grey", "cmyk", "truncated", "not a jpeg", "cut in its header"])
def test_what_is_a_plain_jpeg(kind: str) -> None:
    data = _encoded("JPEG")
    grey, cmyk = io.BytesIO(), io.BytesIO()
    Image.new("L", (9, 9)).save(grey, "JPEG")
    Image.new("CMYK", (9, 9)).save(cmyk, "JPEG")
    files = {
        "progressive": (_encoded("JPEG", progressive=True), True),
        "grey": (grey.getvalue(), True),
        "cmyk": (cmyk.getvalue(), False),
        "truncated": (data[:-200], True),
        "not a jpeg": (_encoded("PNG"), False),
        "cut in its header": (data[:40], False),
    }
    content, plain = files[kind]
    assert is_plain_jpeg(content) is plain


def test_a_large_file_is_received_after_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.images.decoder_pool._SMALL_BYTES", 30_000_000)
    pool = DecoderPool(1, seconds=20)
    one_page = _encoded("TIFF", (64, 48), save_all=True, append_images=[Image.new("RGB", (32, 24))])
    pool.decode(_encoded("PNG"), max_pixels=10_000)
    for page in (0, 1, 0, 1):
        assert pool.decode(one_page + bytes(60_000_000), max_pixels=10_000, page=page).width == 64 // (page + 1)
    pool.close()
