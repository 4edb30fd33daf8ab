"""The parts of a running service, and the watch over them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from app.core.concurrency import Threads
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import Engine, FaceIndex
from app.core.types import IndexInfo
from app.images.thumbnails import ThumbStore
from app.library.ledger import Ledger, Totals
from app.metrics import Metrics
from app.service.search import Search

_log = logging.getLogger(__name__)

_EMPTY: Final = "The index is empty (collection %s). If you expected faces, check MODEL_NAME and QDRANT_COLLECTION."
LOOK_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 5.0
CHECK_SECONDS: Final = 60.0
STALE_SECONDS: Final = 10.0
LOOKUPS: Final = 16
DEMO_PACK: Final = "demo"


@dataclass(slots=True)
class Seen:
    """What the watch saw last; `at`, when the index last answered, on the monotonic clock."""

    index: IndexInfo | None = None
    index_error: str = "not looked at yet"
    at: float = 0.0
    totals: Totals | None = None
    ledger_error: str = "not looked at yet"


@dataclass(slots=True)
class Services:
    """Everything a request handler may ask for."""

    settings: Settings
    engine: Engine
    index: FaceIndex
    ledger: Ledger
    thumbs: ThumbStore
    search: Search
    metrics: Metrics
    started: float = field(default_factory=time.time)
    seen: Seen = field(default_factory=Seen)
    # for what asks the index or the ledger in a few words: an index that hangs fills these, and no others
    lookups: Threads = field(default_factory=lambda: Threads(LOOKUPS, "lookup"))
    _index_thread: Threads = field(default_factory=lambda: Threads(1, "watch-index"))
    _ledger_thread: Threads = field(default_factory=lambda: Threads(1, "watch-ledger"))
    _engine_thread: Threads = field(default_factory=lambda: Threads(1, "watch-engine"))
    _checked: bool = False

    @property
    def demo(self) -> bool:
        """The model is the demo pack: it knows drawn people only."""
        return self.engine.pack.name == DEMO_PACK

    def faces_indexed(self) -> int | None:
        """Faces in the index as last seen; None while it cannot be reached."""
        return self.seen.index.points if self.seen.index is not None and self.index_ok else None

    @property
    def index_ok(self) -> bool:
        """The index answered lately."""
        return self.seen.index is not None and time.monotonic() - self.seen.at < STALE_SECONDS

    async def watch(self) -> None:
        """Look at the index, the ledger and the engine again and again, until cancelled.

        So `/health`, `/status` and the page answer at once, whatever the parts are doing. Each has a loop and a
        thread of its own: one that hangs, or fails in a way nobody foresaw, does not keep the others unseen.
        """
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._again_and_again(self.look))
            loops.create_task(self._again_and_again(self.look_at_ledger))
            loops.create_task(self._again_and_again(self.check_engine))

    async def look(self) -> None:
        """Ask the index once; it has `ANSWER_SECONDS`. What an index that hangs said before is believed until stale."""
        self.metrics.engine_healthy.set(self.engine.health.healthy)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                info = await self._index_thread.run(self.index.info)
        except TimeoutError:
            self._index_failed(f"the index has not answered within {ANSWER_SECONDS:g} s")
        except OceanoError as failure:
            self.seen.index = None
            self._index_failed(failure.message)
        else:
            if not self.seen.at and not info.points:  # it may be the wrong one
                _log.warning(_EMPTY, info.collection)
            self.seen.index, self.seen.index_error, self.seen.at = info, "", time.monotonic()
            self.metrics.index_points.set(info.points)
            self.metrics.index_indexed.set(info.indexed)
            if info.disk_bytes is not None:
                self.metrics.index_bytes.set(info.disk_bytes)
            self.metrics.index_maintaining.set(info.maintaining)
            self.metrics.index_copies_missing.set(info.copies_missing)
        self.metrics.index_up.set(self.index_ok)

    def _index_failed(self, message: str) -> None:
        if self.seen.index_error != message:
            _log.error("%s", message)
        self.seen.index_error = message

    async def look_at_ledger(self) -> float:
        """Ask the ledger once; seconds to wait before the next time. Searches go on without it."""
        began = time.monotonic()
        try:
            totals = await self._ledger_thread.run(self.ledger.totals)
        except OceanoError as failure:
            if self.seen.ledger_error != failure.message:
                _log.error("%s", failure)
            self.seen.totals, self.seen.ledger_error = None, failure.message
            return LOOK_SECONDS
        self.seen.totals, self.seen.ledger_error = totals, ""
        for status in ("done", "no_face", "failed", "duplicate"):
            self.metrics.ledger_files.labels(status).set(getattr(totals, status))
        # it reads every row, and an ingest that wants to write waits meanwhile: a twentieth of the time, no more
        return max(LOOK_SECONDS, 20 * (time.monotonic() - began))

    async def check_engine(self) -> float:
        """Let the engine compare itself with its reference; seconds to wait before the next time."""
        if self._checked:  # it was checked when it was built
            health = await self._engine_thread.run(self.engine.check)
            if not health.healthy:
                _log.error("the engine is unhealthy: %s", health.message)
        self._checked = True
        return CHECK_SECONDS

    @staticmethod
    async def _again_and_again(step: Callable[[], Awaitable[float | None]]) -> None:
        while True:
            seconds = None
            try:
                seconds = await step()
            except Exception:  # noqa: BLE001 - the watch must go on; what it did not see goes stale
                _log.exception("the watch failed")
            await asyncio.sleep(LOOK_SECONDS if seconds is None else seconds)

    def close(self) -> None:
        """Close every part, also when one of them fails at it."""
        with contextlib.ExitStack() as parts:
            for part in (self.ledger, self.index, self.search):
                parts.callback(part.close)
            for threads in (self.lookups, self._index_thread, self._ledger_thread, self._engine_thread):
                parts.callback(threads.close)
