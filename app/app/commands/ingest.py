"""What `oceano ingest` does: opens the parts, runs the ingest, watches or prunes, reports."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event

from app.commands.console import IngestProgress, counted
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, OceanoError
from app.core.paths import absolute, readable
from app.core.protocols import Engine, FaceIndex
from app.images.formats import SNIFF_BYTES, sniff
from app.images.thumbnails import ThumbStore
from app.index import clear_restore
from app.ingest import Ingest, IngestOptions
from app.library.ledger import FileRecord, Ledger, only_writer, restore_note
from app.library.prune import PruneCounts, Pruning
from app.library.scan import Folder, PathFilter
from app.library.watch import arrivals
from app.service.factory import open_parts, open_stored


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """The words of the command line, see `oceano ingest --help`."""

    folder: Path
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    retry: bool = False
    watch: bool = False
    prune: bool = False
    dry_run: bool = False
    forget_drives: bool = False
    report: Path | None = None
    as_json: bool = False


def run_ingest(wish: IngestRequest, settings: Settings, stop: Event) -> int:
    """The exit code. Raises OceanoError; what was done until then stays."""
    _require_sense(wish)
    with only_writer(settings.state_dir):
        restore_note(settings.state_dir, settings.qdrant_collection).unlink(missing_ok=True)  # what comes now is newer
        clear_restore(settings)
        if wish.report is not None:
            _require_writable(wish.report)  # said before the work, not after it
        if wish.dry_run:
            return _dry_run(wish, settings, stop)
        with open_parts(settings) as (engine, index, ledger):
            return _run(wish, settings, stop, engine, index, ledger)


def _require_sense(wish: IngestRequest) -> None:
    if not os.path.isdir(wish.folder):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        shown = readable(str(wish.folder))
        raise OceanoError("not_found", f"{shown} is not a folder", details={"folder": shown})
    if not all(pattern.strip() for pattern in (*wish.include, *wish.exclude)):  # an unset variable
        raise OceanoError("invalid_request", "a pattern of --include or --exclude is empty")
    if wish.dry_run and not wish.prune:
        raise OceanoError("invalid_request", "--dry-run goes with --prune: it says what that would forget")
    if wish.forget_drives and not wish.prune:
        raise OceanoError("invalid_request", "--forget-drives goes with --prune: it says what that may forget, too")
    if wish.dry_run and wish.report is not None:
        raise OceanoError("invalid_request", "--dry-run takes nothing up: there is nothing to --report")
    if wish.watch and (wish.prune or wish.limit is not None):
        raise OceanoError("invalid_request", "--watch goes on for good: without --prune and --limit")
    if wish.prune and (wish.include or wish.exclude or wish.limit is not None):
        raise OceanoError("invalid_request", "--prune looks at the whole folder: without --include, --exclude, --limit")


def _run(wish: IngestRequest, settings: Settings, stop: Event, engine: Engine, index: FaceIndex, ledger: Ledger) -> int:
    wanted = PathFilter(wish.include, wish.exclude)
    thumbs = ThumbStore(settings.thumbs_dir)
    pruned: PruneCounts | None = None
    with IngestProgress(wish.folder, wanted, as_json=wish.as_json) as progress:
        run = Ingest(
            engine,
            index,
            ledger,
            thumbs,
            IngestOptions(settings.max_image_pixels, enough=settings.enough, retry=wish.retry, limit=wish.limit),
            stop=stop,
            on_progress=progress.update,
        )
        pruning = _pruning(wish, index, ledger, thumbs, engine.pack.digest, stop) if wish.prune else None
        try:
            if pruning is not None:
                pruning.look()
            if wish.watch:
                _watch(run, wish.folder, wanted, stop)
            else:
                run.run(wish.folder, wanted)
            if pruning is not None and not run.unseen and not stop.is_set():
                pruned = pruning.run()
        except OceanoError as failure:
            failure.details["ingest"] = asdict(run.counts)  # what was done until then
            if not wish.as_json:
                progress.finish(run.counts, interrupted=stop.is_set(), pruned=None)
            raise
        progress.finish(run.counts, interrupted=stop.is_set(), pruned=asdict(pruned) if pruned else None)
    if pruned is not None and not wish.as_json:
        _say_pruned(pruned, dry_run=False)
    if wish.prune and run.unseen:
        _say_kept(run.unseen)
    if wish.report is not None:
        _write_report(wish.report, ledger.without_faces(absolute(wish.folder)))
    if stop.is_set():
        return EXIT_INTERRUPTED
    return EXIT_SOME_FAILED if run.counts.failed or (wish.prune and run.unseen) else EXIT_OK


def _watch(run: Ingest, folder: Path, wanted: PathFilter, stop: Event) -> None:
    """What lies there, then what comes."""
    coming = arrivals(Folder(folder), stop, wanted)
    next(coming, None)
    run.run(folder, wanted)
    for files in coming:
        if files:
            run.take(files)


def _dry_run(wish: IngestRequest, settings: Settings, stop: Event) -> int:
    """No model is loaded for it."""
    with open_stored(settings) as (pack, index, ledger):
        thumbs = ThumbStore(settings.thumbs_dir)
        counts = _pruning(wish, index, ledger, thumbs, pack.digest, stop).run()
    if wish.as_json:
        print(json.dumps({"pruned": asdict(counts), "dry_run": True}))  # noqa: T201
    else:
        _say_pruned(counts, dry_run=True)
    folder = Folder(wish.folder)
    for _ in folder.scan():  # as --prune does, which forgets nothing where it cannot look
        if stop.is_set():
            break
    if folder.unlisted:
        _say_kept(folder.unlisted)
        return EXIT_SOME_FAILED
    return EXIT_OK


def _say_kept(unseen: int) -> None:
    print(  # noqa: T201
        f"Nothing was pruned: {unseen} files or folders could not be read, so missing files cannot be told from "
        "deleted ones.",
        file=sys.stderr,
    )


def _pruning(
    wish: IngestRequest, index: FaceIndex, ledger: Ledger, thumbs: ThumbStore, digest: str, stop: Event
) -> Pruning:
    return Pruning(
        Folder(wish.folder),
        index,
        ledger,
        thumbs,
        digest=digest,
        dry_run=wish.dry_run,
        drives=wish.forget_drives,
        stop=stop,
    )


def _say_pruned(counts: PruneCounts, *, dry_run: bool) -> None:
    removed = "Would remove" if dry_run else "Removed"
    print(  # noqa: T201
        f"{removed}: {counted(counts.files, 'file')}, {counted(counts.images, 'image')}, "
        f"{counted(counts.faces, 'face')}. Kept because a copy exists: {counts.moved}.",
        flush=True,
    )
    if dry_run and counts.images:
        print("A picture that was moved, and not ingested at its new place, counts as removed here.", file=sys.stderr)  # noqa: T201
    if counts.unsure:
        print(  # noqa: T201
            f"kept: {counted(counts.unsure, 'file')} whose drive may not be connected, below "
            f"{', '.join(counts.unsure_below)}; if they are gone for good: --prune --forget-drives",
            file=sys.stderr,
        )


def _require_writable(report: Path) -> None:
    try:
        with report.open("ab+") as file:
            file.seek(0)
            if sniff(file.read(SNIFF_BYTES)) is not None:
                raise OceanoError("invalid_request", f"--report {report}: that is a picture, and stays one")
    except OSError as failure:
        raise OceanoError("invalid_request", f"--report {report}: {failure.strerror}") from failure


def _write_report(report: Path, records: Iterable[FileRecord]) -> None:
    """Files with their reasons, of this run and earlier ones."""
    try:
        with report.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "status", "reason", "message"])
            for record in records:
                writer.writerow([readable(record.path), record.status, record.reason, record.message])
    except OSError as failure:
        raise OceanoError("invalid_request", f"--report {report}: {failure.strerror}") from failure
