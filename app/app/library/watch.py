"""Watching a folder for new and changed files, which are reported once they are completely written."""

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

STABLE_SECONDS: Final = 2.0  # a file that has not changed for this long counts as completely written
_TICK_MS: Final = 500


def arrivals(folder: Folder, stop: Event, wanted: PathFilter = EVERYTHING) -> Iterator[list[File]]:
    """Yield new and changed files at or below a folder, in lists, about twice a second.

    The first list is empty. It means that the watch has started: files that exist by then can be ingested without
    missing any that arrive meanwhile.

    Args:
        folder: the folder to watch.
        stop: once set, ends the iteration.
        wanted: the files to yield.

    Yields:
        Files that have not changed for `STABLE_SECONDS`; often an empty list.

    Raises:
        OceanoError: `folder_unavailable`, also if the system cannot watch that many folders.
    """
    unstable: dict[str, tuple[File, float]] = {}
    rescan = False
    while True:
        try:
            for changes in _changes(folder, stop):
                changed = [path for change, path in changes if change is not Change.deleted]
                paths = [folder.path] if rescan else changed
                rescan = False
                for path in paths:
                    unstable |= {file.path: (file, time.monotonic()) for file in _files_at(path, folder, wanted)}
                folder.require()
                yield _pop_stable(unstable)
            return
        except WatchfilesRustInternalError as failure:  # a file name that is not UTF-8: the other changes are lost
            _log.warning("changes in %s were lost, scanning all of it: %s", readable(folder.path), failure)
            rescan = True
        except (OSError, UnicodeError) as failure:
            raise OceanoError(
                "folder_unavailable",
                f"{readable(folder.path)} cannot be watched: {failure}. If it has too many subfolders for the system, "
                "raise fs.inotify.max_user_watches or set WATCHFILES_FORCE_POLLING=true",
            ) from failure


def _changes(folder: Folder, stop: Event) -> Iterator[set[tuple[Change, str]]]:
    """Yield sets of changes, empty ones if nothing changed; ends once `stop` is set."""
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


def _files_at(path: str, folder: Folder, wanted: PathFilter) -> Iterator[File]:
    """Yield the files that a scan would find at or below a changed path: a folder moved here is one change."""
    if any(_is_skipped(str(parent), folder, wanted) for parent in PurePath(path).parents):
        return
    if os.path.isdir(path):  # noqa: PTH112 - never raises
        if not _is_skipped(path, folder, wanted):
            yield from folder.scan(wanted, start=path)
    elif (file := folder.file(path, wanted)) is not None:
        yield file


def _is_skipped(path: str, folder: Folder, wanted: PathFilter) -> bool:
    """Return whether a scan does not list this subfolder: it is excluded, made by a system, or a link."""
    return bool(folder.relative(path)) and (Path(path).is_symlink() or not folder.lists(path, wanted))


def _pop_stable(unstable: dict[str, tuple[File, float]]) -> list[File]:
    """Remove and return the files that have not changed for `STABLE_SECONDS`; drop deleted ones."""
    stable = []
    now = time.monotonic()
    for path, (earlier, since) in list(unstable.items()):
        file = file_at(path)
        if file is None:
            del unstable[path]
        elif file != earlier:
            unstable[path] = (file, now)
        elif now - since >= STABLE_SECONDS:
            del unstable[path]
            stable.append(file)
    return stable
