"""What `oceano backup` and `oceano restore` do: index, ledger and thumbnails, kept in one folder and put back.

A backup has the layout of a data folder. The ledger goes first: it may know less than the index, never more.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any, Final

from app import __version__
from app.config import Settings
from app.errors import EXIT_INTERRUPTED, EXIT_OK, OceanoError
from app.index import collection_exists, index_exists, open_index, restore_embedded, wait_until_left
from app.ledger import only_writer
from app.migration import Migration
from app.parts import find_model, open_ledger
from app.progress import counted, faces_bar
from app.types import FaceIndex, ModelPack

_FORMAT: Final = 1
_MANIFEST: Final = "backup.json"


def run_backup(settings: Settings, target: Path, stop: Event) -> int:
    """The exit code. Searching and ingesting go on meanwhile. Raises OceanoError; there is a whole backup or none."""
    target = target.expanduser().absolute()
    if target.exists():
        raise OceanoError("invalid_request", f"{target} is there already; a backup goes into a new folder")
    if not target.parent.is_dir():  # made here, a backup meant for a drive that is not mounted would go elsewhere
        raise OceanoError("not_found", f"{target.parent} is not a folder; is the drive connected?")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    kept = settings.model_copy(update={"data_dir": partial, "qdrant_url": ""})
    try:
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
            print("interrupted: nothing is kept of this backup")  # noqa: T201
            return EXIT_INTERRUPTED
        thumbs = _copy_thumbs(settings.thumbs_dir, kept.thumbs_dir)
        manifest = {
            "format": _FORMAT,
            "oceano": __version__,
            "collection": settings.qdrant_collection,
            "model": pack.name,
            "digest": pack.digest,
            "faces": faces,
            "thumbnails": thumbs,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        (partial / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        os.sync()
        partial.rename(target)
    except OSError as failure:
        raise _storage_failure(failure, target) from failure
    finally:
        if partial.exists():
            wait_until_left(kept)
            shutil.rmtree(partial, ignore_errors=True)
    print(f"{target}: {counted(faces, 'face')}, {counted(thumbs, 'thumbnail')}, the ledger")  # noqa: T201
    return EXIT_OK


def run_restore(settings: Settings, source: Path, stop: Event) -> int:
    """The exit code. Into an index that is empty or not there, or where this restore was interrupted before.

    Raises OceanoError; the same call goes on.
    """
    source = source.expanduser().absolute()
    manifest = _manifest(source, settings)
    pack = find_model(settings)
    if manifest["digest"] != pack.digest:
        raise OceanoError(
            "index_model_mismatch",
            f"the backup was made with the model {manifest['model']} ({manifest['digest'][:8]}), MODEL_NAME is "
            f"{pack.name} ({pack.short_digest})",
            details={"index_digest": manifest["digest"], "given_digest": pack.digest},
        )
    kept = settings.model_copy(update={"data_dir": source, "qdrant_url": ""})
    begun = settings.state_dir / f"restore-{settings.qdrant_collection}.json"
    with only_writer(settings.state_dir), closing(open_ledger(settings, pack)) as ledger:
        try:
            if not _is_of(begun, manifest):
                _require_empty(settings, pack)
                begun.write_text(json.dumps(manifest), encoding="utf-8")
            if not settings.qdrant_url and not index_exists(settings):
                restore_embedded(settings, kept.index_dir / "embedded")
            else:
                _fill_index(settings, kept, pack, stop)
            if stop.is_set():
                print("interrupted; the same command goes on")  # noqa: T201
                return EXIT_INTERRUPTED
            thumbs = _copy_thumbs(kept.thumbs_dir, settings.thumbs_dir)
        except OSError as failure:
            raise _storage_failure(failure, settings.data_dir) from failure
        ledger.bring(kept.state_dir / "ledger.sqlite3")
        begun.unlink()
        with closing(open_index(settings, pack)) as index:
            faces = index.count()
    print(f"restored: {counted(faces, 'face')} in the index, {counted(thumbs, 'thumbnail')}, the ledger")  # noqa: T201
    return EXIT_OK


def _keep_index(settings: Settings, kept: Settings, pack: ModelPack, index: FaceIndex, stop: Event) -> int:
    """Faces in the copy: the files of an embedded index; of a server's index an embedded one made of its faces."""
    if not settings.qdrant_url:
        kept.index_dir.mkdir(parents=True, mode=0o700)
        index.backup(kept.index_dir / "embedded")
        return index.count()
    with closing(open_index(kept, pack)) as copy, faces_bar(index.count()) as advance:
        counts = Migration(index, copy, stop=stop, on_progress=lambda counts: advance(counts.faces)).run()
    wait_until_left(kept)
    return counts.faces


def _is_of(begun: Path, manifest: dict[str, Any]) -> bool:
    """Was a restore of this backup begun here? A note that was cut off is none: nothing had been restored yet."""
    try:
        return bool(json.loads(begun.read_text(encoding="utf-8")) == manifest)
    except (FileNotFoundError, ValueError):
        return False


def _require_empty(settings: Settings, pack: ModelPack) -> None:
    """What was forgotten since the backup must not come back unasked."""
    if not settings.qdrant_url and not index_exists(settings):
        if collection_exists(settings, pack):
            raise OceanoError(
                "invalid_request",
                f"there are faces in {settings.index_dir / 'embedded'}, though the file that makes them the index "
                f"{settings.qdrant_collection!r} is lost; a backup would replace them: move them away first",
            )
        return
    with closing(open_index(settings, pack)) as index:
        there = index.count()
    if there:
        raise OceanoError(
            "invalid_request",
            f"the index {settings.qdrant_collection!r} holds {there} faces already, and a backup goes into an empty "
            "one: set another DATA_DIR, or move what is there away",
            details={"faces": there},
        )


def _fill_index(settings: Settings, kept: Settings, pack: ModelPack, stop: Event) -> None:
    """Into an index that is there, perhaps on a server, perhaps in use."""
    with (
        closing(open_index(settings, pack)) as index,
        closing(open_index(kept, pack, create=False)) as copy,
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
        shutil.copyfile(source, beside)
        beside.replace(target)


def _manifest(source: Path, settings: Settings) -> dict[str, Any]:
    try:
        found = json.loads((source / _MANIFEST).read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            raise OceanoError("invalid_request", f"{source} was made by a newer Oceano ({found['oceano']})")
        if found["collection"] != settings.qdrant_collection:
            raise OceanoError(
                "invalid_request",
                f"the backup is of the index {found['collection']!r}; set QDRANT_COLLECTION={found['collection']}",
            )
        return dict(found)
    except FileNotFoundError:
        raise OceanoError("not_found", f"{source} is no backup: it has no {_MANIFEST}") from None
    except (ValueError, KeyError, TypeError, OSError) as failure:
        raise OceanoError("invalid_request", f"{source / _MANIFEST} is damaged: {failure}") from failure


def _storage_failure(failure: OSError, place: Path) -> OceanoError:
    code = "disk_full" if failure.errno in (errno.ENOSPC, errno.EDQUOT) else "internal"
    return OceanoError(code, f"{place} cannot be written: {failure.strerror or failure}")
