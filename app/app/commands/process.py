"""What the process of every command does first: settings, logs, permissions; and how it is interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

import typer

from app.core.errors import OceanoError
from app.core.files import keep_new_files_private, make_private

if TYPE_CHECKING:
    from app.core.config import Settings


def open_settings(process: str) -> Settings:
    """Read the settings, protect the data and begin the log.

    Args:
        process: name of the log.

    Raises:
        OceanoError: `invalid_setting`.
    """
    from app.core.config import load_settings
    from app.core.logs import configure_logging

    settings = load_settings()
    _protect_data(settings, process)
    try:
        configure_logging(settings.logs_dir, process)
    except OSError as failure:
        raise OceanoError(
            "invalid_setting", f"DATA_DIR={str(settings.data_dir)!r}: logs cannot be written there: {failure}"
        ) from failure
    return settings


def _protect_data(settings: Settings, process: str) -> None:
    """Let only the owner read the data: faces, names, paths, keys. Models are not secret."""
    if process not in ("models", "demo"):
        keep_new_files_private()
    for folder in (settings.logs_dir, settings.state_dir, settings.thumbs_dir):
        make_private(folder)
    if not settings.qdrant_url:  # else it may be that of a server, which may run as another user
        make_private(settings.index_dir)


@contextmanager
def interruptible() -> Iterator[Event]:
    """Set an event on Ctrl-C or SIGTERM; a second signal ends the process immediately."""
    stop = Event()

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        typer.echo("Finishing the current files. Press Ctrl-C again to stop now.", err=True)
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
