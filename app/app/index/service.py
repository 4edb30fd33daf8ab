"""What the owner does with a request: reads go straight to the worker, writes one after the other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final

from app.errors import OceanoError
from app.index.backup import backup
from app.index.desk import Desk
from app.index.folders import disk_bytes, free_bytes
from app.index.maintenance import Maintenance
from app.index.options import OwnerOptions
from app.index.wire import READS, WRITES, Op, Request, answer, pack, read_answer, unpack

_NEEDS_ROOM: Final = frozenset({Op.UPSERT, Op.SET_PERSON})


class Service:
    """Answers requests. Safe for threads; `writing` is held while the shard changes and while it is copied."""

    def __init__(self, options: OwnerOptions, desk: Desk, lock: int) -> None:
        self._options = options
        self._desk = desk
        self._writing = threading.Lock()
        self.maintenance = Maintenance(options, desk, self._writing, lock)

    def open(self) -> None:
        """Open the shard now rather than with the first request."""
        self._desk.worker()
        self.maintenance.consider(first=True)

    def answer(self, message: bytes) -> bytes:
        """Raises OceanoError."""
        request = unpack(message)
        if request.op in READS:
            return self._desk.call(message)
        if request.op in WRITES:
            return self._write(request, message)
        match request.op:
            case Op.INFO:
                return answer(self._info())
            case Op.MAINTAIN:
                self.maintenance.start()
                return answer(None)
            case Op.BACKUP:
                target, collection, alias = request.load()
                backup(self._desk, self._writing, Path(target), collection, alias)
                return answer(None)
        raise OceanoError("invalid_request", f"The index does not know {request.op.name}.")

    def close(self) -> None:
        """Give up a build, let the write in progress finish, flush, close."""
        self.maintenance.stop()
        with self._writing:
            self._desk.close()

    def _write(self, request: Request, message: bytes) -> bytes:
        with self._writing:
            if request.op in _NEEDS_ROOM:
                self._require_room()
            self.maintenance.note(request.ids)
            reply = self._desk.call(message)
        if request.op is Op.FLUSH:
            self.maintenance.consider()
        return reply

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
        points, indexed, segments = read_answer(self._desk.call(pack(Op.INFO)))
        return {
            "points": points,
            "indexed": indexed,
            "segments": segments,
            "maintaining": self.maintenance.running,
            "disk_bytes": disk_bytes(self._desk.shard),
            "failure": self.maintenance.failure,
        }
