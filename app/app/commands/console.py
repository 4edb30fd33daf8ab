"""Output of commands: lines, and progress bars on a terminal. Only the bars import rich, because that is slow."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)


def say(text: str) -> None:
    """Print a line, and write it to the log of the command."""
    print(text, flush=True)  # noqa: T201
    _log.info("%s", text)


def warn(text: str) -> None:
    """Print a line to standard error."""
    print(plain(text), file=sys.stderr, flush=True)  # noqa: T201


def plain(text: str) -> str:
    """Return a text, such as a path, without control characters, which a terminal would obey."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 file" or "2 files"."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


@contextmanager
def faces_bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for work on faces, if standard error is a terminal.

    Args:
        total: number of faces.

    Yields:
        A function that sets the number of finished faces.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=None)

        def advance(so_far: int, total: int | None) -> None:
            bar.update(task, completed=so_far, total=total)

        yield advance
