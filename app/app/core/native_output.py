"""Moves the warnings that libjpeg prints to the standard error of the process to the log.

libjpeg warns of a damaged JPEG on file descriptor 2, which Python cannot intercept, and OpenCV offers no other way.
"""

from __future__ import annotations

import atexit
import faulthandler
import io
import logging
import os
import re
import sys
import threading
from typing import Final

_log = logging.getLogger(__name__)

_STDERR: Final = 2
_MAX_LINE: Final = 10_000  # bytes; a longer one is forwarded in parts
_JOIN_SECONDS: Final = 0.5
# The beginnings of the warnings in libjpeg-turbo's jerror.h.
_WARNING: Final = re.compile(
    rb"Corrupt JPEG data|Premature end of JPEG|Invalid SOS parameters|Inconsistent progression sequence"
    rb"|Unknown Adobe color transform|Invalid crop rectangle|Application transferred too many scanlines"
    rb"|Warning: unknown JFIF revision"
)


def divert_warnings() -> None:
    """Log libjpeg's warnings at INFO instead of printing them; whatever else is printed stays on standard error.

    `sys.stderr` and `faulthandler` write to the former standard error directly. Call it once, when a process begins.
    """
    if not isinstance(sys.stderr, io.TextIOWrapper):
        return
    sys.stderr.flush()
    printed = os.dup(_STDERR)
    reading, writing = os.pipe()
    sys.stderr = os.fdopen(os.dup(printed), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    faulthandler.enable(sys.stderr)
    os.dup2(writing, _STDERR)
    os.close(writing)
    reader = threading.Thread(target=_forward, args=(reading, printed), name="stderr", daemon=True)
    reader.start()
    atexit.register(_restore, printed, reader)


def _forward(reading: int, printed: int) -> None:
    with os.fdopen(reading, "rb") as lines:
        while line := lines.readline(_MAX_LINE):
            if _WARNING.match(line):
                _log.info("%s", line.decode("utf-8", "replace").strip())
            else:
                os.write(printed, line)


def _restore(printed: int, reader: threading.Thread) -> None:
    """Close the pipe and forward what is still in it, unless a child process holds it open."""
    os.dup2(printed, _STDERR)
    reader.join(_JOIN_SECONDS)
