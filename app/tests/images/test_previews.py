from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.core.errors import OceanoError
from app.images import PreviewStore
from app.images import previews as module

IDS = [f"{n:064x}" for n in range(8)]


def test_a_preview_is_kept_and_read_again(tmp_path: Path) -> None:
    store = PreviewStore(tmp_path, 10**6)
    assert store.read(IDS[0], 640) is None
    store.write(IDS[0], 640, b"small")
    store.write(IDS[0], 640, b"second page", page=1)
    assert (store.read(IDS[0], 640), store.read(IDS[0], 640, 1), store.read(IDS[0], 1280)) == (
        b"small", b"second page", None,
    )  # fmt: skip
    store.delete(IDS[0])
    assert store.read(IDS[0], 640) is None


def test_the_previews_read_longest_ago_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHECKED_EVERY", 2)  # the first write and every second one after it
    store = PreviewStore(tmp_path, 350)
    for at, image_id in enumerate(IDS[:4]):
        store.write(image_id, 640, bytes(100))
        os.utime(next(tmp_path.glob(f"*/{image_id}-*")), (at, at))
    assert store.read(IDS[0], 640) is not None  # is now the newest
    store.write(IDS[4], 640, bytes(100))
    left = {path.name[:64] for path in tmp_path.glob("*/*")}
    assert IDS[0] in left
    assert IDS[4] in left
    assert IDS[1] not in left
    assert len(left) == 3


def test_a_store_of_no_bytes_keeps_nothing(tmp_path: Path) -> None:
    PreviewStore(tmp_path, 0).write(IDS[0], 640, b"x")
    assert not list(tmp_path.iterdir())


def test_all_previews_can_be_deleted(tmp_path: Path) -> None:
    store = PreviewStore(tmp_path / "previews", 10**6)
    store.clear()
    for image_id in IDS:
        store.write(image_id, 640, b"x")
    store.clear()
    assert not (tmp_path / "previews").exists()
    store.write(IDS[0], 640, b"x")
    assert store.read(IDS[0], 640) == b"x"


@pytest.mark.parametrize("image_id", ["", "..", "../" * 10, "g" * 64, "0" * 65])
def test_no_other_names_are_read(tmp_path: Path, image_id: str) -> None:
    with pytest.raises(OceanoError, match="image_unknown"):
        PreviewStore(tmp_path, 10).read(image_id, 640)


def test_an_empty_file_counts_as_missing(tmp_path: Path) -> None:
    store = PreviewStore(tmp_path, 10**6)
    store.write(IDS[0], 640, b"")
    assert store.read(IDS[0], 640) is None
