"""Multipart uploads: reads the files of a request and decodes them to pictures."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.core.concurrency import Admission, Threads
from app.core.config import Settings
from app.core.errors import OceanoError, is_full
from app.core.types import Picture
from app.images import DecoderPool
from app.service import MAX_CURSOR_CHARS
from app.web.errors import too_large

_MAX_FIELDS: Final = 100
_MAX_FIELD_BYTES: Final = 64_000  # fields are kept in memory
_CHARSETS: Final = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"latin-1"})
_DECODE_SECONDS: Final = 4.0  # for one upload, in a decoder process
_WAIT_SECONDS: Final = 2.0  # of a large image for other large ones

_MAX_ORIGINALS: Final = 64  # that wait or are decoded

Options = TypeVar("Options")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Upload(Generic[Options]):
    """A request's pictures, in the order of the file names asked for, and its other fields.

    `took_ms` has the milliseconds of decoding as "decode"; later stages add theirs. `hashes` are the SHA-256 of the
    files.
    """

    pictures: tuple[Picture, ...]
    options: Options
    took_ms: dict[str, float]
    hashes: tuple[str, ...] = ()

    @property
    def picture(self) -> Picture:
        """The only picture of an upload of one file."""
        (picture,) = self.pictures
        return picture


@dataclass(frozen=True, slots=True)
class Photographs(Generic[Options]):
    """The photographs of one field, which are decoded one after another, and the other fields of the request.

    Attributes:
        options: made of the other fields.
        files: the photographs that are not decoded yet; a large one is in a temporary file.
        took_ms: as in `Upload`.
        hashes: SHA-256 of the files that were decoded.
    """

    options: Options
    files: list[UploadFile]
    took_ms: dict[str, float]
    _request: Request
    _admission: Admission
    hashes: list[str] = field(default_factory=list)

    async def decode_next(self) -> Picture:
        """Decode the next photograph; drop it before the next call, because it may take 200 MB.

        Raises:
            OceanoError: `invalid_image`, `unsupported_image`, `image_too_large`, `overloaded`.
        """
        file = self.files.pop(0)
        self._admission.release()  # that of the photograph before
        picture, milliseconds, digest = await _decoded(self._request, await file.read(), self._admission)
        self.hashes.append(digest)
        self.took_ms["decode"] = self.took_ms.get("decode", 0.0) + milliseconds
        return picture


class Decoding:
    """Decodes uploads, one per processor at a time, and has slots that limit the decoded pictures in memory.

    A decoded picture can take 200 MB, so a request waits for a slot before its upload is read into memory, and keeps
    it until it has been answered. There is a slot for each processor and for each search thread, and a thread for each
    slot, so that a large picture that waits for others delays no small one.
    """

    def __init__(self, search_threads: int) -> None:
        processors = os.cpu_count() or 1
        self.threads = Threads(processors + search_threads, "decode")
        self.decoders = DecoderPool(processors, seconds=_DECODE_SECONDS, wait_seconds=_WAIT_SECONDS)
        self.slots = asyncio.Semaphore(processors + search_threads)
        self._original_threads = Threads(max(1, processors // 2), "originals")
        self._originals = 0

    async def original(self, work: Callable[[], Result]) -> Result:
        """Run work that decodes an original, such as for a preview, apart from the uploads of searches.

        Raises:
            OceanoError: `overloaded` if too many wait already; and what `work` raises.
        """
        if self._originals >= _MAX_ORIGINALS:
            raise OceanoError("overloaded", "too many previews are being drawn; try again soon", retry_after=2)
        self._originals += 1
        try:
            return await self._original_threads.run(work)
        finally:
            self._originals -= 1

    def close(self) -> None:
        """Stop the threads and the decoder processes."""
        self.threads.close()
        self._original_threads.close()
        self.decoders.close()


@asynccontextmanager
async def read_upload(
    request: Request, names: Sequence[str], read_options: Callable[[Mapping[str, str | list[str]]], Options]
) -> AsyncIterator[Upload[Options]]:
    """Read and decode the files of a multipart body; the pictures may be used until the context ends.

    Args:
        request: its body is multipart/form-data.
        names: the fields that hold the files; other files are an error.
        read_options: makes the options of all other fields as text; a query parameter counts as a field.

    Raises:
        OceanoError: `invalid_request`, `invalid_image`, `unsupported_image`, `image_too_large`, `overloaded`,
            `disk_full`, and what `read_options` raises.
    """
    settings = request.app.state.settings
    decoding: Decoding = request.app.state.decoding
    async with AsyncExitStack() as held:
        async with _parsed_form(request, names) as form:
            files = _files(form, names, settings.max_upload_bytes)
            options = read_options(_text_fields(request, form))
            await held.enter_async_context(decoding.slots)
            data = [await file.read() for file in files]
        admission = held.enter_context(closing(decoding.decoders.admission()))
        start = time.perf_counter()
        pictures, hashes = [], []
        while data:  # each file's bytes are freed once it is decoded
            picture, digest = await decoding.threads.run(_decode, decoding, settings, data.pop(0), admission)
            pictures.append(picture)
            hashes.append(digest)
        decode_ms = (time.perf_counter() - start) * 1000
        request.app.state.metrics.stage.labels("decode").observe(decode_ms / 1000)
        yield Upload(tuple(pictures), options, {"decode": decode_ms}, tuple(hashes))


@asynccontextmanager
async def read_photographs(
    request: Request, name: str, most: int, read_options: Callable[[Mapping[str, str | list[str]]], Options]
) -> AsyncIterator[Photographs[Options]]:
    """Read a form with any number of photographs in one field, or with none.

    Args:
        request: its body is a form, multipart or URL-encoded.
        name: the field; a file chooser in which nothing was chosen counts as none.
        most: the largest number of photographs.
        read_options: as in `read_upload`.

    Raises:
        OceanoError: `invalid_request`, `image_too_large`, `disk_full`, and what `read_options` raises.
    """
    settings = request.app.state.settings
    decoding: Decoding = request.app.state.decoding
    _check_charset(request)
    async with AsyncExitStack() as held:
        with _explained():
            form = await request.form(max_files=most, max_fields=_MAX_FIELDS, max_part_size=MAX_CURSOR_CHARS)
        held.push_async_callback(form.close)
        files = _photographs(form, name, settings.max_upload_bytes)
        options = read_options(_text_fields(request, form))
        if files:
            await held.enter_async_context(decoding.slots)
        admission = held.enter_context(closing(decoding.decoders.admission()))
        yield Photographs(options, files, {}, request, admission)


async def _decoded(request: Request, data: bytes, admission: Admission) -> tuple[Picture, float, str]:
    """Decode a file; returns the picture, the milliseconds that it took, and the SHA-256 of the file."""
    settings = request.app.state.settings
    decoding: Decoding = request.app.state.decoding
    start = time.perf_counter()
    picture, digest = await decoding.threads.run(_decode, decoding, settings, data, admission)
    milliseconds = (time.perf_counter() - start) * 1000
    request.app.state.metrics.stage.labels("decode").observe(milliseconds / 1000)
    return picture, milliseconds, digest


def _decode(decoding: Decoding, settings: Settings, data: bytes, admission: Admission) -> tuple[Picture, str]:
    """Decode a file; returns the picture, and the SHA-256 of the file, for the audit log."""
    digest = hashlib.sha256(data).hexdigest()
    picture = decoding.decoders.decode(
        data,
        max_pixels=settings.max_image_pixels,
        min_decoded_side=settings.min_decoded_side,
        admission=admission,
    )
    return picture, digest


async def read_fields(request: Request, *, most: int = _MAX_FIELDS) -> dict[str, str | list[str]]:
    """Read a form without files, multipart or URL-encoded.

    Args:
        request: a query parameter counts as a field.
        most: the largest number of fields.

    Returns:
        The fields; one that was sent several times has a list.

    Raises:
        OceanoError: `invalid_request`.
    """
    _check_charset(request)
    try:
        async with request.form(max_files=0, max_fields=most, max_part_size=MAX_CURSOR_CHARS) as form:
            return _text_fields(request, form)
    except HTTPException as failure:  # Starlette's parser
        raise OceanoError("invalid_request", str(failure.detail)) from failure


@asynccontextmanager
async def _parsed_form(request: Request, names: Sequence[str]) -> AsyncIterator[FormData]:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise OceanoError("invalid_request", f"send multipart/form-data with the file {_quoted(names)}")
    _check_charset(request)
    async with _form(request, max_files=len(names), max_part_size=_MAX_FIELD_BYTES) as form:
        yield form


@asynccontextmanager
async def _form(request: Request, *, max_files: int, max_part_size: int) -> AsyncIterator[FormData]:
    with _explained():
        async with request.form(max_files=max_files, max_fields=_MAX_FIELDS, max_part_size=max_part_size) as form:
            yield form


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the errors of Starlette's parser, and those of the temporary files, into errors of ours."""
    try:
        yield
    except HTTPException as failure:
        raise OceanoError("invalid_request", str(failure.detail)) from failure
    except OSError as failure:  # a large upload is kept in a temporary file
        if is_full(failure):
            raise OceanoError("disk_full", "no room for the upload in the temporary folder") from failure
        raise


def _check_charset(request: Request) -> None:
    """Refuse other codecs of Python: some raise errors that Starlette does not catch, some decode to no valid text."""
    _, parameters = parse_options_header(request.headers.get("content-type", ""))
    charset = parameters.get(b"charset", b"utf-8")
    if charset.lower() not in _CHARSETS:
        raise OceanoError("invalid_request", "the charset of the form must be UTF-8")


def _text_fields(request: Request, form: FormData) -> dict[str, str | list[str]]:
    """Return the fields of form and query string; a name that the form has overrides the query string's."""
    fields: dict[str, str | list[str]] = {}
    for items in (request.query_params.multi_items(), form.multi_items()):
        values: dict[str, list[str]] = {}
        for name, value in items:
            if isinstance(value, str):
                values.setdefault(name, []).append(value)
        fields |= {name: sent[0] if len(sent) == 1 else sent for name, sent in values.items()}
    return fields


def _files(form: FormData, names: Sequence[str], max_bytes: int) -> list[UploadFile]:
    sent = {name: value for name, value in form.multi_items() if isinstance(value, UploadFile)}
    if any((file.size or 0) > max_bytes for file in sent.values()):
        raise too_large(max_bytes)
    missing = [name for name in names if name not in sent or not sent[name].size]
    if missing:
        raise OceanoError(
            "invalid_request", f"the file {_quoted(missing)} is missing or empty", details={"missing": [*missing]}
        )
    return [sent[name] for name in names]


def _photographs(form: FormData, name: str, max_bytes: int) -> list[UploadFile]:
    sent = [(field, file) for field, file in form.multi_items() if isinstance(file, UploadFile)]
    files = [(field, file) for field, file in sent if file.size or file.filename]
    if any((file.size or 0) > max_bytes for _, file in files):
        raise too_large(max_bytes)
    for sent_as, file in files:
        if sent_as != name:
            raise OceanoError("invalid_request", f"this request has no file `{sent_as[:64]}`, only {_quoted([name])}")
        if not file.size:
            raise OceanoError("invalid_request", f"a file {_quoted([name])} is empty", details={"empty": [name]})
    return [file for _, file in files]


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
