"""Output of commands: summaries, and progress bars on a terminal."""

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
    """Print a line, and write it to the log of the command."""
    print(text, flush=True)  # noqa: T201
    _log.info("%s", text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 file" or "2 files"."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


class IngestProgress:
    """Progress bar of an ingest, if standard error is a terminal, and a summary at the end.

    A thread counts the files meanwhile, so that the ingest does not have to wait for the total.

    Args:
        folder: the folder of the ingest.
        wanted: the files to count.
        as_json: print only one line of JSON, at the end.
    """

    def __init__(self, folder: Path, wanted: PathFilter, *, as_json: bool) -> None:
        self._folder = folder
        self._wanted = wanted
        self._as_json = as_json
        self._start = time.perf_counter()
        self._closed = threading.Event()
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
        self._closed.set()
        self._bar.stop()

    def update(self, counts: IngestCounts) -> None:
        """Update the progress bar."""
        if self._bar.disable:
            return
        finished = counts.images + counts.skipped + counts.ignored
        description = f"{counts.faces} faces" + (f", {counts.failed} failed" if counts.failed else "")
        rate = counts.images / max(1e-3, time.perf_counter() - self._start)
        self._bar.update(self._task, completed=finished, description=description, rate=rate)

    def finish(self, counts: IngestCounts, *, interrupted: bool, pruned: dict[str, int] | None) -> None:
        """Print the summary of a run, as text or JSON.

        Args:
            counts: what the run did.
            interrupted: whether it was interrupted.
            pruned: what it pruned, as a dict of `PruneCounts`; None if it did not prune.
        """
        self._bar.stop()
        seconds = time.perf_counter() - self._start
        rate = counts.images / max(1e-3, seconds)
        if self._as_json:
            summary = asdict(counts) | {
                "images": counts.images,
                "seconds": round(seconds, 3),
                "images_per_second": round(rate, 1),
                "folder": readable(str(self._folder)),
                "interrupted": interrupted,
            }
            summary |= {} if pruned is None else {"pruned": pruned}
            print(json.dumps(summary), flush=True)  # noqa: T201
            return
        parts = [
            f"{counted(counts.images, 'image')}, {counted(counts.faces, 'face')}",
            f"{counts.done} done, {counts.no_face} without a face",
            f"{counts.failed} failed, {counts.duplicate} duplicates, {counts.moved} moved",
            f"{counts.skipped} skipped" + (f" ({counts.failed_before} failed before)" if counts.failed_before else ""),
            f"{seconds:.1f} s, {rate:.0f} images/s",
        ]
        print(("interrupted: " if interrupted else "") + "; ".join(parts), flush=True)  # noqa: T201
        if left_out := _left_out(counts):
            print(left_out, flush=True)  # noqa: T201
        if pages := _pages(counts):
            print(pages, flush=True)  # noqa: T201
        if counts.failed or counts.failed_before:
            print("--report FILE.csv lists the failed files with reasons; --retry ingests them again")  # noqa: T201

    def _count(self) -> None:
        total = 0
        with suppress(OceanoError):  # the ingest reports it, too
            for _ in Folder(self._folder).scan(self._wanted):
                total += 1
                if self._closed.is_set():
                    return
            self._bar.update(self._task, total=total)


def _pages(counts: IngestCounts) -> str:
    """The sentences about the pages after the first of a file; empty if there are none."""
    sentences = []
    if counts.first_page_only:
        files = counted(counts.first_page_only, "file")
        sentences.append(f"Only the first page was read of {files} (--all-pages reads all).")
    if counts.pages or counts.failed_pages:
        sentences.append(f"{counted(counts.pages, 'further page')} read, {counts.failed_pages} failed.")
    return " ".join(sentences)


def _left_out(counts: IngestCounts) -> str:
    """The sentences about what an ingest left out; empty if nothing."""
    sentences = []
    parts = [
        counted(counts.ignored, "other file") if counts.ignored else "",
        counted(counts.system_files, "temporary or system file") if counts.system_files else "",
        counted(counts.system_folders, "system folder") if counts.system_folders else "",
    ]
    if any(parts):
        advice = " (--include-system takes them)" if counts.system_files or counts.system_folders else ""
        sentences.append(f"Left out: {', '.join(filter(None, parts))}{advice}.")
    if counts.raw_pairs:
        files = counted(counts.raw_pairs, "raw file")
        sentences.append(f"Left out: {files} beside a JPEG or HEIC of the same name (--raw-pairs takes them).")
    if counts.linked_folders:
        links = "link to a folder" if counts.linked_folders == 1 else "links to folders"
        sentences.append(f"Not followed: {counts.linked_folders} {links}; ingest the folders they lead to.")
    return " ".join(sentences)


@contextmanager
def faces_bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for work on faces, if standard error is a terminal.

    Args:
        total: number of faces.

    Yields:
        A function that sets the number of finished faces.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("faces", total=total)

        def advance(so_far: int) -> None:
            bar.update(task, completed=so_far)

        yield advance


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar for a download, if standard error is a terminal.

    Args:
        name: a label.

    Yields:
        A function that sets the number of downloaded bytes, and their total or None.
    """
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=None)

        def advance(so_far: int, total: int | None) -> None:
            bar.update(task, completed=so_far, total=total)

        yield advance
