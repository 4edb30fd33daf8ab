"""Keys of programs and users of the page, in the catalog: names, roles and hashes, never a key or a password."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import RowMapping, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.catalog.clock import timestamp
from app.catalog.database import Database
from app.catalog.retry import retried
from app.catalog.tables import KEYS, SESSIONS
from app.core.errors import OceanoError

KeyKind = Literal["key", "user"]
_KEY: Final = KEYS.c
_SHOWN: Final = (
    _KEY.id, _KEY.kind, _KEY.name, _KEY.role, _KEY.folders, _KEY.created_at, _KEY.created_by, _KEY.expires_at,
    _KEY.used_at, _KEY.revoked_at,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """A key or a user.

    Attributes:
        id: 16 hexadecimal digits; a key begins with it.
        kind: a key of a program, or a user with a password.
        name: for people; that of a user is unique among the users who are not revoked.
        role: what it may do.
        folders: absolute paths that it may see; empty: all.
        created_at: UTC, ISO 8601.
        created_by: who made it.
        expires_at: when it ends, UTC, ISO 8601; None: never.
        used_at: last use, to the minute; None: never.
        revoked_at: when it was revoked; None: it is valid.
    """

    id: str
    kind: KeyKind
    name: str
    role: str
    folders: tuple[str, ...]
    created_at: str
    created_by: str
    expires_at: str | None
    used_at: str | None
    revoked_at: str | None

    def is_valid(self) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > timestamp())


class KeyStore:
    """The keys and users of a catalog. Safe for threads.

    All methods raise OceanoError: `ledger_unavailable` or `disk_full`.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(
        self,
        key_id: str,
        kind: KeyKind,
        name: str,
        digest: str,
        *,
        role: str,
        folders: Sequence[str],
        expires_at: str | None,
        by: str,
    ) -> Key:
        """Add a key or a user.

        Args:
            key_id: as in `Key`.
            kind: as in `Key`.
            name: as in `Key`.
            digest: hash of the key or the password.
            role: as in `Key`.
            folders: as in `Key`.
            expires_at: as in `Key`.
            by: who adds it.

        Raises:
            OceanoError: `invalid_request` if a user has this name.
        """
        values = {
            "id": key_id, "kind": kind, "name": name, "digest": digest, "role": role,
            "folders": json.dumps(list(folders)), "created_at": timestamp(), "created_by": by,
            "expires_at": expires_at,
        }  # fmt: skip
        try:
            with self.database.writing(urgent=True) as connection:
                connection.execute(insert(KEYS).values(values))
        except OceanoError as failure:
            if isinstance(failure.__cause__, IntegrityError):
                raise OceanoError(
                    "invalid_request",
                    f"there is a user {name!r} already",
                    details={"field": "name", "cause": "key_taken"},
                ) from failure
            raise
        found = self.get(key_id)
        assert found is not None  # noqa: S101 - keys are revoked, not deleted
        return found

    @retried
    def get(self, key_id: str) -> Key | None:
        """Return a key or user by its id."""
        with self.database.reading() as connection:
            row = connection.execute(select(*_SHOWN).where(_KEY.id == key_id)).mappings().first()
        return None if row is None else _key(row)

    @retried
    def digest(self, key_id: str) -> str | None:
        """Return the hash of a key or of a user's password."""
        with self.database.reading() as connection:
            return connection.execute(select(_KEY.digest).where(_KEY.id == key_id)).scalar_one_or_none()

    @retried
    def user(self, name: str) -> Key | None:
        """Return the valid user with a name."""
        query = select(*_SHOWN).where(_KEY.kind == "user", _KEY.name == name, _KEY.revoked_at.is_(None))
        with self.database.reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _key(row)

    @retried
    def all(self, *, revoked: bool = False) -> list[Key]:
        """Return the keys and users, by kind and name; on request also those that were revoked."""
        query = select(*_SHOWN).order_by(_KEY.kind, _KEY.name, _KEY.created_at)
        if not revoked:
            query = query.where(_KEY.revoked_at.is_(None))
        with self.database.reading() as connection:
            return [_key(row) for row in connection.execute(query).mappings().all()]

    @retried
    def is_any(self) -> bool:
        """Return whether a key or user was ever added."""
        with self.database.reading() as connection:
            return bool(connection.execute(select(exists().where(_KEY.id.is_not(None)))).scalar_one())

    @retried
    def set_password(self, key_id: str, digest: str) -> None:
        """Replace the hash of a user's password, and end the user's sessions."""
        with self.database.writing(urgent=True) as connection:
            connection.execute(update(KEYS).where(_KEY.id == key_id).values(digest=digest))
            connection.execute(delete(SESSIONS).where(SESSIONS.c.key_id == key_id))

    @retried
    def revoke(self, key_id: str) -> None:
        """Make a key or user invalid for good, and end its sessions."""
        with self.database.writing(urgent=True) as connection:
            valid = update(KEYS).where(_KEY.id == key_id, _KEY.revoked_at.is_(None))
            connection.execute(valid.values(revoked_at=timestamp()))
            connection.execute(delete(SESSIONS).where(SESSIONS.c.key_id == key_id))

    def record_use(self, key_id: str) -> None:
        """Record that a key or user is used now."""
        with self.database.writing(urgent=True) as connection:
            connection.execute(update(KEYS).where(_KEY.id == key_id).values(used_at=timestamp()))


def _key(row: RowMapping) -> Key:
    return Key(**{**row, "folders": tuple(json.loads(row["folders"]))})
