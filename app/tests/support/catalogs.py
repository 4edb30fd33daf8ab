"""Databases for catalogs: PostgreSQL where it is installed or POSTGRES_TEST_URL names a server, and SQLite files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from app.catalog import open_postgresql, open_sqlite
from app.catalog.database import Database
from tests.support.postgresql import binaries, shared_server

_URL = os.environ.get("POSTGRES_TEST_URL", "")
NO_SERVER = "" if _URL or binaries() else "PostgreSQL is not installed, and POSTGRES_TEST_URL names no server"
KINDS = [
    "sqlite",
    pytest.param(
        "postgresql",
        marks=pytest.mark.skipif(bool(NO_SERVER), reason=NO_SERVER),
    ),
]


@contextmanager
def new_postgresql_database() -> Iterator[str]:
    """Create an empty database and yield its URL; delete it in the end."""
    if NO_SERVER:
        pytest.skip(NO_SERVER)
    url = make_url(_URL or shared_server().url)
    name = f"oceano_{uuid.uuid4().hex[:12]}"
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield url.set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@contextmanager
def new_catalog(kind: str, folder: Path) -> Iterator[Database]:
    """Open an empty catalog of a kind; close and delete it in the end.

    Args:
        kind: one of KINDS.
        folder: for the file of SQLite.
    """
    if kind == "sqlite":
        opened: Database = open_sqlite(folder / "catalog.sqlite3")
        yield opened
        opened.close()
        return
    with new_postgresql_database() as url:
        opened = open_postgresql(url)
        yield opened
        opened.close()
