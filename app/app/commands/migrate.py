"""What `oceano migrate` does: carry the index to a Qdrant server or back, and compare."""

from __future__ import annotations

from contextlib import closing
from threading import Event
from typing import Final

from app.commands.console import faces_bar, say
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, OceanoError
from app.index import is_same, open_index
from app.index.transfer import Migration
from app.service.factory import find_model

EMBEDDED: Final = "embedded"


def run_migrate(settings: Settings, there: Settings, stop: Event, *, exact: bool = False) -> int:
    """The exit code. `there` are the settings of the place to go to, `exact` as for `Migration`.

    Raises OceanoError; what was copied stays.
    """
    if settings.qdrant_url == there.qdrant_url:
        raise OceanoError("invalid_request", f"the index is there already: {_name(settings)}")
    pack = find_model(settings)
    with (
        closing(open_index(settings, pack, create=False)) as source,
        closing(open_index(there, pack)) as target,
        faces_bar(source.count()) as advance,
    ):
        if is_same(source, target):  # by another name, or through a port that leads back
            raise OceanoError("invalid_request", f"{there.qdrant_url} leads to where the index is already")
        migration = Migration(source, target, stop=stop, exact=exact, on_progress=lambda counts: advance(counts.faces))
        try:
            counts = migration.run()
        except OceanoError:
            if not stop.is_set():
                raise
        if stop.is_set():
            say(f"interrupted: {migration.counts.copied} faces copied; run it again to go on")
            return EXIT_INTERRUPTED
        agreement = migration.compare()
    say(
        f"{agreement.faces} faces are on both sides ({counts.copied} copied now, {counts.updated} brought up to date"
        f"{f', {counts.forgotten} forgotten there' if exact else ''}); "
        f"{agreement.searches} searches gave {100 * agreement.share:.1f} % the same faces"
    )
    say(f"to use it, set QDRANT_URL={there.qdrant_url} and start the service again")
    return EXIT_OK


def _name(settings: Settings) -> str:
    return settings.qdrant_url or "embedded in " + str(settings.index_dir)
