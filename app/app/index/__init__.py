"""The vector index behind one Protocol (`app.core.protocols.FaceIndex`): embedded, or a Qdrant server (QDRANT_URL).

`server/`: `connect` (connection, collection, alias), `client` (requests), `retry` (which errors are retried). Both
kinds share `base` (checks, large requests in parts) and `payload` (what a point holds).

The embedded index (`embedded/`) is several processes on one folder:

- clients (`client`, `connections`): the service, the ingest script, in any number;
- one owner (`owner`): listens on a Unix socket, orders writes, decides when to build; it never calls Edge, so nothing
  blocks it;
- its worker (`worker`): holds the shard (`shard`). Edge keeps the GIL in every call, so it has a process of its own,
  and a new one while a built graph is loaded;
- a builder, now and then (`worker build`): HNSW on a copy (`maintenance`).
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.core.config import Settings
    from app.core.protocols import FaceIndex
    from app.core.types import ModelPack

__all__ = [
    "alias_path",
    "clear_restore",
    "collection_exists",
    "index_exists",
    "is_same",
    "made_by",
    "open_beside",
    "open_index",
    "readable_copy",
    "restore_embedded",
    "switch_to",
    "wait_until_left",
]

_READABLE: Final = ".restore"  # in the state folder


def open_index(settings: Settings, pack: ModelPack, *, create: bool = True) -> FaceIndex:
    """The index that the settings name, for embeddings of this model.

    With `create` false an index that does not exist yet is `not_found`. Raises OceanoError `invalid_setting`,
    `index_model_mismatch` (the index was made by another model), `index_unavailable`, `not_found`, `disk_full`.
    """
    if settings.qdrant_url:
        from app.index.server.connect import open_server

        return open_server(settings, pack, create=create)
    from app.index.embedded.alias import open_embedded

    return open_embedded(settings, pack, create=create)


def alias_path(root: Path, alias: str) -> Path:
    """The file in `root` that says which collection an embedded index is."""
    return root / f"{alias}.alias.json"


def index_exists(settings: Settings) -> bool:
    """Is there an embedded index of this name already?"""
    return alias_path(settings.embedded_dir, settings.qdrant_collection).exists()


def made_by(settings: Settings) -> dict[str, str] | None:
    """`collection`, `model` and `digest` of the embedded index; None where there is none.

    Raises OceanoError `index_unavailable` (damaged).
    """
    from app.index.embedded.alias import read_alias

    return read_alias(alias_path(settings.embedded_dir, settings.qdrant_collection))


def is_same(one: FaceIndex, other: FaceIndex) -> bool:
    """Do two ways lead to one collection of one server?"""
    from app.index.server.client import ServerIndex

    return isinstance(one, ServerIndex) and isinstance(other, ServerIndex) and one.made() == other.made()


def collection_exists(settings: Settings, pack: ModelPack) -> bool:
    """Is there an embedded collection for this model, whatever the alias stands for, and if it is lost?"""
    from app.core.types import collection_name

    return (settings.embedded_dir / collection_name(settings.qdrant_collection, pack) / "current").exists()


def wait_until_left(settings: Settings) -> None:
    """Until no process is on an embedded index any more, so that its files may be moved or removed."""
    from app.index.embedded.storage import wait_until_left as wait

    for folder in settings.embedded_dir.glob("*/"):
        wait(folder)


def restore_embedded(settings: Settings, folder: Path) -> None:
    """Put what `FaceIndex.backup` made in `folder` where the embedded index is kept; there must be none yet."""
    from app.index.embedded.backup import restore

    restore(folder, settings.embedded_dir, settings.qdrant_collection)


@contextmanager
def readable_copy(settings: Settings, folder: Path) -> Iterator[Settings]:
    """The settings of a copy of what `FaceIndex.backup` made, for as long as it is read: reading an index writes."""
    place = settings.state_dir / f"{_READABLE}.{os.getpid()}"
    copied = settings.model_copy(update={"data_dir": place, "qdrant_url": ""})
    try:
        restore_embedded(copied, folder)
        yield copied
    finally:
        wait_until_left(copied)
        shutil.rmtree(place, ignore_errors=True)


def clear_restore(settings: Settings) -> None:
    """Remove the copies that a killed restore left; call as the only writer."""
    for left in (*settings.embedded_dir.glob(".*.partial"), *settings.state_dir.glob(f"{_READABLE}.*")):
        shutil.rmtree(left, ignore_errors=True)


def open_beside(settings: Settings, pack: ModelPack) -> FaceIndex:
    """The collection of this model beside the one that serves, made if it is not there; `switch_to` makes it serve."""
    if settings.qdrant_url:
        from app.index.server.connect import open_server_beside

        return open_server_beside(settings, pack)
    from app.index.embedded.alias import open_embedded_beside

    return open_embedded_beside(settings, pack)


def switch_to(settings: Settings, pack: ModelPack) -> None:
    """Let the alias stand for this model's collection; whoever opens the index from now on gets that."""
    if settings.qdrant_url:
        from app.index.server.connect import switch_server

        return switch_server(settings, pack)
    from app.index.embedded.alias import switch_embedded

    return switch_embedded(settings, pack)
