"""The process that decodes untrusted images: `python -m app.images.decoder_process FD`.

It reads requests from the socket FD: JSON with the options, then the bytes of the file. It replies with JSON, and
passes the pixels as a memory file (memfd). For a large image it first asks the pool for permission to use much memory.
Its limits of memory and CPU time are set for every request; the pool kills it if a request takes too long.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
import sys
import warnings
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from app.core.errors import OceanoError
from app.core.types import Picture, Pixels
from app.images.decoding import decode
from app.images.formats import SNIFF_BYTES, sniff
from app.images.pages import with_first_page
from app.images.structure import declared_pixels

_MAX_WARNINGS: Final = 3


def main(arguments: list[str]) -> int:
    """Serve requests until the pool closes the socket."""
    cv2.setNumThreads(1)
    with Connection(int(arguments[0])) as connection, contextlib.suppress(EOFError, ConnectionError):
        while True:
            options = json.loads(connection.recv_bytes())
            _limit(resource.RLIMIT_DATA, sys.maxsize)  # that of the last request may be less than the file needs
            _serve(connection, options)
    return 0


def _serve(connection: Connection, options: dict[str, Any]) -> None:
    data = connection.recv_bytes()
    seconds, bytes_per_pixel = options.pop("cpu_seconds"), options.pop("bytes_per_pixel")
    memory, large_memory = options.pop("memory_bytes"), options.pop("large_memory_bytes")
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 1)
    with contextlib.suppress(Exception):  # `decode` says what is wrong with the file
        data, options["page"] = with_first_page(data, options["page"])
    needed = declared_pixels(data, sniff(data[:SNIFF_BYTES]), options["page"]) * bytes_per_pixel
    if needed > memory:
        connection.send_bytes(json.dumps({"large": min(needed, large_memory)}).encode())
        if connection.recv_bytes() != b"go":
            return
        memory = large_memory
    _limit(resource.RLIMIT_DATA, _data_bytes() + memory)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            picture = decode(data, **options)
        except OceanoError as failure:
            error = {"code": failure.code, "message": failure.message, "details": failure.details}
            _send(connection, {"error": error}, caught)
            return
    _send(connection, _described(picture), caught)
    handle = _memory_file(picture.pixels)
    try:
        send_handle(connection, handle, 0)
    finally:
        os.close(handle)


def _data_bytes() -> int:
    """Bytes that count for RLIMIT_DATA now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    return pages * resource.getpagesize()


def _limit(kind: int, soft: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _send(connection: Connection, reply: dict[str, Any], caught: list[warnings.WarningMessage]) -> None:
    reply["warnings"] = [str(one.message)[:200] for one in caught[:_MAX_WARNINGS]]
    connection.send_bytes(json.dumps(reply).encode())


def _described(picture: Picture) -> dict[str, Any]:
    return {
        "shape": picture.pixels.shape,
        "format": picture.format,
        "taken_at": picture.taken_at,
        "width": picture.width,
        "height": picture.height,
        "scale": picture.scale,
        "full_scale": picture.full_scale,
        "frames": picture.frames,
        "details": dict(picture.details),
    }


def _memory_file(pixels: Pixels) -> int:
    """Copy pixels to a memory file and return its file descriptor."""
    handle = os.memfd_create("oceano-pixels", os.MFD_CLOEXEC)
    os.ftruncate(handle, pixels.nbytes)
    with mmap.mmap(handle, pixels.nbytes) as memory:
        target = np.frombuffer(memory, np.uint8).reshape(pixels.shape)
        target[:] = pixels
        del target  # the mapping cannot be closed while an array uses it
    return handle


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
