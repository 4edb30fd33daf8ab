"""Which collection an alias stands for: `faces` -> `faces__antelopev2__4ab1d643`, kept in one small file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.files import write_atomic
from app.core.locks import locked
from app.core.types import ModelPack, collection_name
from app.index import alias_path
from app.index.embedded.client import EmbeddedIndex
from app.index.embedded.connections import Pool
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import storage_failure, unavailable
from app.index.embedded.storage import current_shard

_FORMAT: Final = 1
_FIRST_SIZE: Final = 512  # of every model, when the alias file did not say it yet


def open_embedded(settings: Settings, pack: ModelPack, *, create: bool = True, **options: Any) -> EmbeddedIndex:
    """The embedded index of these settings for this model; `options` are fields of OwnerOptions.

    Raises OceanoError as `app.index.open_index` does.
    """
    root = settings.embedded_dir
    path = alias_path(root, settings.qdrant_collection)
    if not create and not path.exists():
        raise OceanoError("not_found", f"There is no index in {root} yet; ingest pictures first.")
    _make_private(root)
    try:
        alias = _choose(settings, pack, path, options)
    except OSError as failure:
        raise storage_failure(failure, f"{path} cannot be read or written") from failure
    return _started(_client(settings, alias, pack.embedding_size, options))


def open_embedded_beside(settings: Settings, pack: ModelPack, **options: Any) -> EmbeddedIndex:
    """This model's collection, whatever the alias stands for; made if it is not there."""
    _make_private(settings.embedded_dir)
    return _started(_client(settings, _alias_of(settings, pack), pack.embedding_size, options))


def switch_embedded(settings: Settings, pack: ModelPack) -> None:
    """From here on the alias stands for this model's collection: one rename."""
    path = alias_path(settings.embedded_dir, settings.qdrant_collection)
    try:
        with locked(path.with_name(f"{settings.qdrant_collection}.lock")):
            write_atomic(path, _written(_alias_of(settings, pack)))
    except OSError as failure:
        raise storage_failure(failure, f"{path} cannot be written") from failure


def _started(index: EmbeddedIndex) -> EmbeddedIndex:
    try:
        index.info()  # start the owner now, and say now what is wrong
    except BaseException:
        index.close()
        raise
    return index


def _alias_of(settings: Settings, pack: ModelPack) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "collection": collection_name(settings.qdrant_collection, pack),
        "model": pack.name,
        "digest": pack.digest,
        "embedding_size": pack.embedding_size,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _choose(settings: Settings, pack: ModelPack, path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The alias as it is, or, in a new index and in one that held nothing, set to this model's collection."""
    with locked(path.with_name(f"{settings.qdrant_collection}.lock")):
        alias = read_alias(path)
        if alias is None or alias["digest"] != pack.digest:
            if alias is not None:
                _require_empty(settings, alias, pack, options)
            alias = _alias_of(settings, pack)
            write_atomic(path, _written(alias))
        return alias


def _written(alias: dict[str, Any]) -> str:
    return json.dumps(alias, indent=1) + "\n"


def read_alias(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not {"collection", "model", "digest"} <= found.keys():
            raise ValueError
        if not isinstance(found.setdefault("embedding_size", _FIRST_SIZE), int):
            raise ValueError
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError):
        raise unavailable(f"{path} is damaged; restore it from a backup.") from None
    return dict(found)


def _client(settings: Settings, alias: dict[str, Any], size: int, options: dict[str, Any]) -> EmbeddedIndex:
    collection = alias["collection"]
    folder = settings.embedded_dir / collection
    _make_private(folder)
    told = dataclasses.replace(
        OwnerOptions(folder, size, hnsw_m=settings.hnsw_m, hnsw_ef_construct=settings.hnsw_ef_construct), **options
    )
    name = alias_path(Path(), settings.qdrant_collection).name
    return EmbeddedIndex(
        Pool(told, settings.logs_dir / "index.log"),
        collection=collection,
        embedding_size=size,
        hnsw_ef=settings.hnsw_ef,
        alias=(name, _written(alias)),
    )


def _require_empty(settings: Settings, alias: dict[str, Any], pack: ModelPack, options: dict[str, Any]) -> None:
    """Nothing is lost by leaving an empty collection of another model; one with faces is not left behind unasked."""
    points = 0
    folder = settings.embedded_dir / alias["collection"]
    if folder.is_dir() and current_shard(folder) is not None:
        other = _client(settings, alias, alias["embedding_size"], options)
        try:
            points = other.count()
        finally:
            other.close()
    if points:
        raise mismatch(settings.qdrant_collection, alias, alias["embedding_size"], pack, points)


def mismatch(name: str, made_by: Mapping[str, str], size: int, pack: ModelPack, points: int) -> OceanoError:
    """The refusal of an index whose faces another model made: `made_by` has its name and digest, `size` its
    embedding size.
    """
    return OceanoError(
        "index_model_mismatch",
        f"The index {name!r} holds {points} faces made by the model {made_by['model']} "
        f"({made_by['digest'][:8]}); {pack.name} ({pack.short_digest}) makes other embeddings. Set "
        f"MODEL_NAME={made_by['model']} to go on with it, change the index to the other model with `oceano reembed "
        f"--model {pack.name}`, or choose another QDRANT_COLLECTION.",
        details={
            "index_model": made_by["model"],
            "index_digest": made_by["digest"],
            "index_embedding_size": size,
            "given_model": pack.name,
            "given_digest": pack.digest,
            "points": points,
        },
    )


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as failure:
        raise storage_failure(failure, f"{folder} cannot be made") from failure
