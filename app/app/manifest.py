"""What a backup says of itself, `backup.json`: which index and model it is of, and the digests of its files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from app import __version__
from app.config import Settings
from app.errors import OceanoError
from app.types import ModelPack

_FORMAT: Final = 1
_NAME: Final = "backup.json"
_DIGESTED: Final = ("state", "qdrant_storage")  # thumbnails can be drawn anew


def write_manifest(backup: Path, settings: Settings, pack: ModelPack, *, faces: int, thumbnails: int) -> None:
    """Describe what is in a backup's folder now."""
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
    """What a backup of this index and model says of itself.

    Raises OceanoError `not_found`, `invalid_request`, `index_model_mismatch`.
    """
    try:
        found = json.loads((backup / _NAME).read_text(encoding="utf-8"))
        if found["format"] != _FORMAT:
            raise OceanoError("invalid_request", f"{backup} was made by a newer Oceano ({found.get('oceano')})")
        if not {"collection", "model", "digest"} <= found.keys() or not isinstance(found.get("files", {}), dict):
            raise ValueError("it does not say of which index and model it is")
    except FileNotFoundError:
        raise OceanoError("not_found", f"{backup} is no backup: it has no {_NAME}") from None
    except (ValueError, KeyError, TypeError, OSError) as failure:
        raise OceanoError("invalid_request", f"{backup / _NAME} is damaged: {failure}") from failure
    if found["collection"] != settings.qdrant_collection:
        raise OceanoError(
            "invalid_request",
            f"the backup is of the index {found['collection']!r}; set QDRANT_COLLECTION={found['collection']}",
        )
    if found["digest"] != pack.digest:
        raise OceanoError(
            "index_model_mismatch",
            f"the backup was made with the model {found['model']} ({found['digest'][:8]}), MODEL_NAME is "
            f"{pack.name} ({pack.short_digest})",
            details={"index_digest": found["digest"], "given_digest": pack.digest},
        )
    return dict(found)


def require_undamaged(backup: Path, manifest: dict[str, Any]) -> None:
    """Every file is as it was written; backups of before there were digests are believed.

    Raises OceanoError `invalid_request`.
    """
    for name, digest in manifest.get("files", {}).items():
        path = backup / name
        if not path.is_file():
            raise OceanoError("invalid_request", f"{backup} is not a whole backup: {path} is missing")
        try:
            found = _digest(path)
        except OSError as failure:
            raise OceanoError("invalid_request", f"{path} cannot be read: {failure.strerror or failure}") from failure
        if found != digest:
            raise OceanoError("invalid_request", f"{backup} is damaged: {path} is not as it was written")


def _files(backup: Path) -> Iterator[Path]:
    for part in _DIGESTED:
        for base, _, names in os.walk(backup / part):
            yield from (path for name in sorted(names) if (path := Path(base, name)).is_file())  # no sockets


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
