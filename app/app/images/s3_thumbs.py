"""Thumbnails in an S3 store, which several machines share."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from app.core.errors import OceanoError
from app.core.iteration import chunks
from app.images.s3_client import S3Location, code_of, is_unreachable, open_client, store_error
from app.images.thumbnails import MEDIA_TYPE, thumb_name

CONCURRENT: Final = 32  # requests in the background; and as many in the threads of callers
MOST_WAITING: Final = 256  # thumbnails of `write_soon`, about 1.5 MB
KEYS_AT_ONCE: Final = 1000  # S3 lists and deletes no more in one request
RETRY_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 5.0  # after the store was unreachable, until it is read again
_FEW: Final = 4  # keys that are not worth a listing
_NAME: Final = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{6}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jpg")

_Result = TypeVar("_Result")


class S3ThumbStore:
    """Thumbnails as objects `PREFIX/ab/abcd....jpg`, the names of the files of `ThumbStore`. Implements `Thumbs`.

    Reads give up after some seconds, and fail at once for a while after the store was unreachable, so that a page with
    many thumbnails does not wait for each of them. Writes of `write_soon` are retried for a minute.

    Args:
        location: of the store.
        previews: folder of the previews on this machine.

    Raises:
        OceanoError: `invalid_setting` if the configuration of boto3 is wrong. Whether the store works shows in use.
    """

    def __init__(self, location: S3Location, previews: Path) -> None:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        self._errors: Final = (BotoCoreError, ClientError, ResponseParserError)
        self._location = location
        self._previews = previews
        self._prefix = f"{location.prefix}/" if location.prefix else ""
        self._client = open_client(location, connections=2 * CONCURRENT, patient=True)
        self._reader = open_client(location, connections=2 * CONCURRENT, patient=False)
        self._pool = ThreadPoolExecutor(CONCURRENT, thread_name_prefix="thumbs")
        self._writes = _Writes(self._pool)
        self._unreachable: tuple[float, OceanoError] | None = None  # until when, and why

    @property
    def previews(self) -> Path:
        """The folder of this machine's previews."""
        return self._previews

    def write(self, face_id: str, jpeg: bytes) -> None:
        """Store a thumbnail; see `Thumbs`."""
        self._put(self._key(face_id), jpeg)

    def write_soon(self, face_id: str, jpeg: bytes) -> None:
        """Store a thumbnail in the background, so that an ingest does not wait for the network; see `Thumbs`."""
        self._writes.submit(self._put_patiently, self._key(face_id), jpeg)

    def flush(self) -> None:
        """Wait for the thumbnails of `write_soon`; see `Thumbs`."""
        self._writes.flush()

    def read(self, face_id: str) -> bytes | None:
        """Return a thumbnail; see `Thumbs`."""
        key = self._key(face_id)
        if (unreachable := self._unreachable) is not None:
            if time.monotonic() < unreachable[0]:
                error = unreachable[1]
                raise OceanoError(error.code, error.message, details=error.details, retry_after=error.retry_after)
            self._unreachable = None
        try:
            answer = self._reader.get_object(Bucket=self._location.bucket, Key=key)
            with closing(answer["Body"]) as body:
                self._require_field("ETag", answer, "read")
                jpeg: bytes = body.read()
        except self._errors as failure:
            if code_of(failure) == "NoSuchKey":
                return None
            error = store_error(failure, self._location, "read")
            if is_unreachable(failure):
                self._unreachable = (time.monotonic() + PAUSE_SECONDS, error)
            raise error from failure
        return jpeg or None

    def read_many(self, face_ids: Sequence[str]) -> list[bytes | None]:
        """Return thumbnails, read at the same time; see `Thumbs`."""
        return list(self._pool.map(self.read, face_ids))

    def missing(self, face_ids: Sequence[str]) -> set[str]:
        """Return the faces without a thumbnail; see `Thumbs`.

        Lists the keys from the first one on, which finds neighbours with few requests, and asks for each of the rest.
        """
        unseen = {self._key(face_id): face_id for face_id in face_ids}
        if len(unseen) > _FEW:
            first, last = min(unseen), max(unseen)
            for page in islice(self._listed(first.removesuffix(".jpg")), 1 + len(unseen) // KEYS_AT_ONCE):
                for key, size in page:
                    if size:
                        unseen.pop(key, None)
                if page and page[-1][0] >= last:
                    break
        found = self._pool.map(self._has_content, unseen)
        return {face_id for face_id, there in zip(unseen.values(), found, strict=True) if not there}

    def face_ids(self) -> Iterator[str]:
        """Yield the face id of each thumbnail; see `Thumbs`."""
        for page in self._listed():
            for key, _ in page:
                if match := _NAME.fullmatch(key.removeprefix(self._prefix)):
                    yield match[2]

    def delete(self, face_ids: Iterable[str]) -> None:
        """Delete thumbnails, up to 1,000 in one request; see `Thumbs`."""
        for some in chunks((self._key(face_id) for face_id in face_ids), KEYS_AT_ONCE):
            objects = {"Objects": [{"Key": key} for key in some], "Quiet": True}
            answer = self._request("deleted", self._client.delete_objects, Delete=objects)
            if failed := answer.get("Errors"):
                raise store_error(self._client_error(failed[0]), self._location, "deleted")

    def _key(self, face_id: str) -> str:
        return self._prefix + thumb_name(face_id)

    def _put(self, key: str, jpeg: bytes) -> None:
        answer = self._request("written", self._client.put_object, Key=key, Body=jpeg, ContentType=MEDIA_TYPE)
        self._require_field("ETag", answer, "written")

    def _put_patiently(self, key: str, jpeg: bytes) -> None:
        """Store a thumbnail; an ingest outlives a restart of the store."""
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

        Retrying(
            retry=retry_if_exception(lambda failure: getattr(failure, "retry_after", None) is not None),
            stop=stop_after_delay(RETRY_SECONDS),
            wait=wait_random_exponential(max=5),
            reraise=True,
        )(self._put, key, jpeg)

    def _has_content(self, key: str) -> bool:
        try:
            head = self._client.head_object(Bucket=self._location.bucket, Key=key)
        except self._errors as failure:
            if code_of(failure) in ("404", "NoSuchKey"):
                return False
            raise store_error(failure, self._location, "listed") from failure
        return bool(head["ContentLength"])

    def _listed(self, after: str = "") -> Iterator[list[tuple[str, int]]]:
        """Yield the keys and sizes of objects, in the order of the keys, a page at a time."""
        start = {"StartAfter": after} if after else {}
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._location.bucket, Prefix=self._prefix, **start
        )
        try:
            for page in pages:
                self._require_field("IsTruncated", page, "listed")
                yield [(one["Key"], one["Size"]) for one in page.get("Contents", ())]
        except self._errors as failure:
            raise store_error(failure, self._location, "listed") from failure

    def _request(self, work: str, call: Callable[..., _Result], **arguments: Any) -> _Result:
        try:
            return call(Bucket=self._location.bucket, **arguments)
        except self._errors as failure:
            raise store_error(failure, self._location, work) from failure

    def _require_field(self, name: str, answer: Mapping[str, Any], work: str) -> None:
        """Check a field that every S3 store sends: a web server may answer anything with 200 and a page."""
        if name not in answer:
            from botocore.parsers import ResponseParserError

            raise store_error(ResponseParserError(f"no {name}"), self._location, work)

    @staticmethod
    def _client_error(failed: dict[str, Any]) -> Exception:
        from botocore.exceptions import ClientError

        error: Exception = ClientError({"Error": failed}, "DeleteObjects")
        return error


class _Writes:
    """Calls in the background that must have succeeded at the next `flush`.

    Args:
        pool: runs them.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._room = threading.Semaphore(MOST_WAITING)
        self._lock = threading.Lock()
        self._unflushed: set[Future[None]] = set()  # running, waiting or failed
        self._failed = False

    def submit(self, work: Callable[[str, bytes], None], key: str, jpeg: bytes) -> None:
        """Run `work` soon; waits while many calls wait. Raises the error of an earlier one."""
        if self._failed:
            self.flush()
        self._room.acquire()
        try:
            future = self._pool.submit(work, key, jpeg)
        except BaseException:
            self._room.release()
            raise
        with self._lock:
            self._unflushed.add(future)
        future.add_done_callback(self._finish)

    def flush(self) -> None:
        """Wait for all calls so far. If one failed, cancel those that have not begun, and raise its error."""
        with self._lock:
            waiting = set(self._unflushed)
        done, _ = wait(waiting, return_when=FIRST_EXCEPTION)
        failed = [future for future in done if not future.cancelled() and future.exception() is not None]
        if not failed:
            return
        with self._lock:  # each of the others might fail after a minute, too
            waiting, self._unflushed, self._failed = self._unflushed, set(), False
        for future in waiting:
            future.cancel()
        wait(waiting)
        failed[0].result()

    def _finish(self, future: Future[None]) -> None:
        self._room.release()
        with self._lock:
            if future.cancelled():
                return
            if future.exception() is not None:
                self._failed = True
            else:
                self._unflushed.discard(future)
