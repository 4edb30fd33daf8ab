"""exiftool, a reader of metadata that shares no code with Oceano."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PROGRAM = shutil.which("exiftool")
needs_exiftool = pytest.mark.skipif(
    PROGRAM is None, reason="exiftool is not installed (Debian: libimage-exiftool-perl)"
)


def tags(path: Path) -> dict[str, Any]:
    """Return what exiftool reads of a file, with structures; its complaints fail the test."""
    assert PROGRAM is not None
    command = [PROGRAM, "-json", "-struct", "-n", "-charset", "filename=utf8", "-validate", "-all", str(path)]
    (found,) = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    # Errors and warnings; of the pictures that tests make, the Exif data lack what cameras write.
    assert str(found["Validate"]).startswith("0 0" if path.suffix == ".xmp" else "0 "), found
    return dict(found)


def regions(path: Path) -> dict[str, dict[str, float]]:
    """Return the areas of the faces that exiftool reads, by name."""
    info = tags(path)["RegionInfo"]
    return {one["Name"]: one["Area"] for one in info["RegionList"] if one["Type"] == "Face"}
