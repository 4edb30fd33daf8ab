"""Mount points of drives, which tell a disconnected drive from deleted files."""

from __future__ import annotations

import logging
import os

import psutil

from app.catalog import Mount
from app.core.paths import is_in

_log = logging.getLogger(__name__)


def mounted() -> set[str]:
    """Return the mount points of all drives, except the root; empty if they cannot be listed."""
    try:
        return {one.mountpoint for one in psutil.disk_partitions(all=True)} - {"/"}
    except OSError as failure:  # hidden in some containers
        _log.warning("mount points cannot be listed: %s", failure)
        return set()


def mounts_of(folder: str) -> set[Mount]:
    """Return the drives that may hold files at or below `folder`, an absolute path."""
    real = os.path.realpath(folder)
    found = set()
    for point in mounted():
        if is_in(point, real):
            found.add(Mount(folder.rstrip("/") + point[len(real.rstrip("/")) :], point))
        if is_in(folder, point):
            found.add(Mount(point, point))
        elif is_in(real, point):  # the folder is a link or in a linked folder
            found.add(Mount(folder, point))
    return found
