"""Errors that both kinds of index raise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from app.core.errors import ErrorCode, OceanoError, is_full

if TYPE_CHECKING:
    from app.core.types import ModelPack

_RETRY_AFTER_SECONDS: Final = 2.0


def unavailable(message: str) -> OceanoError:
    """Return an `index_unavailable` error with the usual `retry_after`."""
    return OceanoError("index_unavailable", message, retry_after=_RETRY_AFTER_SECONDS)


def storage_failure(failure: OSError, sentence: str) -> OceanoError:
    """Convert an OSError to `disk_full` or `index_unavailable`.

    Args:
        failure: the error; its reason is appended to the message.
        sentence: what failed, without a full stop.
    """
    code: ErrorCode = "disk_full" if is_full(failure) else "index_unavailable"
    return OceanoError(code, f"{sentence}: {failure.strerror or failure}.")


def model_mismatch(name: str, index_model: Mapping[str, str], size: int, pack: ModelPack, points: int) -> OceanoError:
    """Return the error `index_model_mismatch` for an index whose faces another model made.

    Args:
        name: the alias.
        index_model: `model` (name) and `digest` of the model that made the faces.
        size: the embedding size of that model.
        pack: the model of the settings.
        points: number of faces in the index.
    """
    return OceanoError(
        "index_model_mismatch",
        f"The index {name!r} holds {points} faces made by the model {index_model['model']} "
        f"({index_model['digest'][:8]}); the embeddings of {pack.name} ({pack.short_digest}) differ. Set "
        f"MODEL_NAME={index_model['model']} to keep using the index, change its model with `oceano reembed "
        f"--model {pack.name}`, or choose another QDRANT_COLLECTION.",
        details={
            "index_model": index_model["model"],
            "index_digest": index_model["digest"],
            "index_embedding_size": size,
            "given_model": pack.name,
            "given_digest": pack.digest,
            "points": points,
        },
    )
