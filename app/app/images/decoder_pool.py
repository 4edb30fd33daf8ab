"""Decodes images in processes of their own, which a hostile or broken file may crash, fill or hang."""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from functools import cache, partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

import app
from app.core.concurrency import Admission, Reservations
from app.core.errors import OceanoError
from app.core.types import Picture
from app.images.decoding import decode, image_id_of
from app.images.jpeg import is_plain_jpeg
from app.images.structure import declared_pixels

_log = logging.getLogger(__name__)

_SMALL_BYTES: Final = 200_000_000  # memory that every process may use for an image
_BYTES_PER_PIXEL: Final = 16  # memory of an image while it is decoded
_LARGE_BYTES: Final = 1_000_000_000  # memory of all images that need more than _SMALL_BYTES, unless one needs more
_LARGE_JPEG: Final = 24_000_000  # pixels of a plain JPEG that an admission counts as large
_WAITED_SHARE: Final = 0.9  # of its seconds: a decoder that used less of the CPU has waited for others
_USER_TIME, _SYSTEM_TIME = 11, 12  # fields of /proc/PID/stat after the name
_OVERLOADED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "code": "overloaded",
        "message": "other large images are being processed; try again in a moment",
        "retry_after": 2.0,
    }
)


class DecoderPool:
    """Processes that decode images, started as needed. Safe to call from several threads.

    Plain JPEG files (see `is_plain_jpeg`) are decoded in the calling thread, which is faster: libjpeg-turbo reads them.

    Args:
        processes: the largest number of processes; further calls wait for one.
        seconds: time for one image, both of the clock and of the CPU.
        wait_seconds: how long a large image waits for other large images; None: as long as they take.
    """

    def __init__(self, processes: int, *, seconds: float, wait_seconds: float | None = None) -> None:
        self._seconds = seconds
        self._wait_seconds = wait_seconds
        self._slots = threading.BoundedSemaphore(processes)
        self._lock = threading.Lock()
        self._large = Reservations(_LARGE_BYTES)
        self._idle: list[_DecoderProcess] = []

    def admission(self) -> Admission:
        """Return an admission for the large images of one request, to be closed at its end."""
        return Admission(self._large, self._wait_seconds)

    def decode(
        self,
        data: bytes,
        *,
        max_pixels: int,
        image_id: str | None = None,
        min_decoded_side: int | None = None,
        page: int = 0,
        name: str = "",
        admission: Admission | None = None,
    ) -> Picture:
        """Decode an image as `app.images.decode` does.

        Args:
            data: the file's bytes.
            max_pixels: as for `app.images.decode`.
            image_id: as for `app.images.decode`.
            min_decoded_side: as for `app.images.decode`.
            page: as for `app.images.decode`.
            name: the file's name, for the log.
            admission: holds what a large image needs beyond the decoding; None: only while it is decoded.

        Raises:
            OceanoError: as `app.images.decode`; `invalid_image` also if the decoder crashes, needs too much memory or
                takes too long; `overloaded` if a large image has waited for others for `wait_seconds`, or if its
                decoder has waited for the CPU.
        """
        image_id = image_id or image_id_of(data)
        if page == 0 and is_plain_jpeg(data):
            self._admit_jpeg(data, admission)
            with self._slots:
                return decode(data, max_pixels=max_pixels, image_id=image_id, min_decoded_side=min_decoded_side)
        reply, memory = self._run(data, max_pixels, min_decoded_side, page, admission)
        for warning in reply["warnings"][:1]:
            _log.info("%s: %s", name or image_id[:12], warning)
        if memory is None:
            raise OceanoError(**reply["error"])
        pixels = np.frombuffer(memory, np.uint8).reshape(reply["shape"])
        full = None
        if reply["scale"] < reply["full_scale"]:
            again = partial(
                self.decode,
                data,
                max_pixels=max_pixels,
                image_id=image_id,
                page=page,
                name=name,
                admission=admission,
            )
            full = cache(lambda: again().pixels)
        return Picture(
            image_id,
            pixels,
            reply["format"],
            reply["taken_at"],
            reply["width"],
            reply["height"],
            reply["scale"],
            full,
            reply["full_scale"],
            reply["frames"],
            reply["details"],
        )

    def close(self) -> None:
        """End the idle processes; a later call starts new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.kill()

    @staticmethod
    def _admit_jpeg(data: bytes, admission: Admission | None) -> None:
        """Admit a large JPEG, which needs little memory, but as much time of the model as any other large image."""
        pixels = declared_pixels(data, "JPEG") if admission else 0
        if admission and pixels > _LARGE_JPEG and not admission.take(pixels * _BYTES_PER_PIXEL):
            raise OceanoError(**_OVERLOADED)

    def _run(
        self, data: bytes, max_pixels: int, min_decoded_side: int | None, page: int, admission: Admission | None
    ) -> tuple[dict[str, Any], mmap.mmap | None]:
        options = {
            "max_pixels": max_pixels,
            "min_decoded_side": min_decoded_side,
            "page": page,
            "cpu_seconds": self._seconds,
            "bytes_per_pixel": _BYTES_PER_PIXEL,
            "memory_bytes": _SMALL_BYTES,
            "large_memory_bytes": _SMALL_BYTES + _BYTES_PER_PIXEL * max_pixels,
        }
        with contextlib.ExitStack() as stack:
            if admission is None:
                admission = stack.enter_context(contextlib.closing(self.admission()))
            reply, memory = self._run_once(data, options, partial(admission.take, wait=False))
            if "large" in reply:  # others use the memory: wait without a process, which small images need
                if not admission.take(reply["large"]):
                    raise OceanoError(**_OVERLOADED)
                reply, memory = self._run_once(data, options, admission.take)
            return reply, memory

    def _run_once(
        self, data: bytes, options: dict[str, Any], admit: Callable[[int], bool]
    ) -> tuple[dict[str, Any], mmap.mmap | None]:
        with self._slots:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            process = process or _DecoderProcess()
            try:
                result = process.decode(data, options, self._seconds, admit)
            except _TooLongError as failure:
                process.kill()
                waited = failure.cpu_seconds < self._seconds * _WAITED_SHARE
                if waited and self._wait_seconds is not None:
                    raise OceanoError(**_OVERLOADED) from failure
                raise OceanoError(
                    "invalid_image", f"decoding the image takes longer than {self._seconds:g} s"
                ) from failure
            except BaseException:
                process.kill()
                raise
            with self._lock:
                self._idle.append(process)
            return result


class _TooLongError(Exception):
    """A decoder has not replied in time; `cpu_seconds` are those that it used for the image."""

    def __init__(self, cpu_seconds: float) -> None:
        super().__init__(cpu_seconds)
        self.cpu_seconds = cpu_seconds


class _DecoderProcess:
    """One process and the socket to it."""

    def __init__(self) -> None:
        package = str(Path(app.__file__ or "").resolve().parents[1])
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "app.images.decoder_process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # C libraries print their warnings
                pass_fds=[theirs.fileno()],
                cwd="/",
                env={"PYTHONPATH": package, "PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
            self._connection = Connection(os.dup(ours.fileno()))

    def decode(
        self, data: bytes, options: dict[str, Any], seconds: float, admit: Callable[[int], bool]
    ) -> tuple[dict[str, Any], mmap.mmap | None]:
        """Send an image and wait for its reply; the pixels are None if the reply is an error.

        The reply to a large image that is not admitted is the bytes that it needs, as "large".
        """
        before = self._cpu_seconds()
        try:
            self._connection.send_bytes(json.dumps(options).encode())
            self._connection.send_bytes(data)
            reply = self._reply(seconds, before)
            if "large" in reply:
                admitted = admit(reply["large"])
                self._connection.send_bytes(b"go" if admitted else b"stop")
                if admitted:
                    reply = self._reply(seconds, before)
            if "shape" not in reply:
                return reply, None
            handle = recv_handle(self._connection)
        except (EOFError, OSError, ValueError) as failure:
            raise OceanoError(
                "invalid_image", "the decoder crashed on this image, or needed too much memory or time"
            ) from failure
        try:
            return reply, mmap.mmap(handle, 0, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        finally:
            os.close(handle)

    def _reply(self, seconds: float, before: float) -> dict[str, Any]:
        if not self._connection.poll(seconds):
            raise _TooLongError(self._cpu_seconds() - before)
        reply: dict[str, Any] = json.loads(self._connection.recv_bytes())
        return reply

    def _cpu_seconds(self) -> float:
        """Seconds of the CPU that the process has used; 0 if it has ended."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._connection.close()
        self._process.wait()
