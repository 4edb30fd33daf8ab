"""`oceano migrate`: copy the index to a Qdrant server, the catalog to PostgreSQL, or both back; and compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from threading import Event
from typing import Final

from app import catalog
from app.catalog import CATALOG_FILE, Database, Ledger, Stopped, open_postgresql, open_sqlite, require_no_workers
from app.commands.audit import record_command
from app.commands.console import counted, faces_bar, say
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, OceanoError
from app.core.protocols import FaceIndex
from app.core.types import ModelPack
from app.index import is_same, open_index
from app.index.transfer import Migration
from app.library import only_writer
from app.service import find_model, open_ledger, record_index

EMBEDDED: Final = "embedded"
SQLITE: Final = "sqlite"


def run_migrate(
    settings: Settings, target_settings: Settings | None, stop: Event, *, exact: bool = False, catalog_to: str = ""
) -> int:
    """Copy the index, the catalog or both to another place and compare; the current ones are not changed.

    The index continues where an earlier call ended. The catalog is copied in one transaction, and no ingest may run
    meanwhile, nor while both are copied: the catalog would have files whose faces the copy of the index lacks.

    Args:
        settings: the settings of the current index and catalog.
        target_settings: the settings of the index's target; None: the index is not copied.
        stop: once set, ends the copying.
        exact: delete faces from the target that the current index lacks.
        catalog_to: URL of a PostgreSQL database, or `sqlite`; empty: the catalog is not copied.

    Returns:
        The exit code: 0, or 130 if interrupted.

    Raises:
        OceanoError: `invalid_request` if a target is the current place or has another catalog, `not_found` without an
            index, `migration_incomplete` if the indexes differ in the end, `ingest_in_progress`, `index_unavailable`,
            `ledger_unavailable`, `index_model_mismatch`, `disk_full`, and as `find_model` does. Faces copied so far
            stay at the target.
    """
    pack = find_model(settings)
    if target_settings is not None and settings.qdrant_url == target_settings.qdrant_url:
        raise OceanoError("invalid_request", f"the target is the current index: {_name(settings)}")
    if not catalog_to:
        with closing(open_ledger(settings, pack)) as ledger:
            record_command(settings, "command.migrate", _recorded(target_settings, catalog_to))
            return _migrate_index(settings, target_settings or settings, pack, stop, (ledger,), exact=exact)
    with only_writer(settings.state_dir), _open_catalogs(settings, pack, catalog_to) as (source, target):
        record_command(settings, "command.migrate", _recorded(target_settings, catalog_to))
        if target_settings is not None:
            code = _migrate_index(settings, target_settings, pack, stop, (source, target), exact=exact)
            return _migrate_catalog(settings, source, target, stop) if code == EXIT_OK else code
        with _current_index(settings, pack) as index:
            code = _migrate_catalog(settings, source, target, stop)
            if code == EXIT_OK and index is not None:
                record_index(settings, pack, index, target)
    return code


def _recorded(target_settings: Settings | None, catalog_to: str) -> dict[str, object]:
    """Return what the audit log keeps of a migration; URLs may have passwords."""
    index = None if target_settings is None else "server" if target_settings.qdrant_url else "embedded"
    return {"index": index, "catalog": ("sqlite" if catalog_to == SQLITE else "postgresql") if catalog_to else None}


def _migrate_index(
    settings: Settings,
    target_settings: Settings,
    pack: ModelPack,
    stop: Event,
    ledgers: tuple[Ledger, ...],
    *,
    exact: bool,
) -> int:
    """Copy the index; the ledgers know the copy from then on."""
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
        for ledger in ledgers:
            record_index(target_settings, pack, target, ledger)
    say(
        f"both indexes have {counted(agreement.faces, 'face')} ({counts.copied} copied, {counts.updated} updated"
        f"{f', {counts.deleted} deleted from the target' if exact else ''}); in {agreement.searches} test searches, "
        f"the target found {100 * agreement.share:.1f} % of the faces that the source found"
    )
    say(f"to use the target, set QDRANT_URL={target_settings.qdrant_url} and restart the service")
    return EXIT_OK


@contextmanager
def _open_catalogs(settings: Settings, pack: ModelPack, catalog_to: str) -> Iterator[tuple[Ledger, Ledger]]:
    """Open the current catalog and the target, before anything is copied: a wrong URL is reported at once."""
    if catalog_to == SQLITE and not settings.catalog_url:
        raise OceanoError("invalid_request", f"the target is the current catalog: {settings.state_dir / CATALOG_FILE}")
    with closing(open_ledger(settings, pack)) as source, closing(_open_target(settings, catalog_to)) as target:
        require_no_workers(source.database)
        require_no_workers(target)
        yield source, Ledger(target, source.collection)


def _open_target(settings: Settings, catalog_to: str) -> Database:
    if catalog_to == SQLITE:
        return open_sqlite(settings.state_dir / CATALOG_FILE)
    try:
        return open_postgresql(catalog_to, setting="--catalog")
    except OceanoError as failure:
        if failure.code != "invalid_setting":
            raise
        raise OceanoError("invalid_request", failure.message) from failure


@contextmanager
def _current_index(settings: Settings, pack: ModelPack) -> Iterator[FaceIndex | None]:
    """Open the current index, to which the copy of the catalog belongs; None if there is none yet."""
    with ExitStack() as opened:
        index = None
        try:
            index = opened.enter_context(closing(open_index(settings, pack, create=False)))
        except OceanoError as failure:
            if failure.code != "not_found":
                raise
        yield index


def _migrate_catalog(settings: Settings, source: Ledger, target: Ledger, stop: Event) -> int:
    try:
        with source.database.exclusive():
            digests = catalog.migrate(source.database, target.database, settings.state_dir, stop.is_set)
    except Stopped:
        say("interrupted: the target's catalog is unchanged; run the same command again")
        return EXIT_INTERRUPTED
    rows = ", ".join(f"{name} {digest.rows:,}" for name, digest in digests.items() if digest.rows) or "none"
    say(f"both catalogs have the same rows: {rows}")
    say(f"to use the target, {_to_use(target.database)} and restart the service and the workers")
    return EXIT_OK


def _to_use(target: Database) -> str:
    if not target.has_many_writers:
        return "remove CATALOG_URL from the settings"
    hidden = " with the password in place of ***" if "***" in target.name else ""
    return f"set CATALOG_URL={target.name}{hidden}"


def _name(settings: Settings) -> str:
    return settings.qdrant_url or "embedded in " + str(settings.index_dir)
