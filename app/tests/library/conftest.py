"""A folder of pictures that a test module's `bench` has ingested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def pictures(bench: Any, colour_pictures: Path) -> Path:
    """The folder of eight pictures, ingested."""
    assert bench.run(colour_pictures).done == 8
    return colour_pictures
