"""Entity tags: what a client has already, and which version a request saw."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from fastapi import Request
from pydantic import BaseModel

from app.core.errors import OceanoError

_VERSION: Final = re.compile(r'"([0-9]{1,16})(?:-[0-9a-f]{8})?"')


def etag_of(version: int, shown: BaseModel) -> str:
    """Return the entity tag of what is shown of a version: an ingest changes the number of faces, not the version."""
    digest = hashlib.sha256(shown.model_dump_json().encode()).hexdigest()
    return f'"{version}-{digest[:8]}"'


def is_known(request: Request, etag: str) -> bool:
    """Return whether the client has what an entity tag names (`If-None-Match`)."""
    sent = request.headers.get("if-none-match", "")
    return sent.strip() == "*" or etag in {one.strip().removeprefix("W/") for one in sent.split(",")}


def seen_version(request: Request) -> int | None:
    """Return the version in `If-Match`; None if there is no such header.

    Raises:
        OceanoError: `invalid_request` if it has no version, or several.
    """
    sent = request.headers.get("if-match")
    if sent is None:
        return None
    if (found := _VERSION.fullmatch(sent.strip())) is None:
        raise OceanoError(
            "invalid_request",
            'If-Match must be the ETag of the person that you saw, such as "3"',
            details={"field": "If-Match"},
        )
    return int(found[1])
