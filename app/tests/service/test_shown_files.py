"""What of an original is shown: nothing outside LIBRARY_ROOTS, and nothing that is another file by now."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.catalog import FileRecord, Ledger, open_ledger
from app.core.errors import OceanoError
from app.images import DecoderPool, PreviewStore
from app.library import Pictures, opening
from app.service.shown import Shown
from tests.support.fakes import MemoryIndex
from tests.support.pictures import RED, encoded

PICTURE = encoded(RED)
IMAGE_ID = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    path.write_bytes(PICTURE)
    return path


@pytest.fixture
def ledger(tmp_path: Path, photo: Path) -> Iterator[Ledger]:
    status = photo.stat()
    with closing(open_ledger(tmp_path / "catalog.sqlite3", "faces")) as opened:
        opened.record([FileRecord(str(photo), status.st_size, status.st_mtime_ns, IMAGE_ID, "done", faces=1)])
        yield opened


def test_a_kept_preview_of_an_image_outside_the_roots_is_not_exported(
    tmp_path: Path, photo: Path, ledger: Ledger
) -> None:
    previews = PreviewStore(tmp_path / "previews", max_bytes=1_000_000)
    previews.write(IMAGE_ID, 640, b"jpeg")
    pictures = Pictures(MemoryIndex(), ledger, [tmp_path / "elsewhere"])
    decoders = DecoderPool(1, seconds=10.0)
    with pytest.raises(OceanoError) as caught:
        Shown(pictures, previews, 10**6).preview(decoders, IMAGE_ID, pictures.files(IMAGE_ID), 640)
    assert caught.value.code == "image_not_shown"


def test_a_file_of_another_size_is_not_read_into_memory(
    photo: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with photo.open("r+b") as file:
        file.truncate(10**12)  # sparse
    monkeypatch.setattr(opening, "_digest", lambda *_: pytest.fail("the file was read"))
    pictures = Pictures(MemoryIndex(), ledger, None)
    with pytest.raises(OceanoError) as caught:
        pictures.open_original(IMAGE_ID, pictures.files(IMAGE_ID))
    assert caught.value.code == "image_missing"


def test_a_file_of_the_same_content_with_another_time_is_shown_and_one_of_other_content_is_not(
    photo: Path, ledger: Ledger
) -> None:
    pictures = Pictures(MemoryIndex(), ledger, None)
    files = pictures.files(IMAGE_ID)
    os.utime(photo, ns=(1, 1))
    pictures.open_original(IMAGE_ID, files).close()
    photo.write_bytes(PICTURE[:-1] + b"x")
    with pytest.raises(OceanoError) as caught:
        pictures.open_original(IMAGE_ID, files)
    assert caught.value.code == "image_missing"
