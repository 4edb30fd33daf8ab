"""Catalogs for tests: SQLite always, PostgreSQL where POSTGRES_TEST_URL names a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.catalog.database import Database
from tests.support.catalogs import KINDS, new_catalog
from tests.support.running import free_port

__all__ = ["KINDS"]


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty catalog of either kind."""
    with new_catalog(request.param, tmp_path / "state") as opened:
        yield opened


@pytest.fixture
def unused_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    return free_port()
