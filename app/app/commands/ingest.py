"""`oceano ingest`: run the ingest job and print what it did."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict
from threading import Event

from app.commands.audit import record_command
from app.commands.console import counted, say, warn
from app.commands.ingest_progress import IngestProgress
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, OceanoError
from app.core.paths import absolute, readable
from app.index import open_index
from app.library import PruneCounts
from app.service import (
    IngestRequest,
    QueuedIngest,
    find_model,
    open_ingest_job,
    open_ledger,
    preview_prune,
    queue_ingest,
    require_same_index,
    require_shared_index,
)


def run_ingest(request: IngestRequest, settings: Settings, stop: Event, *, as_json: bool = False) -> int:
    """Ingest a folder and print a summary, or one JSON line.

    Returns:
        The exit code: 0 all good, 1 some files failed or nothing was pruned, 130 interrupted.

    Raises:
        OceanoError: as `open_ingest_job` and `IngestJob.run` do; files ingested so far are kept.
    """
    if request.dry_run:
        return _dry_run(request, settings, stop, as_json=as_json)
    with open_ingest_job(request, settings, stop, warn if as_json else say) as job:
        record_command(settings, "command.ingest", _recorded(request))
        with IngestProgress(request.folder, as_json=as_json) as progress:
            try:
                job.run(progress.update)
            except OceanoError:
                if not as_json:
                    progress.finish(job.counts, job.failures, interrupted=stop.is_set(), pruned=None)
                raise
            pruned = asdict(job.pruned) if job.pruned else None
            progress.finish(job.counts, job.failures, interrupted=stop.is_set(), pruned=pruned)
        if job.counts.missing and not request.prune and not as_json:
            _say_missing(job.counts.missing)
        if job.pruned is not None and not as_json:
            _say_pruned(job.pruned, dry_run=False)
        unpruned = request.prune and job.unread > 0
        if unpruned:
            _say_unpruned(job.unread)
        job.write_report()
        job.group()
        if stop.is_set():
            return EXIT_INTERRUPTED
        return EXIT_SOME_FAILED if job.counts.failed or job.counts.failed_pages or unpruned else EXIT_OK


def run_queue(request: IngestRequest, settings: Settings, *, as_json: bool = False) -> int:
    """Queue an ingest for the workers, and print the id of the job.

    Raises:
        OceanoError: `not_found`, `invalid_request`, `invalid_setting` if the catalog belongs to another index, and as
            `find_model`, `open_ledger` and `open_index` do.
    """
    request.check()
    if request.watch or request.dry_run or request.report is not None:
        raise OceanoError("invalid_request", "--queue returns at once; it excludes --watch, --dry-run and --report")
    pack = find_model(settings)
    require_shared_index(settings)
    with closing(open_ledger(settings, pack)) as ledger:
        if ledger.database.has_many_writers:
            with closing(open_index(settings, pack)) as index:
                require_same_index(settings, pack, index, ledger)
        record_command(settings, "command.ingest", _recorded(request) | {"queue": True})
        queued = queue_ingest(ledger, request)
    say(json.dumps({"job": queued.job_id, "new": queued.is_new}) if as_json else _queued(queued))
    return EXIT_OK


def _recorded(request: IngestRequest) -> dict[str, object]:
    """Return what the audit log keeps of an ingest."""
    return {
        "folder": readable(absolute(request.folder)),
        "prune": request.prune or None,
        "forget_drives": request.forget_drives or None,
        "watch": request.watch or None,
    }


def _queued(queued: QueuedIngest) -> str:
    if not queued.is_new:
        return f"queued already, with the same options: job {queued.job_id}"
    line = f"queued: job {queued.job_id}; `oceano worker` does it"
    if queued.other is not None:
        line += f". Job {queued.other}, of the same folder, has listed its files already; this one adds newer ones"
    return line


def _dry_run(request: IngestRequest, settings: Settings, stop: Event, *, as_json: bool) -> int:
    counts, unlisted = preview_prune(request, settings, stop)
    if as_json:
        print(json.dumps({"pruned": asdict(counts), "dry_run": True}))  # noqa: T201
    else:
        _say_pruned(counts, dry_run=True)
    if unlisted:
        _say_unpruned(unlisted)
        return EXIT_SOME_FAILED
    return EXIT_OK


def _say_missing(missing: int) -> None:
    files = "1 file of this folder is" if missing == 1 else f"{missing} files of this folder are"
    print(f"Missing: {files} not there any more. Their faces stay in the index; --prune removes them.")  # noqa: T201


def _say_unpruned(unread: int) -> None:
    print(  # noqa: T201
        f"Nothing was pruned: {unread} files or folders could not be read, so missing files cannot be told from "
        "deleted ones.",
        file=sys.stderr,
    )


def _say_pruned(counts: PruneCounts, *, dry_run: bool) -> None:
    removed = "Would remove" if dry_run else "Removed"
    print(  # noqa: T201
        f"{removed}: {counted(counts.files, 'file')}, {counted(counts.images, 'image')}, "
        f"{counted(counts.faces, 'face')}. Kept because a copy exists: {counts.moved}.",
        flush=True,
    )
    if dry_run and counts.images:
        print("A file that was moved and not ingested at its new path counts as removed here.", file=sys.stderr)  # noqa: T201
    if counts.unsure:
        print(  # noqa: T201
            f"Kept: {counted(counts.unsure, 'file')} whose drive may be disconnected, below "
            f"{', '.join(counts.unsure_below)}. To remove them: --prune --forget-drives",
            file=sys.stderr,
        )
