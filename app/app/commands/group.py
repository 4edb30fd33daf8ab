"""`oceano group`: group faces without a name by person."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from threading import Event

from app.commands.audit import record_command
from app.commands.console import counted, faces_bar, say
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK
from app.service import open_grouping


def run_group(settings: Settings, stop: Event, *, again: bool, as_json: bool) -> int:
    """Group the faces of the index, and print what was done.

    Args:
        settings: name the index and the data folder.
        stop: once set, the current batch is given up; a later run goes on.
        again: look at all faces again.
        as_json: print one JSON line.

    Returns:
        The exit code: 0, or 130 if interrupted.

    Raises:
        OceanoError: as `open_grouping` and `Grouping.run` do.
    """
    start = time.perf_counter()
    with open_grouping(settings, stop) as grouping, ExitStack() as bars:
        record_command(settings, "command.group", {"all": again or None})
        counts = grouping.run(again=again, on_progress=_nothing if as_json else _progress(bars))
    seconds = time.perf_counter() - start
    if as_json:
        values = {"faces": counts.faces, "removed": counts.removed, "left": counts.left, "interrupted": stop.is_set()}
        print(json.dumps(values | {"seconds": round(seconds, 3)}), flush=True)  # noqa: T201
    elif stop.is_set():
        left = "1 is" if counts.left == 1 else f"{counts.left} are"
        say(f"Interrupted: looked at {counted(counts.faces, 'face')}, {left} left. Run `oceano group` again to go on.")
    else:
        looked = f"Looked at {counted(counts.faces, 'face')}, and grouped those that show the same person."
        removed = f" Removed {counted(counts.removed, 'deleted face')} from the groups." if counts.removed else ""
        say(f"{looked if counts.faces else 'There are no new faces to group.'}{removed} It took {seconds:.1f} s.")
    return EXIT_INTERRUPTED if stop.is_set() else EXIT_OK


def _progress(bars: ExitStack) -> Callable[[int, int], None]:
    """Return what shows a progress bar, from the first call on, which has the number of faces."""
    advance: Callable[[int], None] | None = None

    def update(faces: int, total: int) -> None:
        nonlocal advance
        if advance is None:
            advance = bars.enter_context(faces_bar(total))
        advance(faces)

    return update


def _nothing(faces: int, total: int) -> None:
    """Show nothing."""
