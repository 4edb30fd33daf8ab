"""The face index: opening, activating, backing up and restoring it.

`app.core.protocols.FaceIndex` is the interface. There are two kinds: embedded (default), and on a Qdrant server
(QDRANT_URL). Both use `base` (checks, large requests in parts) and `payload` (conversion of payloads).

On a server (`server/`): `connect` (connection, collection, alias), `client` (requests), `retry` (which errors are
retried).

The embedded index (`embedded/`) consists of several processes on one folder:

- clients (`client`, `connections`): the service, an ingest, any number of them;
- one owner (`owner`): listens on a Unix socket, runs writes one at a time and decides when to build the graph. It never
  calls Edge, so nothing blocks it;
- a worker (`worker`): has the shard (`shard`) open. Every call of Edge holds the GIL, so it is a separate process; a
  second worker opens the shard with a new graph;
- during a build, a builder (`worker build`): builds the HNSW graph on a copy of the shard (`build`).
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
    "activate_collection",
    "active_collection",
    "alias_path",
    "collection_exists",
    "damaged_files",
    "identity_of",
    "index_exists",
    "is_same",
    "open_index",
    "open_model_collection",
    "other_collections",
    "rebuild_index",
    "remove_restore_leftovers",
    "restore_embedded",
    "restored_copy",
    "wait_until_left",
]

_RESTORED_COPY: Final = ".restore"  # beginning of the folder's name, in the state folder


def open_index(settings: Settings, pack: ModelPack, *, create: bool = True) -> FaceIndex:
    """Open the index that the settings name, for embeddings of a model.

    An index without faces changes to the model; one with faces of another model is refused.

    Args:
        settings: which index; QDRANT_URL decides the kind.
        pack: the model.
        create: create the index if there is none.

    Raises:
        OceanoError: `not_found` if there is no index and `create` is false, `index_model_mismatch` if another model
            made it, `index_unavailable`, `index_in_use`, `invalid_setting`, `disk_full`.
    """
    if settings.qdrant_url:
        from app.index.server.connect import open_server

        return open_server(settings, pack, create=create)
    from app.index.embedded.alias import open_embedded

    return open_embedded(settings, pack, create=create)


def alias_path(root: Path, alias: str) -> Path:
    """Return the file in `root` that names the collection of an embedded index."""
    return root / f"{alias}.alias.json"


def index_exists(settings: Settings) -> bool:
    """Return whether the embedded index of the settings exists; one whose folder was deleted does not."""
    from app.index.embedded.alias import has_index

    return has_index(alias_path(settings.embedded_dir, settings.qdrant_collection))


def active_collection(settings: Settings) -> dict[str, str] | None:
    """Return the active collection of the embedded index.

    Returns:
        `collection` (its name), `model` and `digest` of the model that made it; None if there is no index.

    Raises:
        OceanoError: `index_unavailable` if the alias file is damaged.
    """
    from app.index.embedded.alias import read_alias

    return read_alias(alias_path(settings.embedded_dir, settings.qdrant_collection))


def is_same(first: FaceIndex, second: FaceIndex) -> bool:
    """Return whether two indexes are the same collection of one server, perhaps at different addresses."""
    from app.index.server.client import ServerIndex

    return isinstance(first, ServerIndex) and isinstance(second, ServerIndex) and first.identity() == second.identity()


def identity_of(settings: Settings, pack: ModelPack, index: FaceIndex) -> tuple[str, str] | None:
    """Return a random id of an open index, and how messages name it; None for one that has no id.

    Raises:
        OceanoError: `index_unavailable`.
        OSError: the file with the id of an embedded index cannot be written or read.
    """
    from app.index.identity import identity_of

    return identity_of(settings, pack, index)


def collection_exists(settings: Settings, pack: ModelPack) -> bool:
    """Return whether an embedded collection for a model exists, even if the alias names another or is lost."""
    from app.core.types import collection_name

    return (settings.embedded_dir / collection_name(settings.qdrant_collection, pack) / "current").exists()


def other_collections(settings: Settings, collection: str) -> list[str]:
    """Return the names of all other embedded collections in the data folder, such as those of other models.

    Args:
        settings: name the data folder.
        collection: the full name of the collection that does not count.
    """
    found = (path.parent.name for path in settings.embedded_dir.glob("*/current"))
    return sorted(name for name in found if name != collection)


def wait_until_left(settings: Settings) -> None:
    """Wait until no process uses an embedded index, so that its files may be moved or removed.

    Raises:
        OceanoError: `index_in_use` after a minute.
    """
    from app.index.embedded.storage import wait_until_left as wait

    for folder in settings.embedded_dir.glob("*/"):
        wait(folder)


def damaged_files(settings: Settings, pack: ModelPack) -> list[str]:
    """Return the files of an embedded index that were damaged since its graph was built; an empty list for a server.

    Reads all of these files; the index may be in use.

    Raises:
        OceanoError: `index_unavailable` if the folder of the index is damaged.
    """
    if settings.qdrant_url:
        return []
    from app.core.types import collection_name
    from app.index.embedded.integrity import damaged_frozen_files
    from app.index.embedded.storage import current_shard

    shard = current_shard(settings.embedded_dir / collection_name(settings.qdrant_collection, pack))
    return [] if shard is None else damaged_frozen_files(shard)


def rebuild_index(settings: Settings, pack: ModelPack) -> int:
    """Build an embedded index again from the faces that can be read; the graph follows when it is opened.

    Returns:
        The number of faces that were kept.

    Raises:
        OceanoError: `index_in_use` if a process uses the index, `index_unavailable`, `disk_full`.
    """
    from app.core.types import collection_name
    from app.index.embedded.options import OwnerOptions
    from app.index.embedded.rebuild import rebuild

    folder = settings.embedded_dir / collection_name(settings.qdrant_collection, pack)
    return rebuild(OwnerOptions(folder, pack.embedding_size))


def restore_embedded(settings: Settings, folder: Path) -> None:
    """Restore a backup as the embedded index of the settings, which must not exist.

    Args:
        settings: where the index is to be.
        folder: what `FaceIndex.backup` created.

    Raises:
        OceanoError: `index_in_use` if the index exists, `disk_full`, `index_unavailable`.
    """
    from app.index.embedded.backup import restore

    restore(folder, settings.embedded_dir, settings.qdrant_collection)


@contextmanager
def restored_copy(settings: Settings, folder: Path) -> Iterator[Settings]:
    """Restore a backup into a temporary folder, because opening an index writes to its files.

    Args:
        settings: the temporary folder is in their state folder.
        folder: what `FaceIndex.backup` created.

    Yields:
        Settings that open the copy.

    Raises:
        OceanoError: see `restore_embedded`.
    """
    data_dir = settings.state_dir / f"{_RESTORED_COPY}.{os.getpid()}"
    copied = settings.model_copy(update={"data_dir": data_dir, "qdrant_url": ""})
    try:
        restore_embedded(copied, folder)
        yield copied
    finally:
        wait_until_left(copied)
        shutil.rmtree(data_dir, ignore_errors=True)


def remove_restore_leftovers(settings: Settings) -> None:
    """Remove the temporary folders of a restore that was killed; the caller must be the only writer."""
    for leftover in (*settings.embedded_dir.glob(".*.partial"), *settings.state_dir.glob(f"{_RESTORED_COPY}.*")):
        shutil.rmtree(leftover, ignore_errors=True)


def open_model_collection(settings: Settings, pack: ModelPack) -> FaceIndex:
    """Open a model's collection, active or not; create it if there is none.

    `activate_collection` makes it the index that `open_index` opens.

    Args:
        settings: which index; QDRANT_URL decides the kind.
        pack: the model.

    Raises:
        OceanoError: `index_unavailable`, `index_in_use`, `invalid_setting`, `disk_full`.
    """
    if settings.qdrant_url:
        from app.index.server.connect import open_server_collection

        return open_server_collection(settings, pack)
    from app.index.embedded.alias import open_embedded_collection

    return open_embedded_collection(settings, pack)


def activate_collection(settings: Settings, pack: ModelPack) -> None:
    """Make a model's collection the one that `open_index` opens; the previous collection is kept.

    An index that is open already stays on its collection.

    Args:
        settings: which index; QDRANT_URL decides the kind.
        pack: the model.

    Raises:
        OceanoError: `index_unavailable`, `invalid_setting`, `disk_full`.
    """
    if settings.qdrant_url:
        from app.index.server.connect import activate_server

        return activate_server(settings, pack)
    from app.index.embedded.alias import activate_embedded

    return activate_embedded(settings, pack)
