"""shown: previews are drawn once, details are read once, and a failure is not remembered."""

from __future__ import annotations

import errno
import io
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from app.catalog import open_ledger
from app.core.errors import OceanoError
from app.images import DecoderPool, PreviewStore, previews
from app.images.decoding import decode, image_id_of
from app.library import ImageFile, Pictures
from app.service import shown as shown_module
from app.service.shown import Shown
from tests.support.fakes import MemoryIndex
from tests.support.running import open_below

MAKE, ORIENTATION = 271, 274


class Bench:
    """Files that may be shown, and what decodes them."""

    def __init__(self, base: Path, cache_bytes: int = 10**6) -> None:
        self.base = base
        ledger = open_ledger(base / "catalog.sqlite3", "faces__fake__ffffffff")
        store = PreviewStore(base / "previews", cache_bytes)
        self.shown = Shown(Pictures(MemoryIndex(), ledger, None), store, 10**7)
        self.decoders = DecoderPool(1, seconds=10)

    def file(self, data: bytes, name: str = "a") -> tuple[str, tuple[ImageFile, ...]]:
        path = self.base / name
        path.write_bytes(data)
        status = path.stat()
        return image_id_of(data), (ImageFile(str(path), status.st_size, status.st_mtime_ns, True),)

    def preview(self, image_id: str, files: Sequence[ImageFile], width: int = 640, page: int = 0) -> bytes:
        return self.shown.preview(self.decoders, image_id, files, width, page)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _saved(kind: str, size: tuple[int, int] = (90, 60), colours: Sequence[Any] = ((200, 30, 30),), **how: Any) -> bytes:
    if kind == "HEIF":
        pillow_heif.register_heif_opener()
    pages = [Image.new("RGB", size, colour) for colour in colours]
    out = io.BytesIO()
    many = {"save_all": True, "append_images": pages[1:]} if len(pages) > 1 else {}
    pages[0].save(out, kind, **many, **how)
    return out.getvalue()


def _pixels(jpeg: bytes) -> Any:
    assert jpeg[:3] == b"\xff\xd8\xff"
    return decode(jpeg, max_pixels=10**7).pixels


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "HEIF", "WEBP", "GIF", "BMP", "AVIF"])
def test_a_preview_of_any_format_is_a_jpeg(bench: Bench, kind: str) -> None:
    pixels = _pixels(bench.preview(*bench.file(_saved(kind))))
    assert pixels.shape == (60, 90, 3)
    assert np.abs(pixels.mean(axis=(0, 1)) - (30, 30, 200)).max() < 12


@pytest.mark.parametrize("size", [(3000, 2000), (2000, 3000)])
def test_a_large_image_is_reduced_to_the_width(bench: Bench, size: tuple[int, int]) -> None:
    assert _pixels(bench.preview(*bench.file(_saved("JPEG", size)))).shape[1] == 640


def test_a_preview_is_upright(bench: Bench) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    assert _pixels(bench.preview(*bench.file(_saved("JPEG", exif=exif.tobytes())))).shape == (90, 60, 3)


def test_each_page_of_a_tiff_has_its_preview(bench: Bench) -> None:
    image_id, files = bench.file(_saved("TIFF", colours=[(200, 30, 30), (30, 200, 30)]))
    for _ in range(2):  # drawn, and kept
        means = [_pixels(bench.preview(image_id, files, page=page)).mean(axis=(0, 1)).argmax() for page in (0, 1)]
        assert means == [2, 1]
    with pytest.raises(OceanoError) as caught:
        bench.preview(image_id, files, page=2)
    assert (caught.value.code, caught.value.details) == ("invalid_request", {"pages": 2})


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "HEIF", "WEBP", "GIF", "BMP", "AVIF"])
def test_a_page_that_a_file_does_not_have_is_no_damage(bench: Bench, kind: str) -> None:
    image_id, files = bench.file(_saved(kind))
    with pytest.raises(OceanoError, match="the image has 1 page;") as caught:
        bench.preview(image_id, files, page=1)
    assert (caught.value.code, caught.value.details) == ("invalid_request", {"pages": 1})


def test_a_preview_is_drawn_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    image_id, files = bench.file(_saved("PNG"))
    first = bench.preview(image_id, files)
    monkeypatch.setattr(shown_module, "preview_jpeg", lambda *_: pytest.fail("it is drawn again"))
    assert bench.preview(image_id, files) == first


def test_a_kept_preview_of_a_deleted_file_is_missing_until_the_file_is_back(bench: Bench) -> None:
    data = _saved("PNG")
    image_id, files = bench.file(data)
    first = bench.preview(image_id, files)
    for fate in (Path.unlink, Path.touch, lambda path: path.write_bytes(data + b"x")):
        fate(Path(files[0].path))
        with pytest.raises(OceanoError) as caught:
            bench.preview(image_id, files)
        assert caught.value.code == "image_missing"
    bench.file(data)
    assert bench.preview(image_id, files) == first


def test_a_cache_of_0_bytes_draws_each_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, cache_bytes=0)
    image_id, files = bench.file(_saved("PNG"))
    assert bench.preview(image_id, files) == bench.preview(image_id, files)
    assert not (tmp_path / "previews").exists()


def test_a_full_disk_still_answers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(previews, "write_atomic", full)
    assert _pixels(bench.preview(*bench.file(_saved("PNG")))).shape == (60, 90, 3)


def test_no_file_stays_open(bench: Bench) -> None:
    good, damaged = bench.file(_saved("PNG"), "good"), bench.file(_saved("PNG")[:60], "damaged")
    bench.preview(*good)
    with pytest.raises(OceanoError):
        bench.preview(*damaged)
    assert bench.shown.details(bench.decoders, *damaged) == {}
    names = {path.name for path in open_below(bench.base)}
    assert not {"good", "damaged"} & names


def _with_camera(make: str) -> bytes:
    exif = Image.Exif()
    exif[MAKE] = make
    return _saved("JPEG", exif=exif.tobytes())


def test_details_are_read_once(bench: Bench) -> None:
    image_id, files = bench.file(_with_camera("Canon"))
    assert bench.shown.details(bench.decoders, image_id, files) == {"camera": "Canon"}
    Path(files[0].path).unlink()
    assert bench.shown.details(bench.decoders, image_id, files) == {"camera": "Canon"}


def test_details_of_a_file_that_comes_back_are_read_then(bench: Bench) -> None:
    data = _with_camera("Canon")
    image_id, files = bench.file(data)
    Path(files[0].path).rename(bench.base / "away")
    assert bench.shown.details(bench.decoders, image_id, files) == {}
    (bench.base / "away").rename(files[0].path)
    assert bench.shown.details(bench.decoders, image_id, files) == {"camera": "Canon"}


def test_the_details_of_the_last_images_are_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_module, "_REMEMBERED", 2)
    images = [bench.file(_with_camera(f"Maker{number}"), str(number)) for number in range(3)]
    for image in images:
        bench.shown.details(bench.decoders, *image)
    for _, files in images:
        Path(files[0].path).unlink()
    found = [bench.shown.details(bench.decoders, *image) for image in images]
    assert found == [{}, {"camera": "Maker1"}, {"camera": "Maker2"}]


def test_files_that_may_not_be_shown_tell_nothing(bench: Bench) -> None:
    image_id, (file,) = bench.file(_with_camera("Canon"))
    hidden = (ImageFile(file.path, file.size, file.mtime_ns, False),)
    assert bench.shown.details(bench.decoders, image_id, hidden) == {}
    with pytest.raises(OceanoError) as caught:
        bench.preview(image_id, hidden)
    assert caught.value.code == "image_not_shown"


def test_a_preview_that_several_ask_for_is_drawn_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    image_id, files = bench.file(_saved("JPEG"))
    drawn = []

    def slow(pixels: Any, width: int) -> bytes:
        drawn.append(width)
        time.sleep(0.1)
        return b"preview"

    monkeypatch.setattr(shown_module, "preview_jpeg", slow)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: bench.preview(image_id, files), range(8)))
    assert found == [b"preview"] * 8
    assert drawn == [640]
