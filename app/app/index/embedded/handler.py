"""The owner's request handler: forwards reads to the worker, and runs writes one at a time.

A write is durable once Edge's log is synced to disk, because loading a shard replays the log
(tests/index/embedded/test_shard.py opens a shard of which only the log is up to date). So `flush` syncs the log here,
with one or two fsyncs, while the worker serves requests. Edge's own flush needs about a hundred and blocks searches;
the worker runs it only now and then.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

from app.core.errors import OceanoError
from app.core.files import free_bytes
from app.index.embedded.backup import backup
from app.index.embedded.integrity import FrozenCheck
from app.index.embedded.maintenance import Maintenance
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import (
    READS,
    WRITES,
    Op,
    Request,
    ShardSizes,
    pack,
    read_reply,
    unpack,
    value_reply,
)
from app.index.embedded.readers import Readers
from app.index.embedded.storage import disk_bytes, sync_log
from app.index.embedded.supervisor import WorkerSupervisor
from app.index.errors import storage_failure

_NEEDS_SPACE: Final = frozenset({Op.UPSERT, Op.SET_PAYLOAD})
_DURABLE_ON_RETURN: Final = frozenset({Op.SET_PAYLOAD, Op.DELETE})


class RequestHandler:
    """Handles the clients' requests. Safe for threads.

    Args:
        options: the owner's options.
        supervisor: sends requests to the worker.
        lock: file descriptor of the owner's lock.
    """

    def __init__(self, options: OwnerOptions, supervisor: WorkerSupervisor, lock: int) -> None:
        self._options = options
        self._supervisor = supervisor
        self._write_lock = threading.Lock()  # held while the shard changes and while it is copied
        self._integrity = FrozenCheck(lambda: supervisor.shard)
        self._readers = Readers(options, supervisor, self._write_lock, lock)
        self.maintenance = Maintenance(options, supervisor, self._write_lock, lock, self._readers.replaced)

    def open(self) -> None:
        """Open the shard before the first request.

        Raises:
            OceanoError: the shard cannot be opened.
        """
        self._supervisor.worker()
        self._integrity.start()
        self.maintenance.build_if_due(at_start=True)

    def handle(self, message: bytes) -> bytes:
        """Handle a packed request and return the packed reply.

        Raises:
            OceanoError: the owner cannot handle the request. An error of the worker is in the reply.
        """
        request = unpack(message)
        self._supervisor.guard.require()
        if request.op in READS:
            return self._readers.call(request.op, message)
        if request.op in WRITES:
            return self._write(request, message)
        match request.op:
            case Op.FLUSH:
                self._make_durable()
                self.maintenance.build_if_due()
                return value_reply(None)
            case Op.INFO:
                return value_reply(self._info())
            case Op.MAINTAIN:
                self.maintenance.start()
                return value_reply(None)
            case Op.BACKUP:
                target, collection, alias = request.load()
                backup(self._supervisor, self._write_lock, Path(target), collection, alias)
                return value_reply(None)
        raise OceanoError("invalid_request", f"The index does not support the operation {request.op.name}.")

    def tend(self) -> None:
        """Stop readers that nobody needs; called about once a second."""
        self._readers.tend()

    def close(self) -> None:
        """Cancel a running build, wait for the current write, and close the worker, which flushes."""
        self._integrity.close()
        self._readers.close()
        self.maintenance.stop()
        with self._write_lock:
            self._supervisor.close()

    def _write(self, request: Request, message: bytes) -> bytes:
        with self._write_lock:
            if request.op in _NEEDS_SPACE:
                self._require_space()
            self.maintenance.record(request.ids)
            self._readers.record(request.ids)
            reply = self._supervisor.call(message)
            self._readers.write(message, reply)
        if request.op in _DURABLE_ON_RETURN:
            self._make_durable()
            self.maintenance.build_if_due()  # naming a face removes it from the graph
        return reply

    def _make_durable(self) -> None:
        """Sync all writes that have been replied to; fail if another folder has the index's name by then."""
        self._supervisor.guard.require()
        shard = self._supervisor.shard
        try:
            sync_log(shard)
        except OSError as failure:
            if shard != self._supervisor.shard:
                return  # a build replaced the shard; the new one was flushed with all these writes
            raise storage_failure(failure, "The index's log cannot be written") from failure
        self._supervisor.guard.require()

    def _require_space(self) -> None:
        """Reject a write before the disk is full: Edge maps its files, so a page without a block raises SIGBUS."""
        free = free_bytes(self._options.folder)
        if free < self._options.min_free_mb * 1_000_000:
            raise OceanoError(
                "disk_full",
                f"The disk of the index has {free // 1_000_000} MB free; writes need at least "
                f"{self._options.min_free_mb} MB. Free some space and continue; no data is lost.",
                details={"free_bytes": free, "folder": str(self._options.folder)},
            )

    def _info(self) -> dict[str, Any]:
        sizes: ShardSizes = read_reply(self._supervisor.call(pack(Op.INFO)))
        return {
            "points": sizes.points,
            "indexed": sizes.indexed,
            "segments": sizes.segments,
            "maintaining": self.maintenance.running,
            "disk_bytes": disk_bytes(self._supervisor.shard),
            "damaged_files": len(self._integrity.damaged),
            "failure": self.maintenance.failure,
        }
