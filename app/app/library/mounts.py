"""Where drives are mounted: a drive that is not there is no deletion of its files."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import psutil

from app.core.paths import is_in

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mount:
    """Files at or below `place` are on a drive while one is mounted at `point`; they differ where there are links."""

    place: str
    point: str


def mounted() -> set[str]:
    """Folders in which drives are mounted just now, but for the root of all."""
    try:
        return {one.mountpoint for one in psutil.disk_partitions(all=True)} - {"/"}
    except OSError as failure:  # a container may hide it
        _log.warning("where drives are mounted cannot be told: %s", failure)
        return set()


def mounts_of(folder: str) -> set[Mount]:
    """The drives that files at or below an absolute path may be on just now."""
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
