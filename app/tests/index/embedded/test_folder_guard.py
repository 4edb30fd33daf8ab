"""The collection's folder is deleted, renamed or replaced while the index is in use."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.index import alias_path, index_exists, restore_embedded
from app.index.embedded.alias import open_embedded, open_embedded_collection
from app.index.embedded.folder_guard import FolderGuard
from tests.index.conftest import (
    OTHER_PACK,
    PACK,
    QUICK,
    children_of,
    collection_folder,
    is_gone,
    kill,
    open_quick,
    owner_info,
    owner_pid,
    points,
    processes_of,
    settings_at,
    wait_until,
)


def requires_folder(call: Callable[[], object], message: str = "deleted or replaced") -> None:
    with pytest.raises(OceanoError, match=message) as caught:
        call()
    assert caught.value.code == "index_unavailable"


def all_requests_fail(index: FaceIndex) -> None:
    face = points(1)[0]
    requires_folder(lambda: index.search(face.embedding, limit=1))
    requires_folder(index.count)
    requires_folder(lambda: index.upsert([face]))
    requires_folder(lambda: index.set_payload([face.face_id], person="Ana"))
    requires_folder(lambda: index.delete([face.face_id]))
    requires_folder(index.flush)


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Return path, inode and time of everything in a folder."""
    found = [(str(path), path.lstat().st_ino, path.lstat().st_mtime_ns) for path in folder.rglob("*")]
    return sorted(found)


@pytest.fixture
def folder(settings: Settings, index: FaceIndex) -> Path:
    """The folder of an index with three durable faces."""
    index.upsert(points(3))
    index.flush()
    return collection_folder(settings)


def test_after_deletion_every_request_fails_and_no_new_index_appears(
    settings: Settings, index: FaceIndex, folder: Path
) -> None:
    owner = owner_pid(settings)
    shutil.rmtree(folder)
    all_requests_fail(index)
    requires_folder(lambda: open_quick(settings), r"is missing: .*restore a backup.*alias\.json")
    assert not folder.exists()
    index.close()
    wait_until(lambda: is_gone(owner))
    requires_folder(lambda: open_quick(settings), "is missing")
    assert not folder.exists()


def test_after_deletion_of_the_files_in_the_folder_every_request_fails(
    settings: Settings, index: FaceIndex, folder: Path
) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    all_requests_fail(index)
    requires_folder(lambda: open_quick(settings), "is missing in ")
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_moved_back_works_again_with_all_faces(
    settings: Settings, index: FaceIndex, folder: Path
) -> None:
    index.upsert(points(3, seed=5))  # not flushed
    owner = owner_pid(settings)
    worker = children_of(owner)
    away = folder.rename(folder.with_name("away"))
    all_requests_fail(index)
    wait_until(lambda: all(map(is_gone, worker)))
    away.rename(folder)
    assert index.count() == 6
    index.flush()
    assert owner_pid(settings) == owner


def test_a_folder_that_is_away_when_the_index_closes_keeps_its_faces(
    settings: Settings, index: FaceIndex, folder: Path
) -> None:
    index.upsert(points(3, seed=5))
    owner = owner_pid(settings)
    away = folder.rename(folder.with_name("away"))
    index.close()
    wait_until(lambda: is_gone(owner))
    assert not folder.exists()
    away.rename(folder)
    with contextlib.closing(open_quick(settings)) as again:
        assert again.count() == 6


def test_another_index_in_the_folder_s_place_is_not_touched(
    settings: Settings, index: FaceIndex, folder: Path, tmp_path: Path
) -> None:
    other = settings_at(tmp_path / "other")
    with contextlib.closing(open_quick(other)) as opened:
        opened.upsert(points(5, seed=7))
        opened.flush()
    wait_until(lambda: not processes_of(other.data_dir))
    owner, socket = owner_pid(settings), Path(owner_info(settings)["socket"])
    folder.rename(folder.with_name("away"))
    shutil.copytree(collection_folder(other), folder)
    (folder / "owner.json").write_text("{}")
    before = listing(folder)
    all_requests_fail(index)
    index.close()
    wait_until(lambda: is_gone(owner))
    assert listing(folder) == before
    assert socket.parent != folder or not socket.exists()
    with contextlib.closing(open_quick(settings)) as again:
        assert again.count() == 5


def test_a_copy_in_the_folder_s_place_gets_no_write_of_the_old_owner(
    settings: Settings, index: FaceIndex, folder: Path
) -> None:
    """A copy has the same names, so the old worker would find its files."""
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.sock", "owner.*"))
    index.upsert(points(3, seed=5))
    owner = owner_pid(settings)
    folder.rename(folder.with_name("away"))
    copy.rename(folder)
    before = listing(folder)
    all_requests_fail(index)
    os.kill(owner, signal.SIGTERM)
    wait_until(lambda: is_gone(owner))
    all_requests_fail(index)  # the client starts no owner in the copy
    assert listing(folder) == before
    index.close()
    with contextlib.closing(open_quick(settings)) as again:
        assert again.count() == 3


def test_a_lost_shard_is_not_replaced_by_an_empty_one(settings: Settings, index: FaceIndex, folder: Path) -> None:
    (shard,) = folder.glob("shard-*")
    shutil.rmtree(shard)
    (worker,) = children_of(owner_pid(settings))
    kill(worker)
    requires_folder(index.count, "is missing in ")
    requires_folder(index.flush, "cannot be written|is missing in ")
    assert not list(folder.glob("shard-*"))


def test_without_the_alias_file_a_deleted_index_starts_anew(settings: Settings, index: FaceIndex, folder: Path) -> None:
    index.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    shutil.rmtree(folder)
    requires_folder(lambda: open_quick(settings), "is missing")
    alias_path(settings.embedded_dir, "faces").unlink()
    with contextlib.closing(open_quick(settings)) as again:
        assert again.count() == 0


def test_a_backup_is_restored_in_the_place_of_a_deleted_folder(
    settings: Settings, index: FaceIndex, folder: Path, tmp_path: Path
) -> None:
    index.backup(tmp_path / "copy")
    index.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    with pytest.raises(OceanoError, match="Another process created an index"):
        restore_embedded(settings, tmp_path / "copy")
    shutil.rmtree(folder)
    assert not index_exists(settings)
    restore_embedded(settings, tmp_path / "copy")
    with contextlib.closing(open_quick(settings)) as again:
        assert again.count() == 3


def test_a_deleted_index_of_another_model_is_not_replaced_by_an_empty_one(
    settings: Settings, index: FaceIndex, folder: Path
) -> None:
    index.close()
    wait_until(lambda: not processes_of(settings.data_dir))
    shutil.rmtree(folder)
    requires_folder(lambda: open_embedded(settings, OTHER_PACK, **QUICK), "is missing")
    requires_folder(lambda: open_embedded_collection(settings, PACK, **QUICK), "is missing")
    open_embedded_collection(settings, OTHER_PACK, **QUICK).close()  # as `oceano reembed` does


@pytest.mark.parametrize("stage", ["folder", "alias", "owner", "shard"])
def test_a_creation_that_was_killed_is_finished(settings: Settings, stage: str) -> None:
    open_quick(settings).close()
    wait_until(lambda: not processes_of(settings.data_dir))
    folder = collection_folder(settings)
    if stage != "owner":
        shutil.rmtree(folder)
        folder.mkdir()
    if stage == "folder":
        alias_path(settings.embedded_dir, "faces").unlink()
    if stage == "owner":  # the pointer is written, its marker not removed
        assert (folder / "current").exists()
    if stage == "shard":
        (folder / "build-00000000").mkdir()
    (folder / "new").touch()
    with contextlib.closing(open_quick(settings)) as index:
        assert index.count() == 0
    assert not (folder / "new").exists()


def test_a_guard_notices_a_new_lock_file_with_the_old_name(tmp_path: Path) -> None:
    path = tmp_path / "owner.lock"
    with path.open("w"):
        guard = FolderGuard(tmp_path)
        assert guard.intact
        path.unlink()
        assert not guard.intact
        path.touch()
        assert not guard.intact
