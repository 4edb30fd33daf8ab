"""Adds keys and users."""

from __future__ import annotations

import posixpath
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from app.catalog import Key, KeyKind, KeyStore
from app.core.errors import OceanoError
from app.security.roles import ROLES, Role
from app.security.secrets import MAX_SECRET, MIN_PASSWORD, hash_key, hash_password, new_id, new_key

MAX_NAME: Final = 100
MAX_FOLDERS: Final = 100
MAX_DAYS: Final = 3650
_GENERATED_BYTES: Final = 15  # of a password, 20 characters


@dataclass(frozen=True, slots=True)
class Grant:
    """What a new key or user may do.

    Attributes:
        name: 1 to `MAX_NAME` characters.
        role: as in `Access`.
        folders: as in `Access`.
        days: until it expires; None: never.
    """

    name: str
    role: Role
    folders: tuple[str, ...] = ()
    days: int | None = None


def checked_grant(name: str, role: str, folders: Sequence[str] = (), days: int | None = None) -> Grant:
    """Return a grant of what someone entered.

    Raises:
        OceanoError: `invalid_request`; its details name the field.
    """
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise _wrong("name", f"a name has 1 to {MAX_NAME} printable characters")
    if role not in ROLES:
        raise _wrong("role", f"the role must be one of {', '.join(ROLES)}")
    if any(not folder.startswith("/") or "\0" in folder for folder in folders):
        raise _wrong("folders", "each folder must be an absolute path")
    if len(folders) > MAX_FOLDERS:
        raise _wrong("folders", f"at most {MAX_FOLDERS} folders")
    if days is not None and not 1 <= days <= MAX_DAYS:
        raise _wrong("days", f"the days must be 1 to {MAX_DAYS}")
    normal = dict.fromkeys(posixpath.normpath(folder) for folder in folders)
    return Grant(name, role, tuple(normal), days)


def add_key(store: KeyStore, grant: Grant, by: str) -> tuple[Key, str]:
    """Add a key.

    Args:
        store: the catalog's keys.
        grant: what it may do.
        by: who adds it.

    Returns:
        The key as it is stored, and the key itself, which cannot be read again.

    Raises:
        OceanoError: `ledger_unavailable`, `disk_full`.
    """
    key_id = new_id()
    key = new_key(key_id)
    return _add(store, grant, by, key_id, hash_key(key), kind="key"), key


def add_user(store: KeyStore, grant: Grant, password: str, by: str) -> Key:
    """Add a user.

    Args:
        store: the catalog's users.
        grant: what the user may do.
        password: as `checked_password` returns it.
        by: who adds the user.

    Raises:
        OceanoError: `invalid_request` if there is a user with this name; `ledger_unavailable`, `disk_full`.
    """
    return _add(store, grant, by, new_id(), hash_password(checked_password(password)), kind="user")


def checked_password(password: str) -> str:
    """Return a password; raise OceanoError `invalid_request` if it is too short or too long."""
    if not MIN_PASSWORD <= len(password) <= MAX_SECRET:
        raise _wrong("password", f"a password has at least {MIN_PASSWORD} and at most {MAX_SECRET} characters")
    return password


def new_password() -> str:
    """Return a random password."""
    return secrets.token_urlsafe(_GENERATED_BYTES)


def _add(store: KeyStore, grant: Grant, by: str, key_id: str, digest: str, *, kind: KeyKind) -> Key:
    if grant.role != "admin" and not store.is_any():
        raise _wrong("first", "the first key or user must have the role admin: nobody else could add more")
    ends = None if grant.days is None else datetime.now(UTC) + timedelta(days=grant.days)
    return store.add(
        key_id,
        kind,
        grant.name,
        digest,
        role=grant.role,
        folders=grant.folders,
        expires_at=None if ends is None else ends.isoformat(timespec="seconds"),
        by=by,
    )


def _wrong(field: str, message: str) -> OceanoError:
    return OceanoError("invalid_request", message, details={"field": field, "cause": f"key_{field}"})
