"""A copy of the index that can be put in its place: `embedded/` with one collection and its alias file."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

from app.core.errors import OceanoError
from app.core.files import free_bytes, sync, write_atomic
from app.core.locks import locked
from app.index import alias_path
from app.index.embedded.protocol import Op, pack, read_answer, storage_failure
from app.index.embedded.storage import (
    copy_folder,
    disk_bytes,
    new_name,
    point_to,
    sync_tree,
)
from app.index.embedded.supervisor import WorkerSupervisor


def backup(
    supervisor: WorkerSupervisor, writing: threading.Lock, target: Path, collection: str, alias: tuple[str, str]
) -> None:
    """Copy the shard as it is now into a new folder; `alias` is the alias file's name and text.

    Writes are held for a copy within the index's folder that shares what Edge only reads; the real copy, which
    shares nothing, is made from that one. Raises OceanoError `invalid_request`, `disk_full`, `index_unavailable`.
    """
    if target.exists():
        raise OceanoError("invalid_request", f"{target} is there already; a backup goes into a new folder.")
    still = supervisor.shard.with_name(new_name("backup"))
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with writing:
            read_answer(supervisor.call(pack(Op.FLUSH)))
            _require_room(supervisor.shard, supervisor.shard.parent)
            copy_folder(supervisor.shard, still, link_frozen=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        _require_room(still, target.parent)
        partial.mkdir(mode=0o700)
        place = partial / collection
        place.mkdir(mode=0o700)
        copy_folder(still, place / "shard-backup", link_frozen=False)
        point_to(place / "shard-backup")
        name, text = alias
        write_atomic(partial / name, text)
        sync_tree(partial)
        partial.rename(target)
        sync(target.parent)
    except OSError as failure:
        raise storage_failure(failure, f"The backup into {target} failed") from failure
    finally:
        shutil.rmtree(still, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)


def restore(source: Path, target: Path, name: str) -> None:
    """Copy the collection of a backup below `target`, then the file of the alias `name`, which makes it the index.

    A kill before that leaves a collection that no alias stands for; the next call begins anew. Whoever opens the index
    meanwhile waits. Raises OceanoError `index_in_use`, `disk_full`, `index_unavailable`.
    """
    file = alias_path(target, name)
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(file.with_name(f"{name}.lock")):
            if file.exists():
                raise OceanoError("index_in_use", f"An index was begun in {target} meanwhile; run it again.")
            _require_room(source, target)
            for folder in source.iterdir():
                if folder.is_dir():
                    _put(folder, target)
            write_atomic(file, (source / file.name).read_text(encoding="utf-8"))
        sync(target)
    except OSError as failure:
        raise storage_failure(failure, f"The index could not be restored into {target}") from failure


def _put(folder: Path, target: Path) -> None:
    beside = target / f".{folder.name}.{os.getpid()}.partial"
    try:
        copy_folder(folder, beside, link_frozen=False)
        sync_tree(beside)
        shutil.rmtree(target / folder.name, ignore_errors=True)
        beside.rename(target / folder.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _require_room(source: Path, there: Path) -> None:
    needed, free = disk_bytes(source), free_bytes(there)
    if free < needed:
        raise OceanoError(
            "disk_full",
            f"A copy of the index needs {needed // 1_000_000} MB; {there} has {free // 1_000_000} MB free.",
            details={"needed_bytes": needed, "free_bytes": free},
        )
