"""Watching a folder for new and changed files, which are reported once they are completely written.

A file is complete if it has not changed for `STABLE_SECONDS`, no process has it open for writing, and its content is
not visibly cut off. A cut-off file that stays as it is for `CUT_OFF_SECONDS`, and one that a program keeps open for
`OPEN_SECONDS` without a change, are reported all the same.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from threading import Event
from typing import Final

from watchfiles import Change, watch
from watchfiles._rust_notify import WatchfilesRustInternalError

from app.core.errors import OceanoError
from app.core.paths import readable
from app.core.types import File
from app.images import is_cut_off
from app.library.scan import EVERYTHING, Folder, PathFilter, contents
from app.library.writers import Writers

_log = logging.getLogger(__name__)

STABLE_SECONDS: Final = 2.0
CUT_OFF_SECONDS: Final = 60.0
OPEN_SECONDS: Final = 600.0
_CHECK_SECONDS: Final = 2.0  # between two checks of a file that is not complete
_TICK_MS: Final = 500


@dataclass(slots=True)
class _Waiting:
    """A file that may be incomplete: what is known of it, and times of the monotonic clock in seconds."""

    file: File
    since: float
    next_check: float = 0.0
    is_open: bool = False
    is_cut_off: bool | None = None


class Watch:
    """The new and changed files at or below a folder.

    Args:
        folder: the folder to watch.
        stop: once set, ends the iteration.
        wanted: the files to report.
    """

    def __init__(self, folder: Folder, stop: Event, wanted: PathFilter = EVERYTHING) -> None:
        self._folder = folder
        self._stop = stop
        self._wanted = wanted
        self._waiting: dict[str, _Waiting] = {}
        self._writers = Writers()

    def arrivals(self) -> Iterator[list[File]]:
        """Yield complete files, in lists, about twice a second.

        The first list is empty. It means that the watch has started: files that exist by then can be ingested without
        missing any that arrive meanwhile.

        Yields:
            Files that are complete; often an empty list.

        Raises:
            OceanoError: `folder_unavailable`, also if the system cannot watch that many folders.
        """
        folder, rescan = self._folder, False
        while True:
            try:
                for changes in _changes(folder, self._stop):
                    changed = [path for change, path in changes if change is not Change.deleted]
                    paths = [folder.path] if rescan else changed
                    rescan = False
                    for path in paths:
                        for file in _files_at(path, folder, self._wanted):
                            self._wait_for(file)
                    folder.require()
                    yield self._pop_complete()
                return
            except WatchfilesRustInternalError as failure:  # a file name that is not UTF-8: the other changes are lost
                _log.warning("changes in %s were lost, scanning all of it: %s", readable(folder.path), failure)
                rescan = True
            except (OSError, UnicodeError) as failure:
                raise OceanoError(
                    "folder_unavailable",
                    f"{readable(folder.path)} cannot be watched: {failure}. If it has too many subfolders for the "
                    "system, raise fs.inotify.max_user_watches or set WATCHFILES_FORCE_POLLING=true",
                ) from failure

    def complete(self, files: Iterable[File]) -> Iterator[File]:
        """Yield those of the existing files that are complete; `arrivals` yields the others later."""
        for file in files:
            age = _age(file)
            one = _Waiting(file, time.monotonic() - age)
            if age < STABLE_SECONDS or self._is_incomplete(one, age):
                self._wait_for(file)
            else:
                yield file

    def _wait_for(self, file: File) -> None:
        self._waiting[file.path] = _Waiting(file, time.monotonic())

    def _pop_complete(self) -> list[File]:
        """Remove and return the complete files; drop deleted ones."""
        complete = []
        for path, one in list(self._waiting.items()):
            now = time.monotonic()
            if now < one.next_check:
                continue
            file = self._folder.file(path, self._wanted)
            if file is None:  # deleted, or a raw file whose JPEG has arrived
                del self._waiting[path]
            elif file != one.file:
                self._waiting[path] = _Waiting(file, now)
            elif now - one.since < STABLE_SECONDS:
                continue
            elif self._is_incomplete(one, max(now - one.since, _age(file))):
                one.next_check = time.monotonic() + _CHECK_SECONDS
            else:
                del self._waiting[path]
                complete.append(file)
        return complete

    def _is_incomplete(self, one: _Waiting, seconds: float) -> bool:
        """Return whether a file that has not changed for some seconds is still being written."""
        path = one.file.path
        if seconds >= OPEN_SECONDS:
            if one.is_open:
                _log.warning("%s is ingested as it is: a program still has it open for writing", readable(path))
            return False
        one.is_open = self._writers.have_open(path)
        if one.is_open:
            return True
        if seconds >= CUT_OFF_SECONDS:
            return False
        if one.is_cut_off is None:
            one.is_cut_off = _is_cut_off(one.file)
            if one.is_cut_off:
                _log.info("%s is cut off; waiting for the rest of it", readable(path))
        return one.is_cut_off


def _age(file: File) -> float:
    """Seconds since the last change of a file. A change sets the ctime, whatever mtime a program sets."""
    changed_ns = file.mtime_ns if file.ctime_ns is None else file.ctime_ns
    return time.time() - changed_ns / 1e9


def _is_cut_off(file: File) -> bool:
    try:
        data = contents(file)
    except (OSError, OceanoError):
        return False  # the ingest says what is wrong with it
    return data is not None and is_cut_off(data)


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
