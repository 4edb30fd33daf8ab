"""`oceano keys`: add, list and revoke keys and users."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import typer

from app.catalog import Key, KeyStore
from app.commands.audit import record_command
from app.commands.console import plain
from app.core.config import Settings
from app.core.errors import EXIT_OK, OceanoError
from app.core.paths import readable
from app.security import add_key, add_user, checked_grant, checked_password, hash_password
from app.service import open_keys

_MAX_LINE: Final = 2000  # characters of a password on the standard input


def run_add(
    settings: Settings,
    name: str,
    role: str,
    folders: Sequence[str],
    days: int | None,
    *,
    user: bool,
    as_json: bool,
) -> int:
    """Add a key and print it, or add a user.

    Args:
        settings: name the catalog.
        name: of the key or user.
        role: as in `Access`.
        folders: as in `Access`.
        days: until it expires; None: never.
        user: add a user, whose password is asked for.
        as_json: print JSON.

    Raises:
        OceanoError: `invalid_request`, `ledger_unavailable`, `disk_full`.
    """
    grant = checked_grant(name, role, folders, days)
    with open_keys(settings) as store:
        if user:
            added, secret = add_user(store, grant, _new_password(), _by()), None
        else:
            added, secret = add_key(store, grant, _by())
    told = {"kind": added.kind, "name": added.name, "id": added.id}
    record_command(settings, "key.added", told | {"role": added.role, "folders": [*added.folders] or None})
    if as_json:
        typer.echo(json.dumps(asdict(added) | ({} if secret is None else {"key": secret})))
    elif secret is None:
        typer.echo(f"added: user {readable(added.name)}, role {added.role}")
    else:
        typer.echo("This is the key. It cannot be shown again.", err=True)
        typer.echo(secret)
    return EXIT_OK


def run_list(settings: Settings, *, everything: bool, as_json: bool) -> int:
    """Print the keys and users.

    Args:
        settings: name the catalog.
        everything: also those that were revoked.
        as_json: print JSON.

    Raises:
        OceanoError: `ledger_unavailable`.
    """
    with open_keys(settings) as store:
        found = store.all(revoked=everything)
    if as_json:
        typer.echo(json.dumps([asdict(key) for key in found]))
        return EXIT_OK
    if not found:
        typer.echo("no keys and users", err=True)
    for key in found:
        typer.echo(_line(key))
    return EXIT_OK


def run_revoke(settings: Settings, name: str) -> int:
    """Revoke a key or user.

    Args:
        settings: name the catalog.
        name: its name, if only one has it, or its id.

    Raises:
        OceanoError: `not_found`, `invalid_request`, `ledger_unavailable`, `disk_full`.
    """
    with open_keys(settings) as store:
        key = _find(store, name)
        store.revoke(key.id)
    record_command(settings, "key.revoked", {"kind": key.kind, "name": key.name, "id": key.id})
    typer.echo(f"revoked: {key.kind} {readable(key.name)}")
    return EXIT_OK


def run_password(settings: Settings, name: str) -> int:
    """Set a user's password.

    Args:
        settings: name the catalog.
        name: of the user, or the id.

    Raises:
        OceanoError: `not_found`, `invalid_request`, `ledger_unavailable`, `disk_full`.
    """
    with open_keys(settings) as store:
        user = _find(store, name, kind="user")
        store.set_password(user.id, hash_password(_new_password()))
    record_command(settings, "key.password", {"name": user.name, "id": user.id})
    typer.echo(f"changed: password of user {readable(user.name)}")
    return EXIT_OK


def _find(store: KeyStore, name: str, kind: str | None = None) -> Key:
    found = [key for key in store.all() if name in (key.id, key.name) and kind in (None, key.kind)]
    if not found:
        raise OceanoError("not_found", f"there is no {kind or 'key or user'} {name!r}; see `oceano keys list`")
    if len(found) > 1:
        ids = ", ".join(key.id for key in found)
        raise OceanoError("invalid_request", f"several have the name {name!r}; give one of the ids {ids}")
    return found[0]


def _new_password() -> str:
    """Ask for a password twice, or read it from the first line of the standard input."""
    if not sys.stdin.isatty():
        return checked_password(sys.stdin.readline(_MAX_LINE).rstrip("\r\n"))
    password = checked_password(getpass.getpass("Password: "))
    if getpass.getpass("Again: ") != password:
        raise OceanoError("invalid_request", "the two passwords differ")
    return password


def _by() -> str:
    return f"command {getpass.getuser()}@{socket.gethostname()}"


def _line(key: Key) -> str:
    folders = ", ".join(plain(readable(folder)) for folder in key.folders) or "all folders"
    state = "revoked" if key.revoked_at else "expired" if not key.is_valid() else f"expires {key.expires_at or 'never'}"
    used = f"used {key.used_at}" if key.used_at else "not used"
    return f"{key.id}  {key.kind:4}  {readable(key.name)}  {key.role}  {folders}  {state}  {used}"
