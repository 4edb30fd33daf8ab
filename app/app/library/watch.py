"""Files as they come into a folder, once nobody writes to them any more."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePath
from threading import Event
from typing import Final

from watchfiles import Change, watch
from watchfiles._rust_notify import WatchfilesRustInternalError

from app.core.errors import OceanoError
from app.core.paths import readable
from app.library.scan import EVERYTHING, File, Folder, PathFilter, file_at

_log = logging.getLogger(__name__)

SETTLED_SECONDS: Final = 2.0  # a file that has not changed for so long is whole
_TICK_MS: Final = 500


def arrivals(folder: Folder, stop: Event, wanted: PathFilter = EVERYTHING) -> Iterator[list[File]]:
    """New and changed files at or below a folder, until `stop` is set; what comes at once comes together.

    The first list is empty: from then on nothing is missed, so that what lies there already can be taken up.
    Raises OceanoError `folder_unavailable`, also where the system watches no more folders.
    """
    waiting: dict[str, tuple[File, float]] = {}
    look_at_all = False
    while True:
        try:
            for changes in _changes(folder, stop):
                paths = [folder.path] if look_at_all else [path for what, path in changes if what is not Change.deleted]
                look_at_all = False
                for path in paths:
                    waiting |= {one.path: (one, time.monotonic()) for one in _at_or_below(path, folder, wanted)}
                folder.require()
                yield _settled(waiting)
            return
        except WatchfilesRustInternalError as failure:  # a name that is no UTF-8: what came with it was not told
            _log.warning("all of %s is looked at again: %s", readable(folder.path), failure)
            look_at_all = True
        except (OSError, UnicodeError) as failure:
            raise OceanoError(
                "folder_unavailable",
                f"{readable(folder.path)} cannot be watched: {failure}. More folders than the system watches? Raise "
                "fs.inotify.max_user_watches, or set WATCHFILES_FORCE_POLLING=true",
            ) from failure


def _changes(folder: Folder, stop: Event) -> Iterator[set[tuple[Change, str]]]:
    """An empty one where nothing happens; ends once `stop` is set."""
    return watch(
        folder.path,
        watch_filter=None,
        debounce=_TICK_MS,
        rust_timeout=_TICK_MS,
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=False,
        ignore_permission_denied=True,
    )


def _at_or_below(path: str, folder: Folder, wanted: PathFilter) -> Iterator[File]:
    """A folder that is moved in says nothing of its files. A scan would not come to what is passed over."""
    if any(_is_passed_over(str(parent), folder, wanted) for parent in PurePath(path).parents):
        return
    if os.path.isdir(path):  # noqa: PTH112 - never raises
        if not _is_passed_over(path, folder, wanted):
            yield from folder.scan(wanted, start=path)
    elif wanted.takes(folder.below(path)) and (file := file_at(path)) is not None:
        yield file


def _is_passed_over(path: str, folder: Folder, wanted: PathFilter) -> bool:
    """Is this a folder below that a scan does not enter: excluded, or a link?"""
    below = folder.below(path)
    return bool(below) and (Path(path).is_symlink() or not wanted.enters(below))


def _settled(waiting: dict[str, tuple[File, float]]) -> list[File]:
    """Take out those that have not changed for `SETTLED_SECONDS`; those that are gone again, too."""
    whole = []
    now = time.monotonic()
    for path, (before, since) in list(waiting.items()):
        file = file_at(path)
        if file is None:
            del waiting[path]
        elif file != before:
            waiting[path] = (file, now)
        elif now - since >= SETTLED_SECONDS:
            del waiting[path]
            whole.append(file)
    return whole
