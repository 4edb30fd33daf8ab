"""Catalogs for tests of the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.catalog import Database
from tests.support.catalogs import KINDS, new_catalog


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty catalog of either kind."""
    with new_catalog(request.param, tmp_path / "state") as opened:
        yield opened
