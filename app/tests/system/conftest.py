"""Fixtures of tests in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from playwright.sync_api import Browser

from app.demo import draw_group, draw_portrait
from tests.support.browsing import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures to search with; none of them is in a gallery."""
    folder = tmp_path_factory.mktemp("queries")
    for variant in (101, 102, 103):
        cv2.imwrite(str(folder / f"one-{variant}.png"), draw_portrait(1, variant))
    cv2.imwrite(str(folder / "two.png"), draw_group([2, 3], variant=101))
    cv2.imwrite(str(folder / "none.png"), 255 - 0 * draw_portrait(1, 101))
    (folder / "rubbish.jpg").write_bytes(b"\xff\xd8\xff this is no picture")
    return folder
