"""`oceano backup` and `oceano restore`: copy index, catalog and thumbnails to a folder, and back.

A backup has the layout of a data folder; the catalog is a SQLite file in it, also if it is in PostgreSQL. It is copied
first, so that it never has faces that the index lacks.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from contextlib import closing, suppress
from pathlib import Path
from threading import Event
from typing import Any, Final

from app.catalog import (
    CATALOG_FILE,
    EARLIER_LEDGER,
    Ledger,
    Stopped,
    back_up,
    replace_indexes,
    require_no_workers,
    restore,
)
from app.commands.audit import record_command
from app.commands.console import counted, faces_bar, say
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, ErrorCode, OceanoError, is_full
from app.core.files import free_bytes
from app.core.paths import readable
from app.core.protocols import FaceIndex
from app.core.types import ModelPack
from app.images import Thumbs, ThumbStore, copy_thumbs
from app.index import (
    alias_path,
    collection_exists,
    identity_of,
    index_exists,
    open_index,
    remove_restore_leftovers,
    restore_embedded,
    restored_copy,
    wait_until_left,
)
from app.index.capacity import amount, plan
from app.index.transfer import Migration
from app.library import only_writer, read_manifest, require_undamaged, restore_marker_path, write_manifest
from app.people import NamesCopy
from app.service import KeptSearches, find_model, open_ledger, open_thumbs, require_same_index

_PARTIAL_NAME: Final = re.compile(r"\..+\.(?P<pid>[0-9]+)\.partial", re.DOTALL)
_PARTS: Final = frozenset({"state", "qdrant_storage", "thumbs", "logs", "models", "backup.json"})
_WRITE_RESERVE_BYTES: Final = 300_000_000  # Edge needs free space to write


def run_backup(settings: Settings, target: Path, stop: Event) -> int:
    """Back up index, catalog and thumbnails while the service and ingests run; makes a complete backup or none.

    Args:
        settings: the data to back up.
        target: the new folder.
        stop: once set, ends the backup.

    Returns:
        The exit code: 0, or 130 if interrupted.

    Raises:
        OceanoError: `invalid_request` if `target` exists or cannot be written, `not_found` without a parent folder or
            an index, `disk_full`, `ledger_unavailable` also for a damaged ledger, and as `find_model`, `open_index` and
            `open_ledger` do.
    """
    target = _absolute(target)
    if target.exists():
        raise OceanoError("invalid_request", f"{target} already exists; a backup needs a new folder")
    if not target.parent.is_dir():  # not created: it may be on a drive that is not mounted
        raise OceanoError("not_found", f"{target.parent} is not a folder; is the drive connected?")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    backup_settings = settings.model_copy(update={"data_dir": partial, "qdrant_url": ""})
    try:
        _remove_leftovers(target.parent)
        pack = find_model(settings)
        with (
            closing(open_index(settings, pack, create=False)) as index,
            closing(open_ledger(settings, pack)) as ledger,
        ):
            require_same_index(settings, pack, index, ledger)
            ledger.check()
            record_command(settings, "command.backup", {"folder": readable(str(target))})
            partial.mkdir(mode=0o700)
            backup_settings.state_dir.mkdir(mode=0o700)
            back_up(ledger.database, backup_settings.state_dir / CATALOG_FILE, stop.is_set)
            _back_up_kept_searches(settings, backup_settings)
            faces = _back_up_index(settings, backup_settings, pack, index, stop)
        if stop.is_set():
            raise Stopped
        thumbs = _copy_thumbs(open_thumbs(settings), ThumbStore(backup_settings.thumbs_dir), stop)
        write_manifest(partial, settings, pack, faces=faces, thumbnails=thumbs)
        os.sync()
        partial.rename(target)
    except Stopped:
        say("interrupted: no backup was made")
        return EXIT_INTERRUPTED
    except OSError as failure:
        raise _storage_failure(failure, target) from failure
    finally:
        with suppress(OSError):  # a name that is too long, which has been reported
            if partial.exists():
                wait_until_left(backup_settings)
                shutil.rmtree(partial, ignore_errors=True)
    say(f"{target}: {counted(faces, 'face')}, {counted(thumbs, 'thumbnail')}, the catalog")
    return EXIT_OK


def run_restore(settings: Settings, source: Path, stop: Event) -> int:
    """Restore a backup into an empty or missing index, or continue an interrupted restore.

    Args:
        settings: where to restore to.
        source: the folder of the backup.
        stop: once set, ends the restore; the same call continues it.

    Returns:
        The exit code: 0, or 130 if interrupted.

    Raises:
        OceanoError: `invalid_request` if the backup is incomplete or damaged or the index has faces, `disk_full`,
            `ingest_in_progress` also if workers use the catalog, and as `read_manifest`, `find_model`, `open_index` and
            `open_ledger` do.
    """
    source = _absolute(source)
    pack = find_model(settings)
    manifest = read_manifest(source, settings, pack)
    backup_settings = settings.model_copy(update={"data_dir": source, "qdrant_url": ""})
    try:
        _require_complete(source, backup_settings, pack)
        require_undamaged(source, manifest)
    except OSError as failure:
        raise OceanoError("invalid_request", f"{source} cannot be read: {failure}") from failure
    restore_marker = restore_marker_path(settings.state_dir, settings.qdrant_collection)
    with only_writer(settings.state_dir), closing(open_ledger(settings, pack)) as ledger:
        require_no_workers(ledger.database)
        remove_restore_leftovers(settings)
        try:
            this_restore = {"backup": manifest, "into": settings.qdrant_url or "embedded"}
            if not _is_marked(restore_marker, this_restore):
                _require_empty(settings, pack)
                restore_marker.write_text(json.dumps(this_restore), encoding="utf-8")
            if not settings.qdrant_url and not index_exists(settings):
                restore_embedded(settings, backup_settings.embedded_dir)
            else:
                _fill_index(settings, backup_settings, pack, stop)
            if stop.is_set():
                raise Stopped
            thumbs = _copy_thumbs(ThumbStore(backup_settings.thumbs_dir), open_thumbs(settings), stop)
            restored = restore(ledger, backup_settings.state_dir, settings.state_dir, stop.is_set)
        except OSError as failure:
            raise _storage_failure(failure, settings.data_dir) from failure
        except Stopped:
            say("interrupted; run the same command again to continue")
            return EXIT_INTERRUPTED
        _restore_kept_searches(settings, backup_settings)
        with closing(open_index(settings, pack)) as index:
            faces = index.count()
            NamesCopy(ledger.database, index, ledger.collection).copy_all()  # it may be newer than the catalog
            replaced = _own_catalog(settings, pack, index, ledger)
        # not before: the audit of the backup goes on only where there is no other
        record_command(settings, "command.restore", {"folder": readable(str(source))})
        restore_marker.unlink()
    say(f"restored: {counted(faces, 'face')} in the index, {counted(thumbs, 'thumbnail')}, the catalog")
    if not restored.audit:
        say("the audit of the backup was not restored, because the catalog has another one")
    if not restored.names:
        say("the people of the backup were not restored, because the catalog has its own")
    if replaced:
        say(
            f"the catalog belongs to the restored index now, and no longer to {', '.join(replaced)}: services and "
            "ingests with that one are refused from now on. Restart those that still run with the settings of this one"
        )
    return EXIT_OK


def _own_catalog(settings: Settings, pack: ModelPack, index: FaceIndex, ledger: Ledger) -> list[str]:
    """Let a shared catalog belong to the restored index alone; return the indexes that it belonged to before.

    Two indexes that both go on would each have faces that the other lacks.
    """
    found = identity_of(settings, pack, index) if ledger.database.has_many_writers else None
    return [] if found is None else replace_indexes(ledger.database, ledger.collection, *found)


def _back_up_kept_searches(settings: Settings, backup_settings: Settings) -> None:
    with closing(KeptSearches(settings.state_dir)) as kept:
        kept.backup(backup_settings.state_dir)


def _restore_kept_searches(settings: Settings, backup_settings: Settings) -> None:
    """Add the kept searches of a backup, if it has any: those of older versions have no such file."""
    if KeptSearches.exists(backup_settings.state_dir):
        with closing(KeptSearches(settings.state_dir)) as kept:
            kept.merge(backup_settings.state_dir)


def _back_up_index(
    settings: Settings, backup_settings: Settings, pack: ModelPack, index: FaceIndex, stop: Event
) -> int:
    """Copy the files of an embedded index, or the faces of a server into a new embedded index.

    Returns:
        Number of faces in the copy.
    """
    if not settings.qdrant_url:
        backup_settings.index_dir.mkdir(parents=True, mode=0o700)
        index.backup(backup_settings.embedded_dir)
        return index.count()
    faces = index.count()
    needed = plan(max(1, faces), embedding_size=pack.embedding_size).index_disk + _WRITE_RESERVE_BYTES
    free = free_bytes(backup_settings.state_dir)
    if free < needed:
        raise OceanoError(
            "disk_full",
            f"a backup of {counted(faces, 'face')} needs about {amount(needed)}; {backup_settings.data_dir.parent} has "
            f"{amount(free)} free",
            details={"needed_bytes": needed, "free_bytes": free},
        )
    with closing(open_index(backup_settings, pack)) as copy, faces_bar(faces) as advance:
        counts = Migration(index, copy, stop=stop, on_progress=lambda counts: advance(counts.faces)).run()
    wait_until_left(backup_settings)
    return counts.faces


def _remove_leftovers(parent: Path) -> None:
    """Remove the temporary folders that killed backups left in a folder, whatever their target's name."""
    for leftover in parent.glob(".*.partial"):
        found = _PARTIAL_NAME.fullmatch(leftover.name)
        if found is None or leftover.is_symlink() or not _has_only_parts_of_a_backup(leftover):
            continue
        # one with our own id is a leftover, too: in containers, processes often have the same id
        if found["pid"] == str(os.getpid()) or not Path("/proc", found["pid"]).exists():
            shutil.rmtree(leftover, ignore_errors=True)


def _has_only_parts_of_a_backup(folder: Path) -> bool:
    try:
        return {entry.name for entry in folder.iterdir()} <= _PARTS
    except OSError:
        return False


def _require_complete(source: Path, backup_settings: Settings, pack: ModelPack) -> None:
    index = backup_settings.embedded_dir
    state = backup_settings.state_dir
    catalog = state / (EARLIER_LEDGER if (state / EARLIER_LEDGER).is_file() else CATALOG_FILE)
    for part in (catalog, alias_path(index, backup_settings.qdrant_collection)):
        if not part.is_file():
            raise OceanoError("invalid_request", f"{source} is incomplete: {part} is missing")
    if not collection_exists(backup_settings, pack):
        raise OceanoError("invalid_request", f"{source} is incomplete: {index} has no faces")


def _is_marked(restore_marker: Path, restore: dict[str, Any]) -> bool:
    """Return whether this restore was started here. With a truncated marker, nothing had been restored yet."""
    try:
        return bool(json.loads(restore_marker.read_text(encoding="utf-8")) == restore)
    except (FileNotFoundError, ValueError):
        return False


def _require_empty(settings: Settings, pack: ModelPack) -> None:
    """Refuse an index with faces: a restore would bring back faces that were removed since the backup."""
    if not settings.qdrant_url and not index_exists(settings):
        if collection_exists(settings, pack):
            raise OceanoError(
                "invalid_request",
                f"{settings.embedded_dir} has faces, but no file names them as the index "
                f"{settings.qdrant_collection!r}. A restore would replace them; move them away first",
            )
        return
    try:
        with closing(open_index(settings, pack)) as index:
            faces = index.count()
    except OceanoError as failure:
        if failure.code == "index_unavailable" and not settings.qdrant_url:
            advice = f"{failure.message}; to restore in its place, move {settings.embedded_dir} away"
            raise OceanoError(failure.code, advice) from failure
        raise
    if faces:
        on_server = "delete its collection on the server first"
        embedded = "set another DATA_DIR, or move the existing data away"
        raise OceanoError(
            "invalid_request",
            f"the index {settings.qdrant_collection!r} already has {counted(faces, 'face')}; a restore needs an empty "
            f"one: {on_server if settings.qdrant_url else embedded}",
            details={"faces": faces},
        )


def _fill_index(settings: Settings, backup_settings: Settings, pack: ModelPack, stop: Event) -> None:
    """Copy the faces into an existing index, which may be on a server and in use."""
    with (
        restored_copy(settings, backup_settings.embedded_dir) as copy_settings,
        closing(open_index(settings, pack)) as index,
        closing(open_index(copy_settings, pack, create=False)) as copy,
        faces_bar(copy.count()) as advance,
    ):
        Migration(copy, index, stop=stop, on_progress=lambda counts: advance(counts.faces)).run()


def _copy_thumbs(source: Thumbs, target: Thumbs, stop: Event) -> int:
    count = copy_thumbs(source, target, stop.is_set)
    if stop.is_set():
        raise Stopped
    return count


def _absolute(path: Path) -> Path:
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 - Path.expanduser raises for an unknown user


def _storage_failure(failure: OSError, path: Path) -> OceanoError:
    if failure.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OceanoError("invalid_request", f"{path} cannot be written by user {os.getuid()}: {failure.strerror}")
    code: ErrorCode = "disk_full" if is_full(failure) else "internal"
    return OceanoError(code, f"{path} cannot be written: {failure.strerror or failure}")
