"""thumbs: a square around a face, wherever it is; kept on disk, whole or not at all."""

from __future__ import annotations

import errno
import os
import random
import threading
import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from app.core.errors import OceanoError
from app.core.types import BBox, Picture, Pixels
from app.images.decoding import decode
from app.images.thumbnails import THUMB_SIDE, ThumbStore, face_thumbnail
from tests.support.fakes import picture_of

FACE_ID = "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"


def _quadrants() -> Pixels:
    """40 x 60: red and green above, blue and white below."""
    pixels = np.empty((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:] = (30, 30, 220), (30, 220, 30)
    pixels[20:, :30], pixels[20:, 30:] = (220, 30, 30), (240, 240, 240)
    return pixels


# drawn from a picture


def _thumb(pixels: Pixels, bbox: BBox, side: int = THUMB_SIDE) -> Pixels:
    thumb = decode(face_thumbnail(picture_of(pixels), bbox, side), max_pixels=10**6).pixels
    assert thumb.shape == (side, side, 3)
    return thumb


@pytest.mark.parametrize(
    "bbox",
    [
        (20.0, 10.0, 40.0, 30.0),  # in the middle
        (0.0, 0.0, 10.0, 12.0),  # in the corners
        (50.0, 28.0, 60.0, 40.0),
        (50.0, 0.0, 60.0, 10.0),
        (0.0, 0.0, 60.0, 40.0),  # the whole picture
        (0.0, 18.0, 60.0, 20.0),  # wide and thin
        (30.0, 20.0, 31.0, 21.0),  # one pixel
        (30.2, 20.2, 30.3, 20.3),  # less than one
        (60.0, 40.0, 60.0, 40.0),  # nothing, on the edge
        (0.0, 0.0, 0.0, 0.0),
        (-5.0, -5.0, 65.0, 45.0),  # more than there is
    ],
)
def test_a_thumbnail_is_square_wherever_the_face_is(bbox: tuple[float, float, float, float]) -> None:
    _thumb(_quadrants(), bbox)


def test_a_thumbnail_shows_the_face_in_its_middle_with_a_margin() -> None:
    pixels = np.full((400, 600, 3), 255, np.uint8)
    pixels[100:200, 300:400] = (0, 0, 200)
    thumb = _thumb(pixels, (300.0, 100.0, 400.0, 200.0))
    red = (thumb[:, :, 2] > 150) & (thumb[:, :, 1] < 100)
    rows, columns = np.nonzero(red)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(THUMB_SIDE / 2, abs=3)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(THUMB_SIDE / 2, abs=3)
    assert columns.max() - columns.min() == pytest.approx(THUMB_SIDE / 1.7, abs=4)


def test_a_thumbnail_at_the_edge_moves_inwards_and_shows_the_picture_only() -> None:
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[:, :, 2] = np.arange(600) // 3  # the redder, the further to the right
    thumb = _thumb(pixels, (0.0, 100.0, 80.0, 180.0)).astype(int)
    assert thumb[:, :4, 2].mean() < 4, "it begins at the picture's edge"
    assert thumb[:, -4:, 2].mean() == pytest.approx(80 * 1.7 / 3, abs=4)


def test_a_thumbnail_of_a_face_that_fills_its_picture_is_the_picture() -> None:
    pixels = _quadrants()[:40, :40]
    thumb = _thumb(pixels, (0.0, 0.0, 40.0, 40.0), side=40)
    assert np.abs(thumb.astype(int) - pixels.astype(int)).mean() < 12


def test_a_thumbnail_is_not_stretched() -> None:
    pixels = np.full((300, 300, 3), 255, np.uint8)
    cv2.circle(pixels, (20, 150), 15, (0, 0, 0), -1)
    thumb = _thumb(pixels, (0.0, 130.0, 40.0, 170.0))
    rows, columns = np.nonzero(thumb[:, :, 0] < 100)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=4)


def test_a_thumbnail_of_a_face_that_fills_a_long_picture_needs_no_gigabytes() -> None:
    pixels = np.full((10, 1_000_000, 3), 128, np.uint8)
    tracemalloc.start()
    _thumb(pixels, (0.0, 0.0, 1_000_000.0, 10.0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000


@pytest.mark.parametrize("side", [100, 192, 193, 383, 384, 385, 1000])
def test_a_thumbnail_shows_what_is_there_however_much_it_is_shrunk(side: int) -> None:
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    pixels = np.stack([255 * x, 255 * y, 128 + 60 * np.sin(6 * x)], axis=-1).astype(np.uint8)
    expected = cv2.resize(pixels, (THUMB_SIDE, THUMB_SIDE), interpolation=cv2.INTER_AREA).astype(int)
    thumb = _thumb(pixels, (0.0, 0.0, float(side), float(side)))
    assert np.abs(thumb.astype(int) - expected).mean() < 3


def test_a_reduced_picture_gives_the_thumbnail_of_the_whole_one() -> None:
    pixels = np.zeros((1600, 2400, 3), np.uint8)
    cv2.circle(pixels, (1200, 800), 400, (60, 120, 240), -1)
    reduced = cv2.resize(pixels, (1200, 800), interpolation=cv2.INTER_AREA).astype(np.uint8)
    asked = []

    def full() -> Pixels:
        asked.append(1)
        return pixels

    picture = Picture("a" * 64, reduced, "JPEG", None, 2400, 1600, 0.5, full)
    for box, needed in (((800.0, 400.0, 1600.0, 1200.0), 0), ((1180.0, 780.0, 1220.0, 820.0), 1)):
        thumb = decode(face_thumbnail(picture, box), max_pixels=10**6).pixels.astype(int)
        whole = decode(face_thumbnail(picture_of(pixels), box), max_pixels=10**6).pixels.astype(int)
        assert np.abs(thumb - whole).mean() < 4
        assert len(asked) == needed


def test_random_faces_all_have_thumbnails() -> None:
    chance = random.Random(5)
    pixels = np.zeros((37, 61, 3), np.uint8)
    for _ in range(300):
        x1, y1 = chance.uniform(0, 61), chance.uniform(0, 37)
        bbox = (x1, y1, min(61.0, x1 + chance.expovariate(0.1)), min(37.0, y1 + chance.expovariate(0.1)))
        _thumb(pixels, bbox, side=chance.choice((1, 16, 33)))


# the store of thumbnails


def test_a_thumbnail_is_kept_in_one_of_256_folders(tmp_path: Path) -> None:
    store = ThumbStore(tmp_path / "thumbs")
    assert store.read(FACE_ID) is None
    assert not (tmp_path / "thumbs").exists(), "reading makes no folder"
    store.write(FACE_ID, b"jpeg")
    assert store.read(FACE_ID) == b"jpeg"
    assert store.path(FACE_ID) == tmp_path / "thumbs" / "0f" / f"{FACE_ID}.jpg"
    store.write(FACE_ID, b"newer")
    assert store.read(FACE_ID) == b"newer"


def test_every_spelling_of_a_face_id_is_the_same_thumbnail(tmp_path: Path) -> None:
    store = ThumbStore(tmp_path)
    assert store.path(FACE_ID.upper()) == store.path(FACE_ID.replace("-", "")) == store.path(FACE_ID)


@pytest.mark.parametrize(
    "face_id",
    [
        "",
        ".",
        "..",
        "../../../etc/passwd",
        "/etc/passwd",
        FACE_ID[:-1],
        f"{FACE_ID}/..",
        "..%2f..%2f",
        "\0",
        "é" * 32,
        "x" * 10_000,
    ],
)
def test_what_is_no_face_id_leads_nowhere(tmp_path: Path, face_id: str) -> None:
    store = ThumbStore(tmp_path)
    for use in (store.path, store.read, lambda one: store.write(one, b"x")):
        with pytest.raises(OceanoError) as caught:
            use(face_id)
        assert caught.value.code == "face_unknown"
        assert len(str(caught.value.details["face_id"])) <= 64
    assert list(tmp_path.iterdir()) == []


def test_whatever_is_taken_for_a_uuid_stays_below_the_folder(tmp_path: Path) -> None:
    store = ThumbStore(tmp_path)
    strange = ("{" + FACE_ID + "}", f"urn:uuid:{FACE_ID}", "٣" * 32, "0x" + "1" * 30, "1_" * 15 + "11")
    for face_id in strange:
        try:
            path = store.path(face_id)
        except OceanoError:
            continue
        assert path.parent.parent == tmp_path
        assert uuid.UUID(path.stem)


def test_an_empty_thumbnail_as_a_power_cut_may_leave_is_none(tmp_path: Path) -> None:
    store = ThumbStore(tmp_path)
    store.write(FACE_ID, b"")
    assert store.read(FACE_ID) is None


def test_a_write_that_fails_leaves_the_thumbnail_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ThumbStore(tmp_path)
    store.write(FACE_ID, b"old")

    write = os.write

    def full(handle: int, data: memoryview) -> int:
        write(handle, data[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OceanoError) as caught:
        store.write(FACE_ID, b"newer")
    assert caught.value.code == "disk_full"
    assert str(tmp_path) in caught.value.message
    monkeypatch.undo()
    assert store.read(FACE_ID) == b"old"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{FACE_ID}.jpg"]


@pytest.mark.parametrize(("where", "step"), [(Path, "mkdir"), (os, "replace")])
def test_a_full_disk_is_disk_full_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, step: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(where, step, full)
    with pytest.raises(OceanoError) as caught:
        ThumbStore(tmp_path).write(FACE_ID, b"x")
    assert caught.value.code == "disk_full"


def test_a_thumbnail_that_cannot_be_read_is_not_taken_for_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(OceanoError, match="Input/output error") as caught:
        ThumbStore(tmp_path).read(FACE_ID)
    monkeypatch.undo()
    assert caught.value.code == "thumbs_unavailable"


def test_another_failure_of_the_disk_is_not_called_a_full_one(tmp_path: Path) -> None:
    (tmp_path / "0f").write_text("a file where a folder should be")
    with pytest.raises(OceanoError, match=r"(?i)exist|directory") as caught:
        ThumbStore(tmp_path).write(FACE_ID, b"x")
    assert caught.value.code == "thumbs_unavailable"


def test_many_threads_write_the_same_thumbnail_and_readers_see_a_whole_one(tmp_path: Path) -> None:
    store = ThumbStore(tmp_path)
    versions = {bytes([number]) * 50_000 for number in range(4)}
    store.write(FACE_ID, next(iter(versions)))
    problems: list[object] = []

    def write(jpeg: bytes) -> None:
        try:
            for _ in range(40):
                store.write(FACE_ID, jpeg)
        except Exception as failure:  # noqa: BLE001
            problems.append(failure)

    def read() -> None:
        for _ in range(200):
            if store.read(FACE_ID) not in versions:
                problems.append("torn")

    threads = [threading.Thread(target=write, args=(one,)) for one in versions]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


def _make_pipe(path: Path) -> None:
    os.mkfifo(path)


def _make_folder(path: Path) -> None:
    path.mkdir()


def _make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_make_pipe, _make_folder, _make_device])
def test_what_is_no_file_in_place_of_a_thumbnail_counts_as_missing_and_is_replaced(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    store = ThumbStore(tmp_path)
    for _ in ("read and replaced", "deleted"):
        store.path(FACE_ID).parent.mkdir(exist_ok=True)
        store.path(FACE_ID).unlink(missing_ok=True)
        make(store.path(FACE_ID))
        assert store.read(FACE_ID) is None
        store.delete([FACE_ID])
        assert not os.path.lexists(store.path(FACE_ID))
        make(store.path(FACE_ID))
        store.write(FACE_ID, b"jpeg")
        assert store.read(FACE_ID) == b"jpeg"


def test_a_folder_with_files_in_place_of_a_thumbnail_is_an_error(tmp_path: Path) -> None:
    store = ThumbStore(tmp_path)
    store.path(FACE_ID).mkdir(parents=True)
    (store.path(FACE_ID) / "somebody's").touch()
    assert store.read(FACE_ID) is None
    for change in (lambda: store.write(FACE_ID, b"jpeg"), lambda: store.delete([FACE_ID])):
        with pytest.raises(OceanoError) as caught:
            change()
        assert caught.value.code == "thumbs_unavailable"
