"""Folders in memory, for data of many tests: to create an index takes about a hundred fsyncs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")
_NEEDED_BYTES = 2_000_000_000


@contextmanager
def folder_in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a folder for a module or a run, deleted in the end; on disk where there is no memory for it."""
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _NEEDED_BYTES:
        with tempfile.TemporaryDirectory(prefix="oceano-", dir=_MEMORY, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    else:
        yield tmp_path_factory.mktemp("memory")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a module's tests; a module that wants it says `base = memory.base`."""
    with folder_in_memory(tmp_path_factory) as folder:
        yield folder


@pytest.fixture
def tmp_path(base: Path) -> Iterator[Path]:
    """A folder for one test, below `base`; a module that wants it says `tmp_path = memory.tmp_path`."""
    folder = Path(tempfile.mkdtemp(dir=base))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder to one that does not exist, with the holes of its files.

    An index of a few faces is 180 MB of holes and 1 MB of data; `shutil.copytree` writes all of it.
    """
    subprocess.run(["cp", "-a", "--sparse=auto", "--", source, target], check=True)
