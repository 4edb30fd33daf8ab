"""Application, access and error logs: rotating files under `logs/`, a line each, no picture, embedding or key."""

from __future__ import annotations

import contextvars
import logging
import logging.handlers
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from app.core.locks import try_lock

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")

ACCESS: Final = "oceano.access"
_BYTES: Final = 10_000_000
_FILES: Final = 5
_MOST_PLACES: Final = 100
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"

# Control characters (C0, DEL, C1) and the two line separators of Unicode, as Python writes them.
_CONTROLS: Final = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
_ESCAPED: Final[Mapping[int, str]] = MappingProxyType({code: ascii(chr(code))[1:-1] for code in _CONTROLS})


class _OneLine(logging.Formatter):
    """A record is one line, whatever it quotes: no forged lines, nothing that moves a terminal's cursor.

    A traceback follows, indented.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(_ESCAPED)

    def formatException(self, ei: object) -> str:
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(f"    {line.translate(_ESCAPED)}" for line in text.splitlines())


def _with_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True


def configure_logging(logs_dir: Path, process: str, *, console: bool = True) -> None:
    """Send the logs of this process to `logs_dir`.

    `PROCESS.log` takes everything, `PROCESS-errors.log` what is at least an error, `access.log` one line a
    request. Each process has files of its own, since two that rotate the same file lose lines: beside another one of
    its kind, as of two services on the same data, they are `PROCESS-2.log` and so on.
    """
    logs_dir.mkdir(parents=True, exist_ok=True)
    kind, number = process, _place(logs_dir, process)
    process = f"{kind}{number}"
    handlers = [_file(logs_dir / f"{process}.log"), _file(logs_dir / f"{process}-errors.log", logging.ERROR)]
    if console:
        screen = logging.StreamHandler(sys.stderr)
        screen.setFormatter(_OneLine("%(levelname)s %(message)s"))
        screen.setLevel(logging.WARNING)
        handlers.append(_prepared(screen))
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)  # Pillow warns of odd pictures; that belongs in the log, not on the terminal
    access = logging.getLogger(ACCESS)
    access.propagate = False
    for handler in list(access.handlers):
        access.removeHandler(handler)
        handler.close()
    if kind == "service":
        access.addHandler(_file(logs_dir / f"access{number}.log"))


_held: dict[Path, int] = {}  # locks of this process's places, held until it ends


def _place(logs_dir: Path, process: str) -> str:
    """ "", "-2", "-3", ...: the first that no living process has; also "" where nothing can be locked."""
    for number in range(1, _MOST_PLACES):
        suffix = "" if number == 1 else f"-{number}"
        path = logs_dir / f".{process}{suffix}.lock"
        if path in _held:
            return suffix
        try:
            handle = try_lock(path)
        except OSError:
            return ""
        if handle is not None:
            _held[path] = handle
            return suffix
    return ""


def _file(path: Path, level: int = logging.INFO) -> logging.Handler:
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8", errors="backslashreplace", delay=True
    )
    handler.setFormatter(_OneLine(_FORMAT))
    handler.setLevel(level)
    return _prepared(handler)


def _prepared(handler: logging.Handler) -> logging.Handler:
    handler.addFilter(_with_request_id)
    return handler
