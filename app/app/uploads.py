"""A multipart body becomes pictures and fields."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from app.errors import OceanoError
from app.images import decode
from app.middleware import too_large
from app.threads import Threads
from app.types import Picture

_MAX_FIELDS: Final = 40


@dataclass(frozen=True, slots=True)
class Upload:
    """What a client sent: the picture, the other fields as text, and the milliseconds that decoding took."""

    picture: Picture
    fields: Mapping[str, str]
    decode_ms: float


@dataclass(frozen=True, slots=True)
class Uploads:
    """Several pictures of one request, in the order asked for."""

    pictures: tuple[Picture, ...]
    fields: Mapping[str, str]
    decode_ms: float


async def read_upload(request: Request) -> Upload:
    """The one picture `image` and the other fields; a query parameter counts as a field.

    Raises OceanoError `invalid_request`, `invalid_image`, `unsupported_image`, `image_too_large`.
    """
    uploads = await read_uploads(request, ("image",))
    return Upload(uploads.pictures[0], uploads.fields, uploads.decode_ms)


async def read_uploads(request: Request, names: tuple[str, ...]) -> Uploads:
    """The pictures of these names; decoded off the event loop, as many at once as there are processors."""
    data, fields = await _read_form(request, names)
    decoding: Threads = request.app.state.decoding
    max_pixels = request.app.state.settings.max_image_pixels
    start = time.perf_counter()
    pictures = []
    for one in data:
        pictures.append(await decoding.run(decode, one, max_pixels=max_pixels))
    decode_ms = (time.perf_counter() - start) * 1000
    request.app.state.metrics.stage.labels("decode").observe(decode_ms / 1000)
    return Uploads(tuple(pictures), fields, decode_ms)


def decoding_threads() -> Threads:
    """As many pictures as there are processors are decoded at once: memory is bounded by it, too."""
    return Threads(os.cpu_count() or 1, "decode")


async def _read_form(request: Request, names: tuple[str, ...]) -> tuple[list[bytes], dict[str, str]]:
    max_bytes = request.app.state.settings.max_upload_bytes
    wanted = _quoted(names)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise OceanoError("invalid_request", f"send multipart/form-data with the file {wanted}")
    fields = dict(request.query_params)
    files: dict[str, bytes] = {}
    try:
        async with request.form(max_files=len(names), max_fields=_MAX_FIELDS) as form:
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    fields[name] = value
                elif (value.size or 0) > max_bytes:
                    raise too_large(max_bytes)
                else:
                    files[name] = await value.read()
    except HTTPException as failure:  # what Starlette's parser says of a malformed body
        raise OceanoError("invalid_request", str(failure.detail)) from failure
    except OSError as failure:  # a large upload waits in a temporary file
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OceanoError("disk_full", "no room for the upload in the temporary folder") from failure
        raise
    missing = [name for name in names if not files.get(name)]
    if missing:
        raise OceanoError(
            "invalid_request", f"the file {_quoted(missing)} is missing or empty", details={"missing": [*missing]}
        )
    return [files[name] for name in names], fields


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
