"""The parts of a running service, and the watch over them."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Final

import anyio.to_thread

from app.config import Settings
from app.errors import OceanoError
from app.images import ThumbStore
from app.ledger import Ledger, Totals
from app.metrics import Metrics
from app.search import Search
from app.types import Engine, FaceIndex, IndexInfo

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
CHECK_SECONDS: Final = 60.0
STALE_SECONDS: Final = 10.0
DEMO_PACK: Final = "demo"


@dataclass(slots=True)
class Seen:
    """What the watch saw last; `at` on the monotonic clock."""

    index: IndexInfo | None = None
    totals: Totals | None = None
    index_error: str = "not looked at yet"
    at: float = 0.0


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
        """Look at the index every `LOOK_SECONDS`, check the engine every `CHECK_SECONDS`, until cancelled.

        So `/health`, `/status` and the page answer at once, whatever the parts are doing.
        """
        checked = time.monotonic()
        while True:
            await self.look()
            if time.monotonic() - checked >= CHECK_SECONDS:
                checked = time.monotonic()
                health = await anyio.to_thread.run_sync(self.engine.check)
                if not health.healthy:
                    _log.error("the engine is unhealthy: %s", health.message)
            self.metrics.engine_healthy.set(self.engine.health.healthy)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Ask index and ledger once."""
        try:
            info, totals = await anyio.to_thread.run_sync(self._ask, abandon_on_cancel=True)
        except OceanoError as failure:
            if self.seen.index_error != failure.message:
                _log.error("%s", failure)
            self.seen = Seen(index_error=failure.message)
            self.metrics.index_up.set(0)
            return
        self.seen = Seen(info, totals, "", time.monotonic())
        self.metrics.index_up.set(1)
        self.metrics.index_points.set(info.points)
        self.metrics.index_indexed.set(info.indexed)
        self.metrics.index_bytes.set(info.disk_bytes)
        self.metrics.index_maintaining.set(info.maintaining)
        for status in ("done", "no_face", "failed", "duplicate"):
            self.metrics.ledger_files.labels(status).set(getattr(totals, status))

    def _ask(self) -> tuple[IndexInfo, Totals]:
        return self.index.info(), self.ledger.totals()

    def close(self) -> None:
        self.index.close()
        self.ledger.close()
