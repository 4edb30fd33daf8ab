"""What becomes of jobs when workers go: others get their files; a job without a worker is queued or interrupted."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    case,
    cast,
    delete,
    exists,
    extract,
    func,
    literal,
    or_,
    select,
    update,
)

from app.catalog.clock import seconds_now, timestamp
from app.catalog.tables import CLAIMS, JOBS, RESERVATIONS, WORKERS
from app.core.errors import OceanoError
from app.core.retry import RETRY_SECONDS

_log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 60
AFTER_START_SECONDS: Final = 30  # of the server; the workers renew their leases in this time
_JOB: Final = JOBS.c
IS_ATTENDED: Final = exists().where(WORKERS.c.job_id == _JOB.id)
_STOPPED: Final = or_(_JOB.state == "stopping", and_(_JOB.state == "running", _JOB.shared == 0))
_STARTED: Final = func.coalesce(_JOB.resumed_at, _JOB.started_at, _JOB.created_at)


def require_lease(connection: Connection, worker: str, job_id: str) -> None:
    """Refuse an ingest that others took for dead; else nobody does so until the transaction ends.

    Raises:
        OceanoError: `ingest_in_progress`.
    """
    mine = select(WORKERS.c.id).where(WORKERS.c.id == worker).with_for_update(read=True)
    if connection.execute(mine).first() is None:
        raise OceanoError(
            "ingest_in_progress",
            f"this ingest was suspended or without the catalog for more than {LEASE_SECONDS} s, so others may do its "
            f"job {job_id} now. What it recorded before stays; ingest the folder again, or run `oceano jobs resume`",
            details={"job": job_id},
        )


def is_any_dead(connection: Connection) -> bool:
    """Return whether the lease of a worker has ended that nobody has removed yet."""
    return connection.execute(select(WORKERS.c.id).where(is_dead(connection)).limit(1)).first() is not None


def remove_dead(connection: Connection) -> None:
    """Remove the workers whose lease has ended; what they had is free for others.

    A job that ends with its last worker ended when that worker was last seen.
    """
    ended = select(WORKERS.c.id, WORKERS.c.job_id, WORKERS.c.leased_until).where(is_dead(connection))
    dead = connection.execute(ended.with_for_update(skip_locked=True)).all()
    if not dead:
        return
    _log.info("%d of the workers did not renew their lease; others take over what they had", len(dead))
    ids = [one.id for one in dead]
    release(connection, ids)
    connection.execute(delete(WORKERS).where(WORKERS.c.id.in_(ids)))
    for one in sorted(dead, key=lambda one: one.leased_until, reverse=True):  # the last one of a job counts
        seen = datetime.fromtimestamp(max(0, one.leased_until - LEASE_SECONDS), UTC).isoformat(timespec="seconds")
        ended_at = case((literal(seen) > _STARTED, seen), else_=_STARTED)
        interrupted = update(JOBS).where(_JOB.id == one.job_id, _STOPPED, ~IS_ATTENDED)
        connection.execute(interrupted.values(state="interrupted", ended_at=ended_at))
    end_unattended(connection)


def remove(connection: Connection, workers: Collection[str]) -> None:
    """Remove workers; what they had is free for others."""
    release(connection, workers)
    connection.execute(delete(WORKERS).where(WORKERS.c.id.in_(workers)))
    end_unattended(connection)


def release(connection: Connection, workers: Collection[str]) -> None:
    """Give back the files, images and phases that workers have."""
    connection.execute(update(CLAIMS).where(CLAIMS.c.worker.in_(workers)).values(worker=None))
    connection.execute(delete(RESERVATIONS).where(RESERVATIONS.c.worker.in_(workers)))
    connection.execute(update(JOBS).where(_JOB.holder.in_(workers)).values(holder=None))


def end_unattended(connection: Connection) -> None:
    """Queue or interrupt jobs without a worker; workers whose lease has ended must be gone already."""
    connection.execute(update(JOBS).where(_STOPPED, ~IS_ATTENDED).values(state="interrupted", ended_at=timestamp()))
    waiting = update(JOBS).where(_JOB.state == "running", _JOB.shared == 1, ~IS_ATTENDED).values(state="queued")
    connection.execute(waiting)


def is_dead(connection: Connection) -> ColumnElement[bool]:
    """Return the condition that the lease of a worker has ended.

    No lease can be renewed while the server is away. Those that ended meanwhile last until some time after its start,
    if their workers may still retry.
    """
    now = seconds_now(connection)
    ended = WORKERS.c.leased_until < now
    if connection.dialect.name == "sqlite":
        return ended
    start = cast(extract("epoch", func.pg_postmaster_start_time()), BigInteger)
    meanwhile = WORKERS.c.leased_until.between(start - math.ceil(RETRY_SECONDS), start)
    return and_(ended, or_(~meanwhile, start + AFTER_START_SECONDS < now))
