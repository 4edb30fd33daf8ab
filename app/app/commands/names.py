"""`oceano names`, `export-names` and `import-people`: names from pictures and other systems, and back."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

from app.commands.audit import record_command
from app.commands.console import counted, plain, say, warn
from app.core.config import Settings
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, OceanoError
from app.core.files import for_user
from app.core.paths import absolute, readable
from app.service import (
    ExportedNames,
    NamesExport,
    NamesImport,
    open_without_engine,
    read_names,
    require_writable,
    this_user,
)

_SHOWN = 5


def run_names(
    settings: Settings, folder: Path, report: Path | None, stop: Event, *, from_folders: bool, as_json: bool
) -> int:
    """Read the names in ingested pictures again and print what they named.

    Returns:
        The exit code: 0, or 130 if interrupted.

    Raises:
        OceanoError: `not_found`, `invalid_request`, and as `open_without_engine` and `read_names` do.
    """
    _require_folder(folder)
    if report is not None:
        require_writable(report)
    with open_without_engine(settings) as (pack, index, ledger):
        record_command(settings, "command.names", {"folder": readable(absolute(folder))})
        done = read_names(ledger, index, pack.digest, absolute(folder), this_user(), stop, from_folders=from_folders)
    if report is not None:
        rows = ([readable(one.path), one.reason, one.message] for one in done.problems)
        _write(report, ["path", "reason", "message"], rows)
    if as_json:
        _print(asdict(done) | {"problems": len(done.problems), "interrupted": stop.is_set()})
    else:
        have = "has" if done.with_names == 1 else "have"
        say(f"Read {counted(done.pictures, 'picture')}, of which {done.with_names or 'none'} {have} names of people.")
        say(_named(done.named, done.people))
        if done.named:
            say("`oceano changes` lists these changes; `oceano undo NUMBER` undoes one.")
        _say_problems([one.message for one in done.problems], report)
    return EXIT_INTERRUPTED if stop.is_set() else EXIT_OK


def run_export_names(
    settings: Settings, folder: Path, into: Path | None, stop: Event, *, in_place: bool, hidden: bool, as_json: bool
) -> int:
    """Write the names of faces into sidecars or pictures and print what was written.

    Returns:
        The exit code: 0, 1 if some could not be written, 130 if interrupted.

    Raises:
        OceanoError: `not_found`, `invalid_request`, and as `open_without_engine` and `NamesExport.run` do.
    """
    _require_folder(folder)
    if into is not None and in_place:
        raise OceanoError("invalid_request", "--into writes sidecars, --in-place the pictures: give one of them")
    with open_without_engine(settings) as (_, index, ledger):
        target = None if into is None else absolute(into)
        record_command(
            settings,
            "command.export_names",
            {
                "folder": readable(absolute(folder)),
                "into": target and readable(target),
                "in_place": in_place or None,
                "hidden": hidden or None,
            },
        )
        export = NamesExport(ledger, index, absolute(folder), into=target, in_place=in_place, hidden=hidden)
        done = export.run(stop)
    if as_json:
        _print(asdict(done) | {"interrupted": stop.is_set()})
    else:
        say(_written(done))
        for line in done.failures[:_SHOWN]:
            warn(f"Not written: {line}")
        if len(done.failures) > _SHOWN:
            warn(f"and {len(done.failures) - _SHOWN} more")
        if done.in_place:
            say(
                f"Changed {counted(done.in_place, 'picture')}: run `oceano ingest` on the folder, so that the index "
                "has the changed files. They keep their names."
            )
    if stop.is_set():
        return EXIT_INTERRUPTED
    return EXIT_SOME_FAILED if done.failures else EXIT_OK


def run_import_people(
    settings: Settings, file: Path, root: Path | None, report: Path | None, *, dry_run: bool, as_json: bool
) -> int:
    """Name faces as a CSV file says and print what was named.

    Returns:
        The exit code: 0, or 1 if some rows named no face.

    Raises:
        OceanoError: as `open_without_engine` and `NamesImport.run` do.
    """
    if report is not None:
        require_writable(report)
    with open_without_engine(settings) as (_, index, ledger):
        if not dry_run:
            record_command(settings, "command.import_people", {"file": file.name})
        done = NamesImport(ledger, index, absolute(root or Path()), this_user()).run(file, dry_run=dry_run)
    problems = sorted(done.problems, key=lambda one: one.line)
    if report is not None:
        _write(report, ["line", "path", "reason", "message"], ([*asdict(one).values()] for one in problems))
    if as_json:
        _print(asdict(done) | {"problems": len(problems), "dry_run": dry_run})
    else:
        say(f"Read {counted(done.rows, 'row')}, of which {done.found or 'none'} {_names_a_face(done.found)}.")
        if dry_run:
            added = f" and add {_new_people(done.people)}" if done.people else ""
            say(f"Nothing was changed (--dry-run). The import would name {counted(done.named, 'face')}{added}.")
        else:
            say(_named(done.named, done.people))
        _say_problems([f"line {one.line}: {one.message}" for one in problems], report)
        if done.change is not None:
            say(f"Undo with: oceano undo {done.change}")
    return EXIT_SOME_FAILED if problems else EXIT_OK


def _names_a_face(rows: int) -> str:
    return "names a face that is in the index" if rows == 1 else "name a face that is in the index"


def _named(faces: int, people: int) -> str:
    if not faces:
        return "No face got a new name, so nothing was changed."
    return f"Named {counted(faces, 'face')}" + (f", and added {_new_people(people)}." if people else ".")


def _new_people(people: int) -> str:
    return "1 new person" if people == 1 else f"{people} new people"


def _written(done: ExportedNames) -> str:
    """Say how many files have got names."""
    if not (done.written or done.unchanged or done.failures):
        return "No picture there has a face with a name, so nothing was written."
    written = f"Wrote the names of faces into {counted(done.written, 'file')}." if done.written else "Wrote nothing."
    if not done.unchanged:
        return written
    return f"{written} {counted(done.unchanged, 'picture')} had all names already."


def _require_folder(folder: Path) -> None:
    if not folder.exists():
        shown = readable(str(folder))
        raise OceanoError("not_found", f"{shown} is not a folder or file", details={"folder": shown})


def _say_problems(messages: Sequence[str], report: Path | None) -> None:
    for message in messages[:_SHOWN]:
        say(plain(f"Not given to a face: {message}"))
    if len(messages) > _SHOWN:
        rest = f"and {len(messages) - _SHOWN} more"
        say(rest if report is not None else f"{rest}; --report FILE.csv lists all")


def _print(values: dict[str, Any]) -> None:
    print(json.dumps(values))  # noqa: T201


def _write(report: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    try:
        with report.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            for_user(file.fileno())
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
    except OSError as failure:
        raise OceanoError("invalid_request", f"--report {report}: {failure.strerror}") from failure
