"""What distinguishes an index from all others: a random id that is made with its collection."""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.core.config import Settings
from app.core.protocols import FaceIndex
from app.core.types import ModelPack, collection_name

_FILE: Final = "identity"  # in the folder of an embedded collection


def identity_of(settings: Settings, pack: ModelPack, index: FaceIndex) -> tuple[str, str] | None:
    """Return a random id of an open index, and how messages name it.

    Args:
        settings: which index.
        pack: the model.
        index: the index that these name.

    Returns:
        None for an index in memory, and for a collection on a server that an earlier version made.

    Raises:
        OceanoError: `index_unavailable`.
        OSError: the file of the id cannot be written or read.
    """
    from app.index.embedded.client import EmbeddedIndex
    from app.index.server.client import ServerIndex

    if isinstance(index, ServerIndex):
        number, since = index.identity()
        return (f"{number} {since}", f"QDRANT_URL={settings.qdrant_url}") if number else None
    if isinstance(index, EmbeddedIndex):
        folder = settings.embedded_dir / collection_name(settings.qdrant_collection, pack)
        return _id_in(folder), f"DATA_DIR={settings.data_dir} on {socket.gethostname()} (embedded)"
    return None


def _id_in(folder: Path) -> str:
    path = folder / _FILE
    with suppress(FileNotFoundError):
        return path.read_text(encoding="ascii")
    temporary = folder / f".{_FILE}.{uuid.uuid4().hex}"
    temporary.write_text(str(uuid.uuid4()), encoding="ascii")
    try:
        os.link(temporary, path)  # fails if another process was faster
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_text(encoding="ascii")
