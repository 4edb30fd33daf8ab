"""One build of the graph, on a copy, while the shard goes on serving.

1. Hold the writes, flush, copy the shard's folder (files that Edge only reads get a second name instead), let the
   writes go on; from here the ids of what is written are noted in a journal.
2. A builder process, niced, makes the graph in the copy.
3. A second worker opens the result; what the journal names is read from the old shard and put there, in rounds.
4. Hold the writes for the last round, flush, compare the numbers of points, point `current` to the new shard in one
   rename, and send requests there. The old worker ends, its folder is removed.

Writes wait for the copy in 1 and for 4; searches wait for nothing but Edge's flush (a hundred fsyncs). The journal
needs no fsync: until the rename the old shard has it all, and a kill at any instant leaves a pointer to a whole shard
and a leftover that the next owner removes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.core.files import free_bytes, sync
from app.index.embedded.options import EXIT_BUILT, EXIT_NOTHING_TO_BUILD, OwnerOptions, kilobytes
from app.index.embedded.protocol import ID_BYTES, Op, join_ids, pack, read_answer, split_ids, unavailable
from app.index.embedded.storage import (
    copy_folder,
    current_shard,
    disk_bytes,
    new_name,
    point_to,
    sync_tree,
)
from app.index.embedded.supervisor import Worker, WorkerSupervisor, command

log = logging.getLogger("app.index.embedded.owner")

_REPLAY_POINTS: Final = 128
_LAST_ROUND_BYTES: Final = 512 * ID_BYTES
_MOST_ROUNDS: Final = 20
# The copy shares the vectors; the new graph, vectors and payloads are as large as the old ones, and some.
_ROOM: Final = 1.5
# The share of deleted points from which Edge rewrites a segment.
_VACUUM: Final = 0.2


class GivenUp(Exception):
    """The build was cancelled."""


class Journal:
    """Ids of points written since the copy, in an unnamed file: one may append while another reads."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the build
        self.size = 0

    def append(self, ids: bytes) -> None:
        os.pwrite(self._file.fileno(), ids, self.size)
        self.size += len(ids)

    def read(self, start: int, most: int) -> bytes:
        return os.pread(self._file.fileno(), min(most, self.size - start), start)

    def close(self) -> None:
        self._file.close()


class Build:
    """`writing` is the lock that writes hold, `lock` the owner's, which the builder inherits."""

    def __init__(self, options: OwnerOptions, supervisor: WorkerSupervisor, writing: threading.Lock, lock: int) -> None:
        self._options = options
        self._supervisor = supervisor
        self._writing = writing
        self._lock = lock
        self._state = threading.Lock()
        self._cancelled = False
        self._builder: subprocess.Popen[bytes] | None = None
        self._journal: Journal | None = None

    def note(self, ids: bytes) -> None:
        """Remember what is about to be written. Call with `writing` held."""
        if self._journal is not None:
            self._journal.append(ids)

    def cancel(self) -> None:
        """Stop at the next step, now if the builder is at work; a switch that has begun is finished."""
        with self._state:
            self._cancelled = True
            if self._builder is not None:
                self._builder.kill()

    def run(self) -> None:
        """Raises GivenUp, OceanoError, OSError, WorkerGone; the index then is as it was."""
        if not (points := self._due()):
            log.info("nothing to build")
            return
        began = time.monotonic()
        copy = self._options.folder / new_name("build")
        try:
            held = self._copy(copy)
            if not self._make_graph(copy, points):
                log.info("nothing to build")
                return
            sync_tree(copy)  # the old shard is removed soon, so this one has to be on the disk
            fresh = copy.rename(copy.with_name(new_name("shard")))
            sync(fresh.parent)
            try:
                switch = self._switch(fresh)
            except BaseException:
                if current_shard(fresh.parent) != fresh:
                    shutil.rmtree(fresh)
                raise
            took = time.monotonic() - began
            log.info("built in %.1f s; writes held %.2f s to copy and %.2f s to switch", took, held, switch)
        finally:
            with self._writing:
                journal, self._journal = self._journal, None
            if journal is not None:
                journal.close()
            shutil.rmtree(copy, ignore_errors=True)

    def _due(self) -> int:
        """Points that Edge would build a graph of, or 0. It spares a copy to ask first: Edge decides by the same."""
        with self._writing:
            read_answer(self._supervisor.call(pack(Op.FLUSH)))
        points, indexed, left, _ = read_answer(self._supervisor.call(pack(Op.INFO)))
        many_wait = points - indexed >= self._options.indexing_points
        return int(points) if many_wait or left > _VACUUM * (indexed + left) else 0

    def _copy(self, copy: Path) -> float:
        """Copy the shard and start the journal; the seconds for which writes were held."""
        self._require_room()
        with self._writing:
            began = time.monotonic()
            read_answer(self._supervisor.call(pack(Op.FLUSH)))
            copy_folder(self._supervisor.shard, copy, link_frozen=True)
            self._journal = Journal(self._options.folder)
            return time.monotonic() - began

    def _require_room(self) -> None:
        free = max(0, free_bytes(self._options.folder) - self._options.min_free_mb * 1_000_000)
        needed = int(_ROOM * disk_bytes(self._supervisor.shard))
        if free < needed:
            raise OceanoError(
                "disk_full",
                f"Building the index's graph needs {needed // 1_000_000} MB on the disk, {free // 1_000_000} MB are "
                "free. Searching goes on, slower than it could.",
                details={"free_bytes": free, "needed_bytes": needed},
            )

    def _make_graph(self, copy: Path, points: int) -> bool:
        """Run the builder; False if there was nothing to build. It dies with this thread (PR_SET_PDEATHSIG)."""
        share = kilobytes(int(points * self._options.full_scan_share), self._options.embedding_size)
        options = dataclasses.replace(self._options, full_scan_kb=min(self._options.full_scan_kb, share))
        with self._state:
            self._go_on()
            self._builder = subprocess.Popen(  # noqa: S603 - our own module
                command("build", options, copy, os.getpid()), stdin=subprocess.DEVNULL, pass_fds=(self._lock,)
            )
        code = self._builder.wait()
        with self._state:
            self._builder = None
            self._go_on()
        if code not in (EXIT_BUILT, EXIT_NOTHING_TO_BUILD):
            raise unavailable(f"The process that builds the index's graph ended with {code}; see the owner's log.")
        return code == EXIT_BUILT

    def _go_on(self) -> None:
        if self._cancelled:
            raise GivenUp

    def _switch(self, fresh: Path) -> float:
        """Bring the new shard up to date and make it the one; the seconds for which writes were held."""
        worker = self._supervisor.open_beside(fresh)
        try:
            done = 0
            for _ in range(_MOST_ROUNDS):
                done, left = self._replay(worker, done)
                if left <= _LAST_ROUND_BYTES:
                    break
            self._go_on()
            read_answer(worker.call(pack(Op.FLUSH)))
            with self._writing:
                began = time.monotonic()
                self._replay(worker, done)
                read_answer(worker.call(pack(Op.FLUSH)))
                self._require_same(worker)
                with contextlib.suppress(OSError):
                    point_to(fresh)
                if current_shard(fresh.parent) != fresh:
                    raise unavailable("The index's pointer could not be written.")
                old_shard, old = self._supervisor.shard, self._supervisor.replace(worker)
                held = time.monotonic() - began
        except BaseException:
            worker.kill()
            raise
        if old is not None:
            old.close()
        shutil.rmtree(old_shard)
        return held

    def _replay(self, worker: Worker, done: int) -> tuple[int, int]:
        """Bring over what the journal names from byte `done` on; how far it came, and how much came meanwhile."""
        assert self._journal is not None  # noqa: S101 - for the type checker
        end = self._journal.size
        while done < end:
            self._go_on()
            ids = self._journal.read(done, min(end - done, _REPLAY_POINTS * ID_BYTES))
            self._bring(worker, join_ids(dict.fromkeys(split_ids(ids))))
            done += len(ids)
        return done, self._journal.size - done

    def _bring(self, worker: Worker, ids: bytes) -> None:
        """Make these points in the new shard what they are in the old one; leave alone those that are so already."""
        ask = pack(Op.RETRIEVE, ids, True)
        ours = {one: (payload, vector) for one, payload, vector in read_answer(self._supervisor.call(ask))}
        theirs = {one: (payload, vector) for one, payload, vector in read_answer(worker.call(ask))}
        put = [one for one, value in ours.items() if theirs.get(one) != value]
        if put:
            vectors = b"".join(ours[one][1] for one in put)
            read_answer(worker.call(pack(Op.PUT, join_ids(put), (vectors, [ours[one][0] for one in put]))))
        if drop := [one for one in theirs if one not in ours]:
            read_answer(worker.call(pack(Op.DELETE, join_ids(drop))))

    def _require_same(self, worker: Worker) -> None:
        """The last line of defence: a shard that lacks points, or has too many, is never switched to."""
        ask = pack(Op.COUNT, body={})
        ours, theirs = read_answer(self._supervisor.call(ask)), read_answer(worker.call(ask))
        if ours != theirs:
            raise unavailable(f"The built shard holds {theirs} points instead of {ours} and is not used.")
