"""Application, access and error logs: rotating files, one line per record; never images, embeddings or keys."""

from __future__ import annotations

import contextvars
import logging
import logging.handlers
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from app.core.errors import OceanoError
from app.core.locks import try_lock

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")

ACCESS: Final = "oceano.access"
_MAX_BYTES: Final = 10_000_000  # of a log file, before it is rotated
_BACKUP_FILES: Final = 5
_MAX_PROCESSES: Final = 100  # of one kind, on the same folder
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"

# Control characters (C0, DEL, C1) and the two line separators of Unicode, as Python writes them.
_CONTROLS: Final = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
_ESCAPED: Final[Mapping[int, str]] = MappingProxyType({code: ascii(chr(code))[1:-1] for code in _CONTROLS})


class _OneLine(logging.Formatter):
    """Formats a record as one line; a traceback follows, indented.

    Control characters are escaped, so that a quoted text cannot forge a log line or move a terminal's cursor.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(_ESCAPED)

    def formatException(self, ei: object) -> str:
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(f"    {line.translate(_ESCAPED)}" for line in text.splitlines())


class _LogFile(logging.handlers.RotatingFileHandler):
    """A log file. If it cannot be written, as on a full disk, it says so once, not for each record."""

    _is_said = False

    def handleError(self, record: logging.LogRecord) -> None:
        failure = sys.exception()
        if not isinstance(failure, OSError):
            super().handleError(record)
        elif not self._is_said:
            self._is_said = True
            sys.stderr.write(f"WARNING the log {self.baseFilename} cannot be written: {failure.strerror}\n")


def _add_request_id(record: logging.LogRecord) -> bool:
    """A logging filter that keeps every record."""
    record.request_id = request_id.get()
    return True


def configure_logging(logs_dir: Path, process: str, *, console: bool = True) -> None:
    """Write the logs of this process to a folder.

    `PROCESS.log` contains everything from INFO on, `PROCESS-errors.log` errors only, and `access.log` (the service
    only) one line per request. Two processes that rotate the same file lose lines, so a second process of the same kind
    writes to `PROCESS-2.log`, `PROCESS-2-errors.log` and `access-2.log`, a third to `-3`, and so on.

    Args:
        logs_dir: the folder; created if missing.
        process: kind of the process: "service", "ingest" or the name of a command.
        console: also write warnings and errors to stderr.

    Raises:
        OSError: the folder cannot be created.
    """
    logs_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    suffix = _unused_suffix(logs_dir, process)
    name = f"{process}{suffix}"
    handlers = [_file_handler(logs_dir / f"{name}.log"), _file_handler(logs_dir / f"{name}-errors.log", logging.ERROR)]
    if console:
        console_handler = logging.StreamHandler(sys.stderr)
        console_handler.setFormatter(_OneLine("%(levelname)s %(message)s"))
        console_handler.setLevel(logging.WARNING)
        console_handler.addFilter(_add_request_id)
        handlers.append(console_handler)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)  # Pillow warns of unusual images; those warnings belong in the log
    access = logging.getLogger(ACCESS)
    access.propagate = False
    for handler in list(access.handlers):
        access.removeHandler(handler)
        handler.close()
    if process == "service":
        access.addHandler(_file_handler(logs_dir / f"access{suffix}.log"))


_held_locks: dict[Path, int] = {}  # of this process's log files, held until it exits


def _unused_suffix(logs_dir: Path, process: str) -> str:
    """The first of "", "-2", "-3", ... that no running process has locked; "" if the file system has no locks."""
    for number in range(1, _MAX_PROCESSES):
        suffix = "" if number == 1 else f"-{number}"
        path = logs_dir / f".{process}{suffix}.lock"
        if path in _held_locks:
            return suffix
        try:
            handle = try_lock(path)
        except (OSError, OceanoError):
            return ""
        if handle is not None:
            _held_locks[path] = handle
            return suffix
    return ""


def _file_handler(path: Path, level: int = logging.INFO) -> logging.Handler:
    handler = _LogFile(
        path, maxBytes=_MAX_BYTES, backupCount=_BACKUP_FILES, encoding="utf-8", errors="backslashreplace", delay=True
    )
    handler.setFormatter(_OneLine(_FORMAT))
    handler.setLevel(level)
    handler.addFilter(_add_request_id)
    return handler
