"""The alias file of an embedded index, which names its collection: `faces` -> `faces__antelopev2__4ab1d643`."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from app.core.concurrency import processors
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.files import write_atomic
from app.core.locks import locked
from app.core.types import ModelPack, collection_name
from app.index import alias_path
from app.index.embedded.client import EmbeddedIndex
from app.index.embedded.connections import ConnectionPool
from app.index.embedded.folder_guard import is_lost, mark_new, require_collection
from app.index.embedded.options import OwnerOptions
from app.index.embedded.storage import current_shard
from app.index.errors import model_mismatch, storage_failure, unavailable

_FORMAT: Final = 1
_MOST_READERS: Final = 3
_DEFAULT_SIZE: Final = 512  # the embedding size of an alias file without one; all models had it then


def open_embedded(settings: Settings, pack: ModelPack, *, create: bool = True, **options: Any) -> EmbeddedIndex:
    """Open the embedded index that the settings name, for embeddings of a model.

    Args:
        settings: folder, alias and HNSW parameters.
        pack: the model.
        create: create the index if there is none.
        **options: fields of OwnerOptions.

    Raises:
        OceanoError: see `app.index.open_index`.
    """
    root = settings.embedded_dir
    path = alias_path(root, settings.qdrant_collection)
    if not create and not path.exists():
        raise OceanoError("not_found", f"There is no index in {root} yet; ingest pictures first.")
    _create_folder(root)
    try:
        alias = _choose_alias(settings, pack, path, options)
    except OSError as failure:
        raise storage_failure(failure, f"{path} cannot be read or written") from failure
    return _start_owner(_client(settings, alias, pack.embedding_size, options))


def open_embedded_collection(settings: Settings, pack: ModelPack, **options: Any) -> EmbeddedIndex:
    """Open a model's collection, whichever collection the alias names; create it if there is none.

    Args:
        settings: folder, alias and HNSW parameters.
        pack: the model.
        **options: fields of OwnerOptions.

    Raises:
        OceanoError: see `app.index.open_model_collection`.
    """
    _create_folder(settings.embedded_dir)
    alias = _new_alias(settings, pack)
    path = alias_path(settings.embedded_dir, settings.qdrant_collection)
    try:
        with locked(path.with_name(f"{settings.qdrant_collection}.lock")):
            active = read_alias(path)
            _prepare_folder(settings, alias, is_new=active is None or active["collection"] != alias["collection"])
    except OSError as failure:
        raise storage_failure(failure, f"{settings.embedded_dir} cannot be read or written") from failure
    return _start_owner(_client(settings, alias, pack.embedding_size, options))


def activate_embedded(settings: Settings, pack: ModelPack) -> None:
    """Point the alias to a model's collection; atomic and durable.

    Raises:
        OceanoError: `index_unavailable` or `disk_full` if the alias file cannot be written.
    """
    path = alias_path(settings.embedded_dir, settings.qdrant_collection)
    try:
        with locked(path.with_name(f"{settings.qdrant_collection}.lock")):
            write_atomic(path, _alias_text(_new_alias(settings, pack)))
    except OSError as failure:
        raise storage_failure(failure, f"{path} cannot be written") from failure


def _start_owner(index: EmbeddedIndex) -> EmbeddedIndex:
    """Send a first request, so that the owner starts now and its errors are raised here."""
    try:
        index.info()
    except BaseException:
        index.close()
        raise
    return index


def _new_alias(settings: Settings, pack: ModelPack) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "collection": collection_name(settings.qdrant_collection, pack),
        "model": pack.name,
        "digest": pack.digest,
        "embedding_size": pack.embedding_size,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _choose_alias(settings: Settings, pack: ModelPack, path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return the alias; write a new one if there is none, or if its collection is empty and of another model.

    A collection's folder exists before an alias names it, so an alias without a folder means that it was deleted.
    """
    with locked(path.with_name(f"{settings.qdrant_collection}.lock")):
        alias = read_alias(path)
        if alias is not None:
            _prepare_folder(settings, alias, is_new=False)
        if alias is None or alias["digest"] != pack.digest:
            if alias is not None:
                _require_empty(settings, alias, pack, options)
            alias = _new_alias(settings, pack)
            _prepare_folder(settings, alias, is_new=True)
            write_atomic(path, _alias_text(alias))
        return alias


def _prepare_folder(settings: Settings, alias: dict[str, Any], *, is_new: bool) -> None:
    """Create the folder of a new collection; require the folder and shard of one that an alias names."""
    folder = settings.embedded_dir / alias["collection"]
    if is_new:
        _create_folder(folder)
        mark_new(folder)
    else:
        require_collection(folder)


def _alias_text(alias: dict[str, Any]) -> str:
    return json.dumps(alias, indent=1) + "\n"


def read_alias(path: Path) -> dict[str, Any] | None:
    """Read an alias file.

    Args:
        path: as `app.index.alias_path` returns it.

    Returns:
        `collection`, `model`, `digest`, `embedding_size` and other fields; None if there is no such file.

    Raises:
        OceanoError: `index_unavailable` if the file is damaged.
        OSError: the file cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not {"collection", "model", "digest"} <= found.keys():
            raise ValueError
        if not isinstance(found.setdefault("embedding_size", _DEFAULT_SIZE), int):
            raise ValueError
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError):
        raise unavailable(f"{path} is damaged; restore it from a backup.") from None
    return dict(found)


def has_index(path: Path) -> bool:
    """Return whether an alias file exists and its collection was not deleted; a damaged file counts as an index.

    Args:
        path: as `app.index.alias_path` returns it.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        alias = read_alias(path)
    except OceanoError:
        return True
    return alias is not None and not is_lost(path.parent / alias["collection"])


def _client(settings: Settings, alias: dict[str, Any], size: int, options: dict[str, Any]) -> EmbeddedIndex:
    collection = alias["collection"]
    folder = settings.embedded_dir / collection
    owner_options = dataclasses.replace(
        OwnerOptions(
            folder,
            size,
            hnsw_m=settings.hnsw_m,
            hnsw_ef_construct=settings.hnsw_ef_construct,
            readers=min(_MOST_READERS, processors() - 1),
        ),
        **options,
    )
    name = alias_path(Path(), settings.qdrant_collection).name
    return EmbeddedIndex(
        ConnectionPool(owner_options, settings.logs_dir / "index.log"),
        collection=collection,
        embedding_size=size,
        hnsw_ef=settings.hnsw_ef,
        alias=(name, _alias_text(alias)),
    )


def _require_empty(settings: Settings, alias: dict[str, Any], pack: ModelPack, options: dict[str, Any]) -> None:
    """Raise `index_model_mismatch` if the collection of another model holds faces."""
    points = 0
    folder = settings.embedded_dir / alias["collection"]
    if current_shard(folder) is not None:
        index = _client(settings, alias, alias["embedding_size"], options)
        try:
            points = index.count()
        finally:
            index.close()
    if points:
        raise model_mismatch(settings.qdrant_collection, alias, alias["embedding_size"], pack, points)


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as failure:
        raise storage_failure(failure, f"{folder} cannot be created") from failure
