"""The version of a catalog's tables, and their creation and upgrades with Alembic (`migrations`).

Alembic takes 0.2 s to import, so a catalog of the current version is recognised without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from app.core.errors import OceanoError

CURRENT: Final = "0004"
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_VERSIONS: Final = "alembic_version"
_KNOWN: Final = frozenset({"0001", "0002", "0003", CURRENT})


def upgrade(connection: Connection, name: str) -> None:
    """Create the tables, or upgrade those of an earlier version; the caller commits, and holds a lock.

    Args:
        connection: in a transaction.
        name: of the database, for messages.

    Raises:
        OceanoError: `ledger_unavailable` if a newer Oceano wrote the database, or another program.
    """
    found = _version(connection, name)
    if found == CURRENT:
        return
    if found is not None and found not in _KNOWN:
        raise OceanoError("ledger_unavailable", f"{name} was written by a newer Oceano (version {found})")
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, "head")


def is_current(connection: Connection, name: str) -> bool:
    """Return whether a database has the tables of this version."""
    return _version(connection, name) == CURRENT


def _version(connection: Connection, name: str) -> str | None:
    tables = inspect(connection).get_table_names()
    if _VERSIONS in tables:
        found = connection.execute(text(f"SELECT version_num FROM {_VERSIONS}")).scalars().all()  # noqa: S608
        return found[0] if found else None
    if tables:
        raise OceanoError(
            "invalid_setting",
            f"{name} holds tables of another program ({', '.join(sorted(tables)[:3])}). Use a database of its own.",
        )
    return None
