"""The manifest of a backup, `backup.json`: its index, its model, and the digests of its files."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from app import __version__
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import ModelPack

_FORMAT: Final = 1
_NAME: Final = "backup.json"
_DIGESTED: Final = ("state", "qdrant_storage")  # not the thumbnails, which can be redrawn


def write_manifest(backup: Path, settings: Settings, pack: ModelPack, *, faces: int, thumbnails: int) -> None:
    """Write the manifest of a finished backup.

    Args:
        backup: the folder of the backup.
        settings: name the collection.
        pack: the model that made the index.
        faces: number of faces in the index.
        thumbnails: number of thumbnails.
    """
    manifest = {
        "format": _FORMAT,
        "oceano": __version__,
        "collection": settings.qdrant_collection,
        "model": pack.name,
        "digest": pack.digest,
        "faces": faces,
        "thumbnails": thumbnails,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": {str(path.relative_to(backup)): _digest(path) for path in _files(backup)},
    }
    (backup / _NAME).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_manifest(backup: Path, settings: Settings, pack: ModelPack) -> dict[str, Any]:
    """Read a backup's manifest and check that it fits this collection and model.

    Args:
        backup: the folder of the backup.
        settings: name the collection.
        pack: the model in use.

    Returns:
        The fields of `backup.json`.

    Raises:
        OceanoError: `not_found` if there is no manifest, `invalid_request` if it is damaged, of a newer version or of
            another collection, `index_model_mismatch`.
    """
    if not (backup / _NAME).is_file():
        raise OceanoError("not_found", f"{backup} is not a backup: it has no {_NAME}")
    try:
        found = json.loads((backup / _NAME).read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            raise OceanoError("invalid_request", f"{backup} was made by a newer Oceano ({found.get('oceano')})")
        if not all(isinstance(found[key], str) for key in ("collection", "model", "digest")):
            raise ValueError("the collection, the model or its digest is missing")
        if not isinstance(found.get("files", {}), dict):
            raise ValueError("the list of files is missing")
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as failure:
        raise OceanoError("invalid_request", f"{backup / _NAME} is damaged: {failure}") from failure
    if found["collection"] != settings.qdrant_collection:
        raise OceanoError(
            "invalid_request",
            f"the backup contains the index {found['collection']!r}; set QDRANT_COLLECTION={found['collection']}",
        )
    if found["digest"] != pack.digest:
        raise OceanoError(
            "index_model_mismatch",
            f"the backup was made with the model {found['model']} ({found['digest'][:8]}), but MODEL_NAME is "
            f"{pack.name} ({pack.short_digest})",
            details={"index_digest": found["digest"], "given_digest": pack.digest},
        )
    return dict(found)


def require_undamaged(backup: Path, manifest: dict[str, Any]) -> None:
    """Check that every file of a backup exists and is unchanged; older backups have no digests and are not checked.

    Args:
        backup: the folder of the backup.
        manifest: its manifest, as `read_manifest` returns it.

    Raises:
        OceanoError: `invalid_request` if a file is missing or has changed.
        OSError: a file cannot be read.
    """
    files = {str(path.relative_to(backup)): path for path in _files(backup)}
    for name, digest in manifest.get("files", {}).items():
        if name not in files:
            raise OceanoError("invalid_request", f"{backup} is incomplete: {name!r} is missing")
        if _digest(files[name]) != digest:
            raise OceanoError("invalid_request", f"{backup} is damaged: {files[name]} has changed")


def _files(backup: Path) -> Iterator[Path]:
    """Regular files only: no sockets, and no links, which a copy of the backup might not follow."""
    for part in _DIGESTED:
        for base, _, names in os.walk(backup / part):
            paths = (Path(base, name) for name in sorted(names))
            yield from (path for path in paths if stat.S_ISREG(path.lstat().st_mode))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
