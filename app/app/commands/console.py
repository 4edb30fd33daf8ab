"""What a terminal shows of work that takes long."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from app.core.errors import OceanoError
from app.core.paths import readable
from app.ingest import IngestCounts
from app.library import Folder, PathFilter

_log = logging.getLogger(__name__)


def say(text: str) -> None:
    """What a command has to say at its end, to whoever called it and to its log."""
    print(text, flush=True)  # noqa: T201
    _log.info("%s", text)


def counted(number: int, noun: str) -> str:
    """ "1 file", "2 files"."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


class IngestProgress:
    """A bar with rate and time left on a terminal, a line at the end anywhere; with `as_json` one JSON line only.

    The number of files is counted beside the ingest, so that it need not wait for it.
    """

    def __init__(self, folder: Path, wanted: PathFilter, *, as_json: bool) -> None:
        self._folder = folder
        self._wanted = wanted
        self._as_json = as_json
        self._start = time.perf_counter()
        self._left = threading.Event()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f}/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=as_json or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("files", total=None, rate=0.0)

    def __enter__(self) -> IngestProgress:
        self._bar.start()
        if not self._bar.disable:
            threading.Thread(target=self._count, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._bar.stop()

    def update(self, counts: IngestCounts) -> None:
        """Show where a run is."""
        if self._bar.disable:
            return
        finished = counts.images + counts.skipped + counts.ignored
        said = f"{counts.faces} faces" + (f", {counts.failed} failed" if counts.failed else "")
        rate = counts.images / max(1e-3, time.perf_counter() - self._start)
        self._bar.update(self._task, completed=finished, description=said, rate=rate)

    def finish(self, counts: IngestCounts, *, interrupted: bool, pruned: dict[str, int] | None) -> None:
        """Say what a run did."""
        self._bar.stop()
        seconds = time.perf_counter() - self._start
        rate = counts.images / max(1e-3, seconds)
        if self._as_json:
            said = asdict(counts) | {
                "images": counts.images,
                "seconds": round(seconds, 3),
                "images_per_second": round(rate, 1),
                "folder": readable(str(self._folder)),
                "interrupted": interrupted,
            }
            said |= {} if pruned is None else {"pruned": pruned}
            print(json.dumps(said), flush=True)  # noqa: T201
            return
        parts = [
            f"{counted(counts.images, 'image')}, {counted(counts.faces, 'face')}",
            f"{counts.done} done, {counts.no_face} without a face",
            f"{counts.failed} failed, {counts.duplicate} duplicates",
            f"{counts.skipped} skipped" + (f" ({counts.failed_before} failed before)" if counts.failed_before else ""),
            f"{seconds:.1f} s, {rate:.0f} images/s",
        ]
        print(("interrupted: " if interrupted else "") + "; ".join(parts), flush=True)  # noqa: T201
        if counts.failed or counts.failed_before:
            print("--report FILE.csv lists what failed, with reasons; --retry tries it again")  # noqa: T201

    def _count(self) -> None:
        total = 0
        with suppress(OceanoError):  # the ingest says so, too
            for _ in Folder(self._folder).scan(self._wanted):
                total += 1
                if self._left.is_set():
                    return
            self._bar.update(self._task, total=total)


@contextmanager
def faces_bar(total: int) -> Iterator[Callable[[int], None]]:
    """A bar for work on every face; yields a function of faces so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("faces", total=total)

        def advance(so_far: int) -> None:
            bar.update(task, completed=so_far)

        yield advance


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for a download; yields a function of (bytes so far, bytes in all or None)."""
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=None)

        def advance(so_far: int, total: int | None) -> None:
            bar.update(task, completed=so_far, total=total)

        yield advance
