"""Writes the audit log: entries of concurrent requests share a transaction, and anchors say how far the log was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Final, Literal

import numpy as np

from app.catalog import AuditEntry, AuditLog, Database, NewEntry, audit_time
from app.core.errors import OceanoError
from app.core.types import Floats
from app.security.anchors import ANCHOR_FILE, AnchorFile
from app.security.audit_check import AuditReport, check_audit

_log = logging.getLogger(__name__)

Action = Literal[
    "search",
    "search.more",
    "detect",
    "compare",
    "results",
    "face.view",
    "photo.view",
    "original.view",
    "export",
    "kept.add",
    "kept.view",
    "kept.rename",
    "kept.delete",
    "people.list",
    "people.groups",
    "people.unnamed",
    "people.dismissed",
    "person.view",
    "person.faces",
    "person.suggestions",
    "person.together",
    "person.create",
    "person.edit",
    "person.delete",
    "person.assign",
    "person.reject",
    "person.merge",
    "person.split",
    "face.dismiss",
    "changes.list",
    "change.undo",
    "sign_in",
    "sign_in.failed",
    "sign_out",
    "key.added",
    "key.revoked",
    "key.password",
    "audit.view",
    "audit.export",
    "audit.pruned",
    "command.search",
    "command.ingest",
    "command.backup",
    "command.restore",
    "command.migrate",
    "command.reembed",
    "command.doctor",
    "command.group",
    "command.audit",
    "command.names",
    "command.export_names",
    "command.import_people",
]

ANCHOR_ENTRIES: Final = 1000
ANCHOR_SECONDS: Final = 300.0
MAX_PURPOSE: Final = 500  # characters
_MAX_DETAILS: Final = 4000  # characters
_MAX_AT_ONCE: Final = 1000  # entries in a transaction
_CLOSE_SECONDS: Final = 60.0

_Queued = tuple[NewEntry, "Future[int]"]


def new_entry(
    action: Action,
    who: str,
    details: Mapping[str, object] | None = None,
    *,
    address: str | None = None,
    purpose: str | None = None,
) -> NewEntry:
    """Make an entry of what is done now.

    Args:
        action: what.
        who: as in `Access`, or `command USER@HOST`.
        details: hashes and counts; never an image, an embedding or a key. Values of None are left out.
        address: of the client.
        purpose: why, at most `MAX_PURPOSE` characters.
    """
    told = {name: value for name, value in (details or {}).items() if value is not None}
    text = json.dumps(told, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if len(text) > _MAX_DETAILS:
        text = json.dumps({"cut": text[: _MAX_DETAILS // 2]}, ensure_ascii=False)
    return NewEntry(audit_time(), who, address, action, purpose[:MAX_PURPOSE] if purpose else None, text)


def hash_of(content: str | bytes | Floats) -> str:
    """Return the SHA-256 of what a search asks for: of bytes, of a token, or of an embedding's float32 numbers."""
    if isinstance(content, np.ndarray):
        content = np.ascontiguousarray(content, "<f4").tobytes()
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


class Audit:
    """The audit log of a running process. Safe for threads.

    Args:
        database: the catalog.
        state_dir: folder of the anchor file.
        days: entries are kept for this many days; 0: none are written.

    Attributes:
        log: the entries.
        is_kept: whether entries are written.
    """

    def __init__(self, database: Database, state_dir: Path, *, days: int) -> None:
        self.log = AuditLog(database)
        self.is_kept = days > 0
        self._days = days
        self._anchors = AnchorFile(state_dir / ANCHOR_FILE)
        self._queue: SimpleQueue[_Queued | None] = SimpleQueue()
        self._writer: Thread | None = None
        self._lock = Lock()
        self._is_closed = False
        self._newest: AuditEntry | None = None  # that no anchor names yet
        self._since_anchor = 0  # entries
        self._anchored_at = time.monotonic()

    def record(self, entry: NewEntry) -> None:
        """Write an entry; return once it is durable.

        Raises:
            OceanoError: `ledger_unavailable`, `disk_full`.
        """
        self.submit(entry).result()

    def submit(self, entry: NewEntry) -> Future[int]:
        """Write an entry in the background, in one transaction with others that wait.

        Returns:
            A future that has the entry's number once it is durable, and raises `ledger_unavailable` or `disk_full` if
            it is not; 0 if no entries are kept.
        """
        future: Future[int] = Future()
        future.set_running_or_notify_cancel()  # a request that leaves does not cancel it
        if not self.is_kept:
            future.set_result(0)
            return future
        with self._lock:
            if self._is_closed:
                future.set_exception(OceanoError("ledger_unavailable", "the audit log is closed"))
                return future
            if self._writer is None:
                self._writer = Thread(target=self._write_all, name="audit", daemon=True)
                self._writer.start()
            self._queue.put((entry, future))
        return future

    def anchor(self) -> None:
        """Write the newest entry to the anchor file: at the start of a service, so that it knows where it began."""
        newest = self.log.newest()
        if newest is not None:
            self._add_anchor(newest)

    def verify(self) -> AuditReport:
        """Check every entry, its digest and all anchors of this machine; if all is well, add an anchor.

        Raises:
            OceanoError: `ledger_unavailable`.
        """
        report = check_audit(self.log, self._anchors, self._days)
        if report.is_well:
            self.anchor()
        return report

    def prune(self, who: str) -> int:
        """Delete the entries older than the days that they are kept, in whole days; return how many there were.

        With 0 days, all entries are deleted.

        Raises:
            OceanoError: `ledger_unavailable`, `disk_full`.
        """
        if not self._days:
            return self.log.prune(audit_time(), who)
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return self.log.prune(audit_time(today - timedelta(days=self._days)), who)

    def close(self) -> None:
        """Write what waits, and an anchor."""
        with self._lock:
            self._is_closed = True
            writer = self._writer
            if writer is not None:
                self._queue.put(None)
        if writer is not None:
            writer.join(_CLOSE_SECONDS)

    def _write_all(self) -> None:
        while True:
            taken = self._take()
            entries = [one for one in taken if one is not None]
            if entries:
                self._write(entries)
            is_end = None in taken
            if self._newest is not None and (is_end or self._is_anchor_due()):
                self._add_anchor(self._newest)
            if is_end:
                return

    def _take(self) -> list[_Queued | None]:
        """Wait for entries, and return all that are there; an empty list once an anchor is due."""
        wait = None if self._newest is None else max(0.0, self._anchored_at + ANCHOR_SECONDS - time.monotonic())
        taken: list[_Queued | None] = []
        with contextlib.suppress(Empty):
            taken.append(self._queue.get(timeout=wait))
            while len(taken) < _MAX_AT_ONCE:
                taken.append(self._queue.get_nowait())
        return taken

    def _write(self, queued: list[_Queued]) -> None:
        try:
            added = self.log.append([entry for entry, _ in queued])
        except BaseException as failure:  # noqa: BLE001 - the requests that wait must be answered
            _log.error("the audit log cannot be written, so requests fail: %s", failure)
            for _, future in queued:
                future.set_exception(failure if isinstance(failure, OceanoError) else _unwritable(failure))
            return
        self._newest = added[-1]
        self._since_anchor += len(added)
        for entry, (_, future) in zip(added, queued, strict=True):
            future.set_result(entry.number)

    def _is_anchor_due(self) -> bool:
        is_late = time.monotonic() - self._anchored_at >= ANCHOR_SECONDS
        return is_late or self._since_anchor >= ANCHOR_ENTRIES

    def _add_anchor(self, entry: AuditEntry) -> None:
        try:
            self._anchors.add(entry.number, entry.digest)
        except (OSError, OceanoError) as failure:
            _log.error("%s cannot be written: %s", self._anchors.path, failure)
        self._newest, self._since_anchor, self._anchored_at = None, 0, time.monotonic()


def _unwritable(failure: BaseException) -> OceanoError:
    return OceanoError("ledger_unavailable", f"the audit log cannot be written: {failure}")
