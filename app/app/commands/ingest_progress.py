"""What `oceano ingest` prints: a progress bar on a terminal, and a summary."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.catalog import FileRecord
from app.commands.console import counted, plain
from app.core.paths import readable
from app.library import IngestCounts


class IngestProgress:
    """Progress bar of an ingest, if standard error is a terminal, and a summary at the end.

    Args:
        folder: the folder of the ingest.
        as_json: print only one line of JSON, at the end.
    """

    def __init__(self, folder: Path, *, as_json: bool) -> None:
        self._folder = folder
        self._as_json = as_json
        self._start = time.perf_counter()
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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, counts: IngestCounts, total: int | None) -> None:
        """Update the progress bar; `total` is the number of files, None while they are counted."""
        if self._bar.disable:
            return
        description = f"{counts.faces} faces" + (f", {counts.failed} failed" if counts.failed else "")
        rate = counts.images / max(1e-3, time.perf_counter() - self._start)
        self._bar.update(self._task, completed=counts.finished, total=total, description=description, rate=rate)

    def finish(
        self,
        counts: IngestCounts,
        failures: Sequence[FileRecord],
        *,
        interrupted: bool,
        pruned: dict[str, int] | None,
    ) -> None:
        """Print the summary of a run, as text or JSON.

        Args:
            counts: what the run did.
            failures: the first files that failed.
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
        for line in filter(None, (_names(counts), _left_out(counts), _pages(counts), *_failed(counts, failures))):
            print(line, flush=True)  # noqa: T201


def _names(counts: IngestCounts) -> str:
    """The sentences about names in the metadata; empty if there are none."""
    sentences = []
    if counts.named:
        sentences.append(f"{counted(counts.named, 'face')} named by the pictures (to undo that, see `oceano changes`).")
    if counts.unmatched_names:
        names = counted(counts.unmatched_names, "name")
        sentences.append(f"{names} in the pictures not given to a face (--report lists them).")
    return " ".join(sentences)


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


def _failed(counts: IngestCounts, failures: Sequence[FileRecord]) -> list[str]:
    """The lines about files that failed, and what to do about them; empty if there are none."""
    lines = [f"failed: {plain(readable(record.path))}: {record.message}" for record in failures]
    if counts.failed > len(failures):
        lines.append(f"and {counts.failed - len(failures)} more")
    if counts.failed > len(failures) or counts.failed_before:
        lines.append("--report FILE.csv lists all failed files with reasons; --retry ingests them again")
    elif counts.failed:
        them = "it" if counts.failed == 1 else "them"
        lines.append(f"--retry ingests {them} again")
    return lines
