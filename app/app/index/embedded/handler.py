"""What the owner does with a request: reads go straight to the worker, writes one after the other.

Durable is what is in Edge's log and on the disk: the log is replayed when the shard is loaded (checked: an older
state of everything else, with the log of now, opens complete). So `flush` is one or two fsyncs here, beside the
worker; Edge's own flush takes a hundred, during which nothing can be searched, and the worker does it now and then.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

from app.core.errors import OceanoError
from app.core.files import free_bytes
from app.index.embedded.backup import backup
from app.index.embedded.maintenance import Maintenance
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import READS, WRITES, Op, Request, answer, pack, read_answer, storage_failure, unpack
from app.index.embedded.storage import disk_bytes, sync_log
from app.index.embedded.supervisor import WorkerSupervisor

_NEEDS_ROOM: Final = frozenset({Op.UPSERT, Op.SET_PAYLOAD})
_DURABLE_ON_RETURN: Final = frozenset({Op.SET_PAYLOAD, Op.DELETE})


class Service:
    """Answers requests. Safe for threads; `writing` is held while the shard changes and while it is copied."""

    def __init__(self, options: OwnerOptions, supervisor: WorkerSupervisor, lock: int) -> None:
        self._options = options
        self._supervisor = supervisor
        self._writing = threading.Lock()
        self.maintenance = Maintenance(options, supervisor, self._writing, lock)

    def open(self) -> None:
        """Open the shard now rather than with the first request."""
        self._supervisor.worker()
        self.maintenance.consider(first=True)

    def answer(self, message: bytes) -> bytes:
        """Raises OceanoError."""
        request = unpack(message)
        if request.op in READS:
            return self._supervisor.call(message)
        if request.op in WRITES:
            return self._write(request, message)
        match request.op:
            case Op.FLUSH:
                self._make_durable()
                self.maintenance.consider()
                return answer(None)
            case Op.INFO:
                return answer(self._info())
            case Op.MAINTAIN:
                self.maintenance.start()
                return answer(None)
            case Op.BACKUP:
                target, collection, alias = request.load()
                backup(self._supervisor, self._writing, Path(target), collection, alias)
                return answer(None)
        raise OceanoError("invalid_request", f"The index does not know {request.op.name}.")

    def close(self) -> None:
        """Give up a build, let the write in progress finish, flush, close."""
        self.maintenance.stop()
        with self._writing:
            self._supervisor.close()

    def _write(self, request: Request, message: bytes) -> bytes:
        with self._writing:
            if request.op in _NEEDS_ROOM:
                self._require_room()
            self.maintenance.note(request.ids)
            reply = self._supervisor.call(message)
        if request.op in _DURABLE_ON_RETURN:
            self._make_durable()
            self.maintenance.consider()  # a face that is named leaves the graph
        return reply

    def _make_durable(self) -> None:
        """All writes answered so far are on the disk on return."""
        shard = self._supervisor.shard
        try:
            sync_log(shard)
        except OSError as failure:
            if shard != self._supervisor.shard:
                return  # a built shard took its place, and was flushed with everything in it before it did
            raise storage_failure(failure, "The index's log cannot be written") from failure

    def _require_room(self) -> None:
        """A full disk is told before Edge meets it: its files are mapped, and a page without a block is a SIGBUS."""
        free = free_bytes(self._options.folder)
        if free < self._options.min_free_mb * 1_000_000:
            raise OceanoError(
                "disk_full",
                f"The disk of the index has {free // 1_000_000} MB free; {self._options.min_free_mb} MB are needed "
                "to write safely. Make room and go on; nothing is lost.",
                details={"free_bytes": free, "folder": str(self._options.folder)},
            )

    def _info(self) -> dict[str, Any]:
        points, indexed, _, segments = read_answer(self._supervisor.call(pack(Op.INFO)))
        return {
            "points": points,
            "indexed": indexed,
            "segments": segments,
            "maintaining": self.maintenance.running,
            "disk_bytes": disk_bytes(self._supervisor.shard),
            "failure": self.maintenance.failure,
        }
