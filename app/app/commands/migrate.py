"""`oceano migrate`: copy the index to a Qdrant server or back, and compare the two."""

from __future__ import annotations

from contextlib import closing
from threading import Event
from typing import Final

from app.commands.console import counted, faces_bar, say
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, OceanoError
from app.index import is_same, open_index
from app.index.transfer import Migration
from app.service import find_model

EMBEDDED: Final = "embedded"


def run_migrate(settings: Settings, target_settings: Settings, stop: Event, *, exact: bool = False) -> int:
    """Copy the index to another place and compare; continues where an earlier call ended.

    Args:
        settings: the settings of the current index.
        target_settings: the settings of the target.
        stop: once set, ends the copying.
        exact: delete faces from the target that the current index lacks.

    Returns:
        The exit code: 0, or 130 if interrupted.

    Raises:
        OceanoError: `invalid_request` if the target is the current index, `not_found` without an index,
            `migration_incomplete` if the indexes differ in the end, `index_unavailable`, `index_model_mismatch`,
            `disk_full`, and as `find_model` does. Faces copied so far stay at the target.
    """
    if settings.qdrant_url == target_settings.qdrant_url:
        raise OceanoError("invalid_request", f"the target is the current index: {_name(settings)}")
    pack = find_model(settings)
    with (
        closing(open_index(settings, pack, create=False)) as source,
        closing(open_index(target_settings, pack)) as target,
        faces_bar(source.count()) as advance,
    ):
        if is_same(source, target):
            raise OceanoError(
                "invalid_request", f"the target {target_settings.qdrant_url} is the current index under another address"
            )
        migration = Migration(source, target, stop=stop, exact=exact, on_progress=lambda counts: advance(counts.faces))
        try:
            counts = migration.run()
        except OceanoError:
            if not stop.is_set():
                raise
        if stop.is_set():
            copied = counted(migration.counts.copied, "face")
            say(f"interrupted: {copied} copied; run the same command again to continue")
            return EXIT_INTERRUPTED
        agreement = migration.compare()
    say(
        f"both indexes have {counted(agreement.faces, 'face')} ({counts.copied} copied, {counts.updated} updated"
        f"{f', {counts.deleted} deleted from the target' if exact else ''}); in {agreement.searches} test searches, "
        f"the target found {100 * agreement.share:.1f} % of the faces that the source found"
    )
    say(f"to use the target, set QDRANT_URL={target_settings.qdrant_url} and restart the service")
    return EXIT_OK


def _name(settings: Settings) -> str:
    return settings.qdrant_url or "embedded in " + str(settings.index_dir)
