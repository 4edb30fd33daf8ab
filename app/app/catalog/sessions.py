"""Sessions of browsers in the catalog, under the SHA-256 of their tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from sqlalchemy import RowMapping, delete, insert, or_, select, update

from app.catalog.clock import timestamp
from app.catalog.database import Database, storable
from app.catalog.retry import retried
from app.catalog.tables import SESSIONS

_SESSION: Final = SESSIONS.c
MAX_AGENT: Final = 200  # characters of a browser's name that are kept


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that has signed in.

    Attributes:
        digest: SHA-256 of its token.
        before: SHA-256 of the token that this one replaced; None for the first.
        form_token: of its forms, against other sites.
        who: as in `Access`.
        key_id: of the key or user that signed in; None for `API_KEYS` and OIDC.
        role: as in `Access`.
        folders: as in `Access`.
        created_at: when it signed in; this and all times are UTC, ISO 8601.
        rotated_at: when it got its token.
        confirmed: the browser has sent its token since, so the one before it is valid for those on their way only.
        seen_at: last request, to the minute.
        expires_at: when it ends whatever happens.
        address: from where it signed in.
        agent: what the browser calls itself.
    """

    digest: str
    before: str | None
    form_token: str
    who: str
    key_id: str | None
    role: str
    folders: tuple[str, ...]
    created_at: str
    rotated_at: str
    confirmed: bool
    seen_at: str
    expires_at: str
    address: str
    agent: str


class SessionStore:
    """The sessions of a catalog. Safe for threads.

    All methods raise OceanoError: `ledger_unavailable` or `disk_full`.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, session: Session) -> None:
        """Add a session, and delete those that have ended."""
        values = {name: getattr(session, name) for name in Session.__slots__}
        values |= {
            "folders": json.dumps(session.folders),
            "confirmed": int(session.confirmed),
            "who": storable(session.who),
            "agent": storable(session.agent[:MAX_AGENT]),
        }
        with self.database.writing(urgent=True) as connection:
            connection.execute(delete(SESSIONS).where(_SESSION.expires_at <= timestamp()))
            connection.execute(insert(SESSIONS).values(values))

    @retried
    def get(self, digest: str) -> Session | None:
        """Return the session of a token, also of one that was replaced; it may have ended."""
        query = select(SESSIONS).where(or_(_SESSION.digest == digest, _SESSION.before == digest))
        with self.database.reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _session(row)

    @retried
    def of(self, who: str) -> list[Session]:
        """Return the sessions of a person that have not reached their end, newest first."""
        query = select(SESSIONS).where(_SESSION.who == who, _SESSION.expires_at > timestamp())
        with self.database.reading() as connection:
            rows = connection.execute(query.order_by(_SESSION.created_at.desc())).mappings().all()
        return [_session(row) for row in rows]

    def rotate(self, digest: str, sent: str, new: str) -> bool:
        """Give a session a new token; return False if another request did so first.

        Args:
            digest: of its token.
            sent: of the token that the browser has, the same or the one before it; it stays valid, too.
            new: digest of the new token.
        """
        values = {
            "digest": new, "before": sent, "rotated_at": timestamp(), "seen_at": timestamp(), "confirmed": 0
        }  # fmt: skip
        with self.database.writing(urgent=True) as connection:
            return bool(connection.execute(update(SESSIONS).where(_SESSION.digest == digest).values(values)).rowcount)

    def record_use(self, digest: str) -> None:
        """Record that a browser has sent the token of a session now."""
        values = {"seen_at": timestamp(), "confirmed": 1}
        with self.database.writing(urgent=True) as connection:
            connection.execute(update(SESSIONS).where(_SESSION.digest == digest).values(values))

    @retried
    def end(self, digest: str) -> None:
        """End a session."""
        with self.database.writing(urgent=True) as connection:
            connection.execute(delete(SESSIONS).where(or_(_SESSION.digest == digest, _SESSION.before == digest)))

    @retried
    def end_all(self, who: str) -> int:
        """End all sessions of a person; return how many there were."""
        with self.database.writing(urgent=True) as connection:
            return connection.execute(delete(SESSIONS).where(_SESSION.who == who)).rowcount


def _session(row: RowMapping) -> Session:
    return Session(**{**row, "folders": tuple(json.loads(row["folders"])), "confirmed": bool(row["confirmed"])})
