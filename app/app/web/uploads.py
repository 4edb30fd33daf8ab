"""A multipart body becomes pictures and fields."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.core.concurrency import Threads
from app.core.errors import OceanoError, is_full
from app.core.types import Picture
from app.images.decode import decode
from app.web.errors import too_large
from app.web.limits import UNTIL_ANSWERED

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


class Decoding:
    """As many pictures as there are processors are decoded at once.

    A request takes one of the `places` before its upload is read into memory, and gives it back with its answer:
    a decoded picture can take 200 MB, so few may wait for the model. There is a place for each thread that decodes
    and for each of the `searching` threads.
    """

    def __init__(self, searching: int) -> None:
        processors = os.cpu_count() or 1
        self.threads = Threads(processors, "decode")
        self.places = asyncio.Semaphore(processors + searching)

    def close(self) -> None:
        self.threads.close()


async def read_upload(request: Request) -> Upload:
    """The one picture `image` and the other fields; a query parameter counts as a field.

    Raises OceanoError `invalid_request`, `invalid_image`, `unsupported_image`, `image_too_large`.
    """
    uploads = await read_uploads(request, ("image",))
    return Upload(uploads.pictures[0], uploads.fields, uploads.decode_ms)


async def read_uploads(request: Request, names: tuple[str, ...]) -> Uploads:
    """The pictures of these names; decoded off the event loop, as many at once as there are processors."""
    data, fields = await _read_form(request, names)
    decoding: Decoding = request.app.state.decoding
    settings = request.app.state.settings
    read = partial(decode, max_pixels=settings.max_image_pixels, enough=settings.enough)
    start = time.perf_counter()
    pictures = []
    for one in data:
        pictures.append(await decoding.threads.run(read, one))
    decode_ms = (time.perf_counter() - start) * 1000
    request.app.state.metrics.stage.labels("decode").observe(decode_ms / 1000)
    return Uploads(tuple(pictures), fields, decode_ms)


async def _read_form(request: Request, names: tuple[str, ...]) -> tuple[list[bytes], dict[str, str]]:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise OceanoError("invalid_request", f"send multipart/form-data with the file {_quoted(names)}")
    try:
        async with request.form(max_files=len(names), max_fields=_MAX_FIELDS) as form:
            files = _files(form, names, request.app.state.settings.max_upload_bytes)
            fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
            until_answered: contextlib.AsyncExitStack = request.scope[UNTIL_ANSWERED]
            await until_answered.enter_async_context(request.app.state.decoding.places)
            return [await file.read() for file in files], {**request.query_params, **fields}
    except HTTPException as failure:  # what Starlette's parser says of a malformed body
        raise OceanoError("invalid_request", str(failure.detail)) from failure
    except OSError as failure:  # a large upload waits in a temporary file
        if is_full(failure):
            raise OceanoError("disk_full", "no room for the upload in the temporary folder") from failure
        raise


def _files(form: FormData, names: tuple[str, ...], max_bytes: int) -> list[UploadFile]:
    sent = {name: value for name, value in form.multi_items() if isinstance(value, UploadFile)}
    if any((file.size or 0) > max_bytes for file in sent.values()):
        raise too_large(max_bytes)
    missing = [name for name in names if name not in sent or not sent[name].size]
    if missing:
        raise OceanoError(
            "invalid_request", f"the file {_quoted(missing)} is missing or empty", details={"missing": [*missing]}
        )
    return [sent[name] for name in names]


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
