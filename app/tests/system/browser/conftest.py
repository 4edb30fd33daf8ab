"""One Chromium, one page and one service for all tests in a browser; starting them takes ten seconds of CPU time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from app.demo import draw_group, draw_portrait, write_demo_gallery
from tests.support.browsing import as_new, chromium, faultless, opened
from tests.support.running import environment, ingest, service

MANY, FEW = 16, 4  # portraits of the first person, and of each other one
GROUPED, GONE = 4, 5  # a person who is in group photographs, too, and one whose photograph is deleted


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures to search with; none of them is in the gallery."""
    folder = tmp_path_factory.mktemp("queries")
    for variant in (101, 102, 103):
        cv2.imwrite(str(folder / f"one-{variant}.png"), draw_portrait(1, variant))
        cv2.imwrite(str(folder / f"grouped-{variant}.png"), draw_portrait(GROUPED, variant))
    cv2.imwrite(str(folder / "many.png"), draw_portrait(0, 101))
    cv2.imwrite(str(folder / "gone.png"), draw_portrait(GONE, 101))
    cv2.imwrite(str(folder / "two.png"), draw_group([2, 3], variant=101))
    cv2.imwrite(str(folder / "none.png"), np.full_like(draw_portrait(1, 101), 255))
    (folder / "rubbish.jpg").write_bytes(b"\xff\xd8\xff this is no picture")
    return folder


@pytest.fixture(scope="package")
def client(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service over a gallery that all tests search in and none changes."""
    gallery = tmp_path_factory.mktemp("gallery")
    write_demo_gallery(gallery, people=GROUPED + 1, portraits=FEW, groups=0)
    write_demo_gallery(gallery, people=1, portraits=MANY, groups=0)
    for number, members in enumerate(([GROUPED, 6, 7], [8, GROUPED])):
        cv2.imwrite(str(gallery / f"group-{number}.jpg"), draw_group(members, variant=number))
    cv2.imwrite(str(gallery / "gone.jpg"), draw_portrait(GONE, 1))
    settings = {"MODEL_NAME": demo_models / "demo", "MAX_UPLOAD_MB": 2, "DET_SIZE": "320,320"}
    env = environment(tmp_path_factory.mktemp("data"), **settings)
    assert ingest(gallery, env)["failed"] == 0
    (gallery / "gone.jpg").unlink()
    with service(env) as client:
        yield client


@pytest.fixture(scope="package")
def address(client: httpx.Client) -> str:
    return str(client.base_url)


@pytest.fixture(scope="package")
def tab(browser: Browser, address: str) -> Iterator[Page]:
    """The page of most tests."""
    with opened(browser, address) as tab:
        yield tab


@pytest.fixture
def page(tab: Page, address: str) -> Iterator[Page]:
    """The page, as new and empty."""
    as_new(tab, address)
    with faultless(tab, address) as page:
        yield page
