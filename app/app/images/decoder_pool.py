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
from contextlib import AbstractContextManager
from functools import cache, partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

import app
from app.core.concurrency import Reservations
from app.core.errors import OceanoError
from app.core.types import Picture
from app.images.decoding import decode, image_id_of
from app.images.jpeg import is_plain_jpeg

_log = logging.getLogger(__name__)

_SMALL_BYTES: Final = 200_000_000  # memory that every process may use for an image
_BYTES_PER_PIXEL: Final = 16  # memory of an image while it is decoded
_LARGE_BYTES: Final = 1_000_000_000  # memory of all images that need more than _SMALL_BYTES, unless one needs more
_OVERLOADED: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "code": "overloaded",
        "message": "other large images are being decoded; try again in a moment",
        "retry_after": 2.0,
    }
)


class DecoderPool:
    """Processes that decode images, started as needed. Safe to call from several threads.

    Plain JPEG files (see `is_plain_jpeg`) are decoded in the calling thread, which is faster: libjpeg-turbo reads them.

    Args:
        processes: the largest number of processes; further calls wait for one.
        seconds: time for one image, both of the clock and of the CPU.
        wait_seconds: how long a large image waits for memory that other large images use; None: as long as they do.
    """

    def __init__(self, processes: int, *, seconds: float, wait_seconds: float | None = None) -> None:
        self._seconds = seconds
        self._wait_seconds = wait_seconds
        self._slots = threading.BoundedSemaphore(processes)
        self._lock = threading.Lock()
        self._large = Reservations(_LARGE_BYTES)
        self._idle: list[_DecoderProcess] = []

    def decode(
        self,
        data: bytes,
        *,
        max_pixels: int,
        image_id: str | None = None,
        min_decoded_side: int | None = None,
        page: int = 0,
        name: str = "",
    ) -> Picture:
        """Decode an image as `app.images.decode` does.

        Args:
            data: the file's bytes.
            max_pixels: as for `app.images.decode`.
            image_id: as for `app.images.decode`.
            min_decoded_side: as for `app.images.decode`.
            page: as for `app.images.decode`.
            name: the file's name, for the log.

        Raises:
            OceanoError: as `app.images.decode`; `invalid_image` also if the decoder crashes, needs too much memory or
                takes too long; `overloaded` if a large image has waited for memory for `wait_seconds`.
        """
        image_id = image_id or image_id_of(data)
        if page == 0 and is_plain_jpeg(data):
            return decode(data, max_pixels=max_pixels, image_id=image_id, min_decoded_side=min_decoded_side)
        reply, memory = self._run(data, max_pixels, min_decoded_side, page)
        for warning in reply["warnings"][:1]:
            _log.info("%s: %s", name or image_id[:12], warning)
        if memory is None:
            raise OceanoError(**reply["error"])
        pixels = np.frombuffer(memory, np.uint8).reshape(reply["shape"])
        full = None
        if reply["scale"] < reply["full_scale"]:
            again = partial(self.decode, data, max_pixels=max_pixels, image_id=image_id, page=page, name=name)
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

    def _run(
        self, data: bytes, max_pixels: int, min_decoded_side: int | None, page: int
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
        with self._slots:
            with self._lock:
                process = self._idle.pop() if self._idle else None
            process = process or _DecoderProcess()
            try:
                result = process.decode(
                    data, options, self._seconds, partial(self._large.reserve, timeout=self._wait_seconds)
                )
            except BaseException:
                process.kill()
                raise
            with self._lock:
                self._idle.append(process)
            return result


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
        self,
        data: bytes,
        options: dict[str, Any],
        seconds: float,
        reserve: Callable[[int], AbstractContextManager[bool]],
    ) -> tuple[dict[str, Any], mmap.mmap | None]:
        """Send an image and wait for its reply; the pixels are None if the reply is an error.

        The bytes for a large image are reserved while it is decoded.
        """
        try:
            self._connection.send_bytes(json.dumps(options).encode())
            self._connection.send_bytes(data)
            reply = self._reply(seconds)
            if "large" in reply:
                with reserve(reply["large"]) as reserved:
                    self._connection.send_bytes(b"go" if reserved else b"stop")
                    reply = self._reply(seconds) if reserved else {"error": _OVERLOADED, "warnings": []}
            if "error" in reply:
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

    def _reply(self, seconds: float) -> dict[str, Any]:
        if not self._connection.poll(seconds):
            raise OceanoError("invalid_image", f"decoding the image takes longer than {seconds:g} s")
        reply: dict[str, Any] = json.loads(self._connection.recv_bytes())
        return reply

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._connection.close()
        self._process.wait()
