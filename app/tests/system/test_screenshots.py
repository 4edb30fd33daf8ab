"""The pictures of the README can be made again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tools import screenshots
from tools.screenshots import DOCS, THEMES, main

NAMES = {f"{page}-{theme}.webp" for page in ("result", "photo") for theme in THEMES}


@pytest.mark.browser
def test_the_pictures_of_the_pages_are_made_from_the_running_product(
    demo_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a copy: to draw the pack again takes seconds
    monkeypatch.setattr(screenshots, "write_demo_pack", lambda folder: shutil.copytree(demo_models / "demo", folder))
    main(["--to", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == NAMES
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert picture.size == (1440, 900)
            assert len(picture.getcolors(2_000_000) or ()) > 1000


def test_the_readme_shows_them_and_they_are_small() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"docs/([a-z-]+\.webp)", readme)) == NAMES
    for name in NAMES:
        assert (DOCS / name).stat().st_size < 300_000
