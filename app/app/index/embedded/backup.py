"""Backup and restore of an embedded index: one collection and its alias file, with the layout of `embedded/`."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

from app.core.errors import OceanoError
from app.core.files import free_bytes, sync, write_atomic
from app.core.locks import locked
from app.index import alias_path
from app.index.embedded.integrity import require_frozen_files
from app.index.embedded.protocol import Op, pack, read_reply
from app.index.embedded.storage import (
    copy_folder,
    disk_bytes,
    new_name,
    set_current,
    sync_tree,
)
from app.index.embedded.supervisor import WorkerSupervisor
from app.index.errors import storage_failure


def backup(
    supervisor: WorkerSupervisor, write_lock: threading.Lock, target: Path, collection: str, alias: tuple[str, str]
) -> None:
    """Copy the current shard into a new folder.

    Writes wait only for a first copy in the index's folder, with hard links for files that Edge only reads. The backup
    is copied from it and shares no files.

    Args:
        supervisor: sends requests to the worker.
        write_lock: the lock that writes hold.
        target: the new folder; it appears complete or not at all.
        collection: the name of the collection's folder.
        alias: name and text of the alias file.

    Raises:
        OceanoError: `invalid_request` if `target` exists, `disk_full`, `index_unavailable`.
    """
    if target.exists():
        raise OceanoError("invalid_request", f"{target} exists already; a backup needs a new folder.")
    snapshot = supervisor.shard.with_name(new_name("backup"))
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with write_lock:
            read_reply(supervisor.call(pack(Op.FLUSH)))
            _require_space(supervisor.shard, supervisor.shard.parent)
            copy_folder(supervisor.shard, snapshot, link_frozen=True)
        require_frozen_files(snapshot)
        target.parent.mkdir(parents=True, exist_ok=True)
        _require_space(snapshot, target.parent)
        partial.mkdir(mode=0o700)
        folder = partial / collection
        folder.mkdir(mode=0o700)
        copy_folder(snapshot, folder / "shard-backup", link_frozen=False)
        set_current(folder / "shard-backup")
        name, text = alias
        write_atomic(partial / name, text)
        sync_tree(partial)
        partial.rename(target)
        sync(target.parent)
    except OSError as failure:
        raise storage_failure(failure, f"The backup into {target} failed") from failure
    finally:
        shutil.rmtree(snapshot, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)


def restore(source: Path, target: Path, name: str) -> None:
    """Copy a backup into the folder of the embedded indexes.

    The alias file is written last. A kill before that leaves a collection without an alias, and the next call starts
    again. Clients that open the index meanwhile wait.

    Args:
        source: the folder that `backup` created.
        target: the folder of the embedded indexes.
        name: the alias.

    Raises:
        OceanoError: `index_in_use` if the alias exists, `disk_full`, `index_unavailable`.
    """
    from app.index.embedded.alias import has_index  # imports NumPy, which the owner does not need

    file = alias_path(target, name)
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(file.with_name(f"{name}.lock")):
            if has_index(file):
                raise OceanoError("index_in_use", f"Another process created an index in {target}. Run it again.")
            _require_space(source, target)
            for folder in source.iterdir():
                if folder.is_dir():
                    _copy_collection(folder, target)
            write_atomic(file, (source / file.name).read_text(encoding="utf-8"))
        sync(target)
    except OSError as failure:
        raise storage_failure(failure, f"The index could not be restored into {target}") from failure


def _copy_collection(folder: Path, target: Path) -> None:
    partial = target / f".{folder.name}.{os.getpid()}.partial"
    try:
        copy_folder(folder, partial, link_frozen=False)
        sync_tree(partial)
        shutil.rmtree(target / folder.name, ignore_errors=True)
        partial.rename(target / folder.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _require_space(source: Path, folder: Path) -> None:
    needed, free = disk_bytes(source), free_bytes(folder)
    if free < needed:
        raise OceanoError(
            "disk_full",
            f"A copy of the index needs {needed // 1_000_000} MB; {folder} has {free // 1_000_000} MB free.",
            details={"needed_bytes": needed, "free_bytes": free},
        )
