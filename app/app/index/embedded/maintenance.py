"""When to build the graph: asked for, or by itself once enough points wait for it.

A build in flight when the last client leaves is given up and begun again by a later owner: the command that was
typed is over, and a machine that goes on computing for minutes after it, unasked, is a surprise. Nothing is lost
but time. Whoever wants the graph waits for it with `maintain(wait=True)`.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from app.core.errors import OceanoError
from app.index.embedded.build import Build, GivenUp
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import ID_BYTES, Op, pack, read_answer, unavailable
from app.index.embedded.supervisor import WorkerGone, WorkerSupervisor

log = logging.getLogger("app.index.embedded.owner")

_AFTER_FAILURE_SECONDS: Final = 600.0


class Maintenance:
    """Runs builds, one at a time, in a thread. `writing` is the lock that writes hold; `lock` the owner's."""

    def __init__(self, options: OwnerOptions, supervisor: WorkerSupervisor, writing: threading.Lock, lock: int) -> None:
        self._options = options
        self._supervisor = supervisor
        self._writing = writing
        self._lock = lock
        self._state = threading.Lock()
        self._thread: threading.Thread | None = None
        self._build: Build | None = None
        self._again = False
        self._stopping = False
        self._written = 0  # points written since the last look at the sizes
        self._not_before = 0.0
        self.failure: OceanoError | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None

    def note(self, ids: bytes) -> None:
        """Tell of points that are about to be written. Call with `writing` held."""
        self._written += len(ids) // ID_BYTES
        if (build := self._build) is not None:
            build.note(ids)

    def consider(self, *, first: bool = False) -> None:
        """Build if enough points wait for it; cheap when few were written since the last look."""
        few = self._written < max(1, self._options.build_min // 10)
        if self.running or (few and not first) or time.monotonic() < self._not_before:
            return
        self._written = 0
        points, indexed, _, _ = read_answer(self._supervisor.call(pack(Op.INFO)))
        waiting = points - indexed
        if waiting >= self._options.build_min and waiting >= self._options.build_share * points:
            log.info("%d of %d points are not in the graph: building", waiting, points)
            self._begin()

    def start(self) -> None:
        """Build now; if a build is running already, once more after it."""
        self._begin(again=True)

    def stop(self) -> None:
        """Give up a build in flight; one that is about to switch is finished."""
        with self._state:
            self._stopping = True
            thread = self._thread
            if self._build is not None:
                self._build.cancel()
        if thread is not None:
            thread.join()

    def _begin(self, *, again: bool = False) -> None:
        with self._state:
            if self._stopping:
                return
            if self._thread is not None:
                self._again = self._again or again
                return
            self.failure = None
            self._build = Build(self._options, self._supervisor, self._writing, self._lock)
            self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._build is not None:
            try:
                self._build.run()
            except GivenUp:
                log.info("the build is given up: the owner ends")
            except (OceanoError, OSError, WorkerGone) as failure:
                log.exception("a build failed; the index goes on without it")
                self._not_before = time.monotonic() + _AFTER_FAILURE_SECONDS
                self.failure = (
                    failure if isinstance(failure, OceanoError) else unavailable(f"A build failed: {failure!r}.")
                )
            with self._state:
                more = self._again and not self.failure and not self._stopping
                self._again = False
                self._build = Build(self._options, self._supervisor, self._writing, self._lock) if more else None
                if not more:
                    self._thread = None
