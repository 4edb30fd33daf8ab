"""When to build the graph: on request, or when enough points are outside it.

When the last client disconnects during a build, the owner cancels it, and a later owner starts it again: a command
that has returned must not keep the machine busy for minutes. No data is lost. To wait for the graph, clients call
`maintain(wait=True)`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from app.core.errors import OceanoError
from app.index.embedded.build import Build, BuildCancelled
from app.index.embedded.build_plan import is_due
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import ID_BYTES, Op, ShardSizes, pack, read_reply
from app.index.embedded.supervisor import WorkerGone, WorkerSupervisor
from app.index.errors import unavailable

log = logging.getLogger("app.index.embedded.owner")

_AFTER_FAILURE_SECONDS: Final = 600.0


class Maintenance:
    """Runs builds in a thread, one at a time.

    `failure` is the error of the last build, or None.

    Args:
        options: the owner's options.
        supervisor: sends requests to the worker.
        write_lock: the lock that writes hold.
        lock: file descriptor of the owner's lock.
        on_switch: called when a build has replaced the shard, with the write lock held.
    """

    def __init__(
        self,
        options: OwnerOptions,
        supervisor: WorkerSupervisor,
        write_lock: threading.Lock,
        lock: int,
        on_switch: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._on_switch = on_switch
        self._supervisor = supervisor
        self._write_lock = write_lock
        self._lock = lock
        self._state = threading.Lock()
        self._thread: threading.Thread | None = None
        self._build: Build | None = None
        self._again = False
        self._stopping = False
        self._written = 0  # points written since `build_if_due` last asked for the sizes
        self._not_before = 0.0
        self.failure: OceanoError | None = None

    @property
    def running(self) -> bool:
        """Whether a build is running."""
        return self._thread is not None

    def record(self, ids: bytes) -> None:
        """Record the ids of points that are about to be written.

        The caller must hold the write lock.

        Args:
            ids: raw UUIDs, 16 bytes each, concatenated.
        """
        self._written += len(ids) // ID_BYTES
        if (build := self._build) is not None:
            build.record(ids)

    def build_if_due(self, *, at_start: bool = False) -> None:
        """Start a build if enough points are in no graph.

        Args:
            at_start: check even if few points were written since the last check.

        Raises:
            OceanoError: the worker does not report the sizes.
        """
        few = self._written < max(1, self._options.build_min // 10)
        if self.running or (few and not at_start) or time.monotonic() < self._not_before:
            return
        self._written = 0
        sizes: ShardSizes = read_reply(self._supervisor.call(pack(Op.INFO)))
        if is_due(sizes, self._options):
            log.info("%d of %d points are in no graph, starting a build", sizes.points - sizes.indexed, sizes.points)
            self._begin()

    def start(self) -> None:
        """Start a build; if one is running, start another after it."""
        self._begin(again=True)

    def stop(self) -> None:
        """Cancel a running build and wait for its end; a switch that has begun is finished."""
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
            self._build = self._new_build()
            self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)
            self._thread.start()

    def _new_build(self) -> Build:
        return Build(self._options, self._supervisor, self._write_lock, self._lock, self._on_switch)

    def _run(self) -> None:
        while self._build is not None:
            try:
                self._build.run()
            except BuildCancelled:
                log.info("the build is cancelled because the owner exits")
            except (OceanoError, OSError, WorkerGone) as failure:
                log.exception("a build failed; the index is unchanged")
                self._not_before = time.monotonic() + _AFTER_FAILURE_SECONDS
                self.failure = (
                    failure if isinstance(failure, OceanoError) else unavailable(f"A build failed: {failure!r}.")
                )
            with self._state:
                repeat = self._again and not self.failure and not self._stopping
                self._again = False
                self._build = self._new_build() if repeat else None
                if not repeat:
                    self._thread = None
