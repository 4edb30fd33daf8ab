"""Workers: processes with a lease that they renew. What a dead worker had goes to others when its lease ends."""

from __future__ import annotations

import json
import logging
import math
import time
import uuid
from collections.abc import Collection
from threading import Event, Thread
from typing import Final

from sqlalchemy import Connection, and_, exists, or_, select, update

from app.catalog.clock import seconds_now, timestamp
from app.catalog.database import Database
from app.catalog.jobs import ENDED, Phase, images_in
from app.catalog.leases import LEASE_SECONDS, end_unattended, release, remove, remove_dead
from app.catalog.retry import retried
from app.catalog.tables import CLAIMS, JOBS, WORKERS
from app.core.errors import OceanoError

_log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 10.0
_JOB: Final = JOBS.c


class Worker:
    """This process as a worker, from `join` to `leave`. Safe to call from several threads.

    All methods but `renew` raise OceanoError: `ledger_unavailable` or `disk_full`.

    Args:
        database: the catalog.
        collection: full name of the collection whose jobs it takes.
        name: the machine and the process, for people.
        stop: as the attribute; None: a new one.
        lease_seconds: how long the worker counts as alive without a sign of it.

    Attributes:
        id: a UUID; a new one after a lost lease.
        stop: set once the worker's job is to stop, or its lease was lost.
    """

    def __init__(
        self,
        database: Database,
        collection: str,
        name: str,
        *,
        stop: Event | None = None,
        lease_seconds: int = LEASE_SECONDS,
    ) -> None:
        self.database = database
        self.collection = collection
        self.name = name
        self.id = ""
        self.job_id: str | None = None
        self.stop = stop or Event()
        self._lease_seconds = lease_seconds
        self._left = Event()
        self._renewing: Thread | None = None
        self._late_at = -math.inf

    def join(self) -> None:
        """Register the worker, and renew its lease in a thread from now on."""
        self._register()
        self._renewing = Thread(target=self._renew_until_left, name="lease", daemon=True)
        self._renewing.start()

    def leave(self) -> None:
        """Give back what the worker has, and remove it; if the database is unavailable, its lease expires."""
        self._left.set()
        if self._renewing is not None:
            self._renewing.join(RENEW_SECONDS)  # else it may use a connection that is closed next
        try:
            with self.database.writing(urgent=True) as connection:
                remove(connection, [self.id])
        except OceanoError as failure:
            _log.warning("this worker could not be removed from the catalog: %s", failure.message)

    @retried
    def take_job(self, without: Collection[str] = ()) -> str | None:
        """Take part in the oldest job in which there is something to do.

        Args:
            without: ids of jobs that are not taken.

        Returns:
            The id of the job; None if there is none.
        """
        with self.database.writing(urgent=True) as connection:
            if not self._was_late(connection):
                remove_dead(connection)
            if not connection.execute(select(WORKERS.c.id).where(WORKERS.c.id == self.id)).first():
                self._insert(connection)  # the lease was lost, and with it all that the worker had
            now = seconds_now(connection)
            open_files = exists().where(CLAIMS.c.job_id == _JOB.id, CLAIMS.c.finished == 0, CLAIMS.c.worker.is_(None))
            any_left = exists().where(CLAIMS.c.job_id == _JOB.id, CLAIMS.c.finished == 0)
            ready = open_files.where(CLAIMS.c.not_before <= now)
            held = _JOB.holder.is_not(None)
            useful = or_(and_(_JOB.phase != "files", ~held), ready, and_(_JOB.phase == "files", ~any_left))
            query = select(_JOB.id).where(_JOB.collection == self.collection, _JOB.shared == 1, useful)
            query = query.where(_JOB.state.in_(("queued", "running")), _JOB.id.not_in(list(without)))
            found: str | None = connection.execute(query.order_by(_JOB.created_at).limit(1)).scalar_one_or_none()
            if found is not None:
                _start(connection, found)
                connection.execute(update(WORKERS).where(WORKERS.c.id == self.id).values(job_id=found))
        self.job_id = found
        return found

    @retried
    def hold(self, phase: Phase) -> bool:
        """Become the one worker that scans the folder of its job, or finishes it; return whether it is.

        A job is finished after its last file.
        """
        here = update(JOBS).where(_JOB.id == self.job_id, _JOB.holder.is_(None), _JOB.state.not_in(ENDED))
        if phase == "finish":
            left = exists().where(CLAIMS.c.job_id == _JOB.id, CLAIMS.c.finished == 0)
            here = here.where(or_(_JOB.phase == "finish", and_(_JOB.phase == "files", ~left)))
        else:
            here = here.where(_JOB.phase == phase)
        with self.database.writing(urgent=True) as connection:
            return connection.execute(here.values(holder=self.id, phase=phase)).rowcount == 1

    @retried
    def release_job(self) -> None:
        """Give back the files, images and the phase of the job that the worker has."""
        with self.database.writing(urgent=True) as connection:
            release(connection, [self.id])
            connection.execute(update(WORKERS).where(WORKERS.c.id == self.id).values(job_id=None))
            end_unattended(connection)
        self.job_id = None

    def renew(self) -> None:
        """Renew the lease once, remove dead workers, and see whether the job is to stop."""
        try:
            with self.database.writing(urgent=True) as connection:
                was_late = self._was_late(connection)
                until = seconds_now(connection) + self._lease_seconds
                mine = update(WORKERS).where(WORKERS.c.id == self.id).values(leased_until=until)
                lost = not connection.execute(mine).rowcount
                state = select(_JOB.state).where(_JOB.id == self.job_id)
                stopping = connection.execute(state).scalar_one_or_none() in ("stopping", *ENDED)
                if not was_late:
                    remove_dead(connection)  # else an ingest would wait forever for images that a dead one had
        except OceanoError as failure:  # tried again; if it lasts, what this worker has goes to others
            _log.warning("the lease could not be renewed: %s", failure.message)
            return
        if lost:
            _log.warning("the lease of this worker ended before it was renewed; others have its files now")
        if lost or stopping:
            self.stop.set()

    def _was_late(self, connection: Connection) -> bool:
        """Return whether the lease of this worker ended before it was renewed, now or less than one lease ago.

        Then perhaps the catalog was away for all workers, and the others need time to renew theirs.
        """
        now = seconds_now(connection)
        on_time = select(WORKERS.c.id).where(WORKERS.c.id == self.id, WORKERS.c.leased_until >= now)
        if connection.execute(on_time).first() is None:
            self._late_at = time.monotonic()
        return time.monotonic() - self._late_at < self._lease_seconds

    def _renew_until_left(self) -> None:
        while not self._left.wait(min(RENEW_SECONDS, self._lease_seconds / 4)):
            self.renew()

    def _register(self) -> None:
        with self.database.writing(urgent=True) as connection:
            remove_dead(connection)
            self._insert(connection)

    def _insert(self, connection: Connection) -> None:
        self.id = str(uuid.uuid4())
        until = seconds_now(connection) + self._lease_seconds
        connection.execute(WORKERS.insert().values(id=self.id, name=self.name, leased_until=until))


def _start(connection: Connection, job_id: str) -> None:
    """Record that a queued job runs from now on, and how much was done before; only one worker does."""
    queued = select(_JOB.started_at, _JOB.counts).where(_JOB.id == job_id, _JOB.state == "queued")
    if (job := connection.execute(queued.with_for_update()).one_or_none()) is None:
        return
    values: dict[str, object] = {"state": "running", "started_at": timestamp()}
    if job.started_at is not None:
        before = images_in(json.loads(job.counts))
        values = {"state": "running", "resumed_at": timestamp(), "images_before": before}
    connection.execute(update(JOBS).where(_JOB.id == job_id).values(values))
