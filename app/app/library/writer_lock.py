"""One ingest, restore or repair at a time per data folder, and the mark of an unfinished restore."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.errors import OceanoError
from app.core.locks import flock


def restore_marker_path(state_dir: Path, collection: str) -> Path:
    """Return the path of the file that marks an unfinished restore, until it finishes or an ingest starts."""
    return state_dir / f"restore-{collection}.json"


@contextmanager
def only_writer(state_dir: Path) -> Iterator[None]:
    """Hold the lock that allows one ingest or restore at a time per data folder.

    Raises:
        OceanoError: `ingest_in_progress`, with the other process in its details as "pid"; `ledger_unavailable` if the
            file system has no locks.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = state_dir / "ingest.lock"
    with path.open("a+") as lock:
        try:
            flock(lock.fileno(), path, wait=False, code="ledger_unavailable")
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read(20).strip() or "unknown"
            raise OceanoError(
                "ingest_in_progress",
                f"another ingest or restore is running (process {holder}); wait for it or stop it",
                details={"pid": int(holder) if holder.isdecimal() else None},
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield
