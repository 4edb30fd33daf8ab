"""What `oceano backup` and `oceano restore` do: index, ledger and thumbnails, kept in one folder and put back.

A backup has the layout of a data folder. The ledger goes first: it may know less than the index, never more.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
from contextlib import closing, suppress
from pathlib import Path
from threading import Event
from typing import Any, Final

from app.commands.console import counted, faces_bar, say
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, OceanoError, is_full
from app.core.files import free_bytes
from app.core.protocols import FaceIndex
from app.core.types import ModelPack
from app.index import (
    alias_path,
    clear_restore,
    collection_exists,
    index_exists,
    open_index,
    readable_copy,
    restore_embedded,
    wait_until_left,
)
from app.index.capacity import amount, plan
from app.index.transfer import Migration
from app.library import only_writer, read_manifest, require_undamaged, restore_note, write_manifest
from app.service.factory import find_model, open_ledger

_ROOM_TO_WRITE: Final = 300_000_000  # Edge keeps some free


def run_backup(settings: Settings, target: Path, stop: Event) -> int:
    """The exit code. Searching and ingesting go on meanwhile. Raises OceanoError; there is a whole backup or none."""
    target = _absolute(target)
    if target.exists():
        raise OceanoError("invalid_request", f"{target} is there already; a backup goes into a new folder")
    if not target.parent.is_dir():  # made here, a backup meant for a drive that is not mounted would go elsewhere
        raise OceanoError("not_found", f"{target.parent} is not a folder; is the drive connected?")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    kept = settings.model_copy(update={"data_dir": partial, "qdrant_url": ""})
    try:
        _clear_leftovers(target)
        pack = find_model(settings)
        with (
            closing(open_index(settings, pack, create=False)) as index,
            closing(open_ledger(settings, pack)) as ledger,
        ):
            partial.mkdir(mode=0o700)
            kept.state_dir.mkdir(mode=0o700)
            ledger.backup(kept.state_dir / "ledger.sqlite3")
            faces = _keep_index(settings, kept, pack, index, stop)
        if stop.is_set():
            say("interrupted: nothing is kept of this backup")
            return EXIT_INTERRUPTED
        thumbs = _copy_thumbs(settings.thumbs_dir, kept.thumbs_dir)
        write_manifest(partial, settings, pack, faces=faces, thumbnails=thumbs)
        os.sync()
        partial.rename(target)
    except OSError as failure:
        raise _storage_failure(failure, target) from failure
    finally:
        with suppress(OSError):  # a name that is too long, which was said
            if partial.exists():
                wait_until_left(kept)
                shutil.rmtree(partial, ignore_errors=True)
    say(f"{target}: {counted(faces, 'face')}, {counted(thumbs, 'thumbnail')}, the ledger")
    return EXIT_OK


def run_restore(settings: Settings, source: Path, stop: Event) -> int:
    """The exit code. Into an index that is empty or not there, or where this restore was interrupted before.

    Raises OceanoError; the same call goes on.
    """
    source = _absolute(source)
    pack = find_model(settings)
    manifest = read_manifest(source, settings, pack)
    kept = settings.model_copy(update={"data_dir": source, "qdrant_url": ""})
    try:
        _require_whole(source, kept, pack)
        require_undamaged(source, manifest)
    except OSError as failure:
        raise OceanoError("invalid_request", f"{source} cannot be read: {failure}") from failure
    begun = restore_note(settings.state_dir, settings.qdrant_collection)
    with only_writer(settings.state_dir), closing(open_ledger(settings, pack)) as ledger:
        clear_restore(settings)
        try:
            note = {"backup": manifest, "into": settings.qdrant_url or "embedded"}
            if not _is_of(begun, note):
                _require_empty(settings, pack)
                begun.write_text(json.dumps(note), encoding="utf-8")
            if not settings.qdrant_url and not index_exists(settings):
                restore_embedded(settings, kept.embedded_dir)
            else:
                _fill_index(settings, kept, pack, stop)
            if stop.is_set():
                say("interrupted; the same command goes on")
                return EXIT_INTERRUPTED
            thumbs = _copy_thumbs(kept.thumbs_dir, settings.thumbs_dir)
        except OSError as failure:
            raise _storage_failure(failure, settings.data_dir) from failure
        ledger.merge(kept.state_dir / "ledger.sqlite3")
        begun.unlink()
        with closing(open_index(settings, pack)) as index:
            faces = index.count()
    say(f"restored: {counted(faces, 'face')} in the index, {counted(thumbs, 'thumbnail')}, the ledger")
    return EXIT_OK


def _keep_index(settings: Settings, kept: Settings, pack: ModelPack, index: FaceIndex, stop: Event) -> int:
    """Faces in the copy: the files of an embedded index; of a server's index an embedded one made of its faces."""
    if not settings.qdrant_url:
        kept.index_dir.mkdir(parents=True, mode=0o700)
        index.backup(kept.embedded_dir)
        return index.count()
    faces = index.count()
    needed = plan(max(1, faces), embedding_size=pack.embedding_size).index_disk + _ROOM_TO_WRITE
    free = free_bytes(kept.state_dir)
    if free < needed:
        raise OceanoError(
            "disk_full",
            f"a backup of {counted(faces, 'face')} needs about {amount(needed)}; {kept.data_dir.parent} has "
            f"{amount(free)} free",
            details={"needed_bytes": needed, "free_bytes": free},
        )
    with closing(open_index(kept, pack)) as copy, faces_bar(faces) as advance:
        counts = Migration(index, copy, stop=stop, on_progress=lambda counts: advance(counts.faces)).run()
    wait_until_left(kept)
    return counts.faces


def _clear_leftovers(target: Path) -> None:
    """What a killed backup of the same name left."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        pid = left.name.split(".")[-2]
        # our own, since this backup has not begun: in containers every process has the same
        if pid == str(os.getpid()) or (pid.isdecimal() and not Path("/proc", pid).exists()):
            shutil.rmtree(left, ignore_errors=True)


def _require_whole(source: Path, kept: Settings, pack: ModelPack) -> None:
    index = kept.embedded_dir
    for part in (kept.state_dir / "ledger.sqlite3", alias_path(index, kept.qdrant_collection)):
        if not part.is_file():
            raise OceanoError("invalid_request", f"{source} is not a whole backup: {part} is missing")
    if not collection_exists(kept, pack):
        raise OceanoError("invalid_request", f"{source} is not a whole backup: {index} lacks the faces")


def _is_of(begun: Path, note: dict[str, Any]) -> bool:
    """Was this restore begun here? A note that was cut off is none: nothing had been restored yet."""
    try:
        return bool(json.loads(begun.read_text(encoding="utf-8")) == note)
    except (FileNotFoundError, ValueError):
        return False


def _require_empty(settings: Settings, pack: ModelPack) -> None:
    """What was forgotten since the backup must not come back unasked."""
    if not settings.qdrant_url and not index_exists(settings):
        if collection_exists(settings, pack):
            raise OceanoError(
                "invalid_request",
                f"there are faces in {settings.embedded_dir}, though the file that makes them the index "
                f"{settings.qdrant_collection!r} is lost; a backup would replace them: move them away first",
            )
        return
    try:
        with closing(open_index(settings, pack)) as index:
            there = index.count()
    except OceanoError as failure:
        if failure.code == "index_unavailable" and not settings.qdrant_url:
            advice = f"{failure.message}; to restore over it, move {settings.embedded_dir} away"
            raise OceanoError(failure.code, advice) from failure
        raise
    if there:
        elsewhere = "delete its collection on the server first"
        here = "set another DATA_DIR, or move what is there away"
        raise OceanoError(
            "invalid_request",
            f"the index {settings.qdrant_collection!r} holds {there} faces already, and a backup goes into an empty "
            f"one: {elsewhere if settings.qdrant_url else here}",
            details={"faces": there},
        )


def _fill_index(settings: Settings, kept: Settings, pack: ModelPack, stop: Event) -> None:
    """Into an index that is there, perhaps on a server, perhaps in use."""
    with (
        readable_copy(settings, kept.embedded_dir) as copied,
        closing(open_index(settings, pack)) as index,
        closing(open_index(copied, pack, create=False)) as copy,
        faces_bar(copy.count()) as advance,
    ):
        Migration(copy, index, stop=stop, on_progress=lambda counts: advance(counts.faces)).run()


def _copy_thumbs(source: Path, target: Path) -> int:
    """Thumbnails that `target` lacks, as second names where both are on one disk; how many `source` has."""
    count = 0
    for base, _, names in os.walk(source):
        there = target / Path(base).relative_to(source)
        for name in names:
            if not name.endswith(".jpg"):
                continue
            count += 1
            there.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError, FileNotFoundError):  # FileNotFoundError: pruned meanwhile
                _link_or_copy(Path(base, name), there / name)
    return count


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # a thumbnail is never written to, only replaced
    except FileExistsError:
        raise
    except OSError:
        beside = target.with_name(f"{target.name}.tmp")
        try:
            shutil.copyfile(source, beside)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)


def _absolute(path: Path) -> Path:
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 - Path's raises for a user who is not there


def _storage_failure(failure: OSError, place: Path) -> OceanoError:
    if failure.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OceanoError("invalid_request", f"{place} cannot be written by user {os.getuid()}: {failure.strerror}")
    code = "disk_full" if is_full(failure) else "internal"
    return OceanoError(code, f"{place} cannot be written: {failure.strerror or failure}")
