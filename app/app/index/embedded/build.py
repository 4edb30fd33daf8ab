"""A build of the graph, on a copy of the shard, while the shard serves searches and writes.

1. Block writes, flush, copy the shard's folder (hard links for files that Edge only reads), start a journal of the ids
   that are written, allow writes.
2. A builder process with low priority builds a graph of the copy, see `build_plan`.
3. A second worker opens the result. The points in the journal are copied to it from the old shard, in rounds.
4. Block writes, copy the last points, sync the log, compare the numbers of points, replace the pointer `current`
   atomically, send requests to the second worker, allow writes. The old worker exits, and its shard is removed.

Writes wait during the copy in 1 and during 4; searches wait only for Edge's flush (about a hundred fsyncs). The
journal is not synced: until the pointer is replaced, the old shard holds every write. A kill at any time leaves a
pointer to a complete shard, and a temporary folder that the next owner removes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.core.files import free_bytes, sync
from app.index.embedded.build_plan import BuildPlan, plan_build
from app.index.embedded.catch_up import CatchUp, Journal
from app.index.embedded.options import EXIT_BUILT, EXIT_NOTHING_TO_BUILD, OwnerOptions
from app.index.embedded.protocol import Op, pack, read_reply
from app.index.embedded.storage import (
    copy_folder,
    current_shard,
    disk_bytes,
    new_name,
    set_current,
    sync_log,
    sync_tree,
)
from app.index.embedded.supervisor import WorkerSupervisor, command
from app.index.errors import unavailable

log = logging.getLogger("app.index.embedded.owner")

# Free disk space that a build needs, as a multiple of the size of what it builds: a new graph, vectors and payloads
# are about as large as the old ones. The copy shares most files.
_SPACE_FACTOR: Final = 1.5


class BuildCancelled(Exception):
    """The build was cancelled."""


class Build:
    """One build of the graph.

    Args:
        options: the owner's options.
        supervisor: sends requests to the worker.
        write_lock: the lock that writes hold.
        lock: file descriptor of the owner's lock; the builder inherits it.
        on_switch: called when the new shard has become the current one, with the write lock held.
    """

    def __init__(
        self,
        options: OwnerOptions,
        supervisor: WorkerSupervisor,
        write_lock: threading.Lock,
        lock: int,
        on_switch: Callable[[], None],
    ) -> None:
        self._options = options
        self._on_switch = on_switch
        self._supervisor = supervisor
        self._write_lock = write_lock
        self._lock = lock
        self._state = threading.Lock()
        self._cancelled = False
        self._builder: subprocess.Popen[bytes] | None = None
        self._journal: Journal | None = None

    def record(self, ids: bytes) -> None:
        """Record the ids of points that are about to be written.

        The caller must hold the write lock.

        Args:
            ids: raw UUIDs, 16 bytes each, concatenated.
        """
        if self._journal is not None:
            self._journal.append(ids)

    def cancel(self) -> None:
        """Kill the builder, or stop after the current step; a switch that has begun is finished."""
        with self._state:
            self._cancelled = True
            if self._builder is not None:
                self._builder.kill()

    def run(self) -> None:
        """Build the graph and switch to it, if there is anything to build. On an error the index keeps its content.

        Raises:
            BuildCancelled: `cancel` was called.
            OceanoError: `disk_full`, or `index_unavailable` if the builder or a worker failed.
            OSError: a file cannot be read or written.
            WorkerGone: the second worker exited.
        """
        if (plan := self._plan()) is None:
            log.info("nothing to build")
            return
        log.info("building %s graph of %d points", "a second" if plan.spare_kb else "one", plan.points)
        began = time.monotonic()
        copy = self._options.folder / new_name("build")
        try:
            copy_seconds = self._copy(copy, plan)
            if not self._build_graph(copy, plan):
                log.info("nothing to build")
                return
            sync_tree(copy)  # before the old shard is removed
            new_shard = copy.rename(copy.with_name(new_name("shard")))
            sync(new_shard.parent)
            try:
                switch_seconds = self._switch(new_shard)
            except BaseException:
                if current_shard(new_shard.parent) != new_shard:
                    shutil.rmtree(new_shard)
                raise
            log.info(
                "built in %.1f s; writes waited %.2f s for the copy and %.2f s for the switch",
                time.monotonic() - began,
                copy_seconds,
                switch_seconds,
            )
        finally:
            with self._write_lock:
                journal, self._journal = self._journal, None
            if journal is not None:
                journal.close()
            shutil.rmtree(copy, ignore_errors=True)

    def _plan(self) -> BuildPlan | None:
        read_reply(self._supervisor.call(pack(Op.FLUSH)))  # so that the removed points are counted
        return plan_build(read_reply(self._supervisor.call(pack(Op.INFO))), self._options)

    def _copy(self, copy: Path, plan: BuildPlan) -> float:
        """Copy the shard and start the journal; return the seconds for which writes waited."""
        self._require_space(plan)
        with self._write_lock:
            began = time.monotonic()
            read_reply(self._supervisor.call(pack(Op.FLUSH)))
            copy_folder(self._supervisor.shard, copy, link_frozen=True)
            self._journal = Journal(self._options.folder)
            return time.monotonic() - began

    def _require_space(self, plan: BuildPlan) -> None:
        free = max(0, free_bytes(self._options.folder) - self._options.min_free_mb * 1_000_000)
        needed = int(_SPACE_FACTOR * plan.share * disk_bytes(self._supervisor.shard))
        if free < needed:
            raise OceanoError(
                "disk_full",
                f"Building the index's graph needs {needed // 1_000_000} MB of disk space; {free // 1_000_000} MB are "
                "free. Searches still work, but more slowly.",
                details={"free_bytes": free, "needed_bytes": needed},
            )

    def _build_graph(self, copy: Path, plan: BuildPlan) -> bool:
        """Run the builder, which is killed with this thread (PR_SET_PDEATHSIG); return False if it built nothing."""
        with self._state:
            self._require_not_cancelled()
            self._builder = subprocess.Popen(  # noqa: S603 - our own module
                command("build", plan.options(self._options), copy, os.getpid()),
                stdin=subprocess.DEVNULL,
                pass_fds=(self._lock,),
            )
        code = self._builder.wait()
        with self._state:
            self._builder = None
            self._require_not_cancelled()
        if code not in (EXIT_BUILT, EXIT_NOTHING_TO_BUILD):
            raise unavailable(f"The process that builds the index's graph exited with code {code}; see the index log.")
        return code == EXIT_BUILT

    def _require_not_cancelled(self) -> None:
        if self._cancelled:
            raise BuildCancelled

    def _switch(self, new_shard: Path) -> float:
        """Copy recorded writes to the new shard and make it current; return the seconds for which writes waited."""
        worker = self._supervisor.start_worker(new_shard)
        try:
            assert self._journal is not None  # noqa: S101 - for the type checker
            catch_up = CatchUp(self._journal, self._supervisor.call, worker.call, self._require_not_cancelled)
            catch_up.follow()
            self._require_not_cancelled()
            read_reply(worker.call(pack(Op.FLUSH)))
            with self._write_lock:
                began = time.monotonic()
                catch_up.finish()
                sync_log(new_shard)  # enough for the last writes, see `handler`, and much faster than Edge's flush
                self._supervisor.guard.require()
                with contextlib.suppress(OSError):
                    set_current(new_shard)
                if current_shard(new_shard.parent) != new_shard:
                    raise unavailable("The file that names the current shard could not be written.")
                old_shard, old_worker = self._supervisor.shard, self._supervisor.replace(worker)
                self._on_switch()
                seconds = time.monotonic() - began
        except BaseException:
            worker.kill()
            raise
        if old_worker is not None:
            old_worker.close()
        shutil.rmtree(old_shard, ignore_errors=True)  # the next owner removes what is left
        return seconds
