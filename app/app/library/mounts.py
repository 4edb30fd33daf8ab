"""Mount points: tell a disconnected drive from deleted files."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import psutil

from app.core.paths import is_in

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mount:
    """Files at or below `folder` are on the drive mounted at `point`; the two differ where there are links."""

    folder: str
    point: str


def mounted() -> set[str]:
    """Return the folders on which drives are mounted, except the root."""
    try:
        return {one.mountpoint for one in psutil.disk_partitions(all=True)} - {"/"}
    except OSError as failure:  # a container may hide them
        _log.warning("mount points cannot be listed: %s", failure)
        return set()


def mounts_of(folder: str) -> set[Mount]:
    """Return the drives that files at or below an absolute path may be on."""
    real = os.path.realpath(folder)
    found = set()
    for point in mounted():
        if is_in(point, real):
            found.add(Mount(folder.rstrip("/") + point[len(real.rstrip("/")) :], point))
        if is_in(folder, point):
            found.add(Mount(point, point))
        elif is_in(real, point):  # the folder is a link, or below one
            found.add(Mount(folder, point))
    return found
