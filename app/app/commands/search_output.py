"""Where the matches of `oceano search` go: the terminal, files, folders."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from app.commands.console import counted, plain, warn
from app.commands.search_files import copy_originals, link_originals, publish
from app.core.errors import OceanoError, is_full
from app.core.files import for_user
from app.images import Thumbs
from app.library import Pictures
from app.service import AllMatches, Bands, Sureness, two_decimals
from app.service.export import MAX_ON_SHEET, PeopleById, contact_sheet, csv_rows, json_rows, path_lines, zip_archive

_STDOUT: Final = "-"
_WORDS: Final[dict[Sureness, str]] = {
    "very_likely": "very likely",
    "likely": "likely",
    "look_closely": "look closely",
}


@dataclass(frozen=True, slots=True)
class SearchOutput:
    """Where the matches go; all that are set. Without any, a table is printed.

    Attributes:
        as_json: print a JSON array.
        paths: print a path per line.
        null: end each path with NUL instead of a line break.
        csv: write a CSV file; "-" prints it.
        pdf: write a contact sheet.
        archive: write a ZIP archive of the originals.
        copy_to: copy the originals to this folder.
        link_to: make symbolic links to the originals in this folder.
    """

    as_json: bool = False
    paths: bool = False
    null: bool = False
    csv: str = ""
    pdf: Path | None = None
    archive: Path | None = None
    copy_to: Path | None = None
    link_to: Path | None = None

    def check(self) -> None:
        """Refuse, before the search, what cannot be written.

        Raises:
            OceanoError: `invalid_request` if two outputs would be printed, or if a file exists: it might be a
                photograph.
        """
        if (self.csv == _STDOUT) + self.as_json + (self.paths or self.null) > 1:
            raise OceanoError("invalid_request", "only one of --json, --csv - and --paths can be printed")
        for path in (Path(self.csv) if self.csv not in ("", _STDOUT) else None, self.pdf, self.archive):
            if path is not None and os.path.lexists(path):
                raise _exists(path)


@dataclass(frozen=True, slots=True)
class Sources:
    """What the outputs are made of.

    Attributes:
        pictures: opens the originals.
        people: looks up people by their ids.
        thumbs: the thumbnails.
        bands: returns what similarities mean; may take a second.
    """

    pictures: Pictures
    people: PeopleById
    thumbs: Thumbs
    bands: Callable[[], Bands]


def write_matches(matches: AllMatches, output: SearchOutput, sources: Sources, stop: Event) -> bool:
    """Write the matches to all outputs.

    Args:
        matches: the matches.
        output: where they go.
        sources: what the outputs are made of.
        stop: once set, writing ends early, and incomplete files are removed.

    Returns:
        False if a photograph could not be read.

    Raises:
        OceanoError: `invalid_request` if an output cannot be written, `disk_full`.
    """
    if output == SearchOutput():
        _print_table(matches, sources.bands, stop)
    if output.csv:
        _send(csv_rows(matches, sources.bands(), sources.people), output.csv, stop)
    if output.as_json:
        _send(json_rows(matches, sources.bands(), sources.people), _STDOUT, stop)
    if output.paths or output.null:
        _send(path_lines(matches, sources.pictures, end=b"\0" if output.null else b"\n"), _STDOUT, stop)
    if output.pdf:
        if len(matches) > MAX_ON_SHEET:
            warn(f"{output.pdf} has the first {MAX_ON_SHEET} of {len(matches)} matches")
        title = f"Oceano: {counted(min(len(matches), MAX_ON_SHEET), 'face')}"
        sheet = contact_sheet(matches, sources.thumbs, sources.bands(), _WORDS, title)
        _send((sheet,), str(output.pdf), stop)
    if output.archive:
        _send(zip_archive(matches, sources.pictures), str(output.archive), stop)
    complete = True
    for folder, place in ((output.copy_to, copy_originals), (output.link_to, link_originals)):
        if folder is not None and not stop.is_set():
            placed = place(matches, sources.pictures, folder, stop)
            warn(f"{counted(placed.files, 'file')} in {folder}, {placed.kept} of them before")
            for line in placed.failures:
                warn(line)
            complete = complete and not placed.failures
    return complete


def _print_table(matches: AllMatches, bands: Callable[[], Bands], stop: Event) -> None:
    """Print a line for each match; the path is last and not cut, so that it can be copied."""
    if len(matches) == 0:
        print("No face in the index is similar enough.")  # noqa: T201
        return
    known = bands()
    for listed in matches:
        if stop.is_set():
            break
        match, stored = listed.match, listed.match.payload
        word, taken = _WORDS[known.of(match.similarity)], (stored.taken_at or "")[:10]
        print(f"{two_decimals(match.similarity):>5}  {word:<12}  {taken:<10}  {plain(stored.path)}")  # noqa: T201
    sys.stdout.flush()


def _send(parts: Iterable[bytes], target: str, stop: Event) -> None:
    """Write parts to standard output ("-") or to a new file, which appears when it is complete."""
    if target == _STDOUT:
        for part in parts:
            if stop.is_set():
                return
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return
    path = Path(target)
    try:
        _write_new(parts, path, stop)
    except OSError as failure:
        if is_full(failure):
            raise OceanoError("disk_full", f"no space left for {path}") from failure
        raise OceanoError("invalid_request", f"{path} cannot be written: {failure.strerror}") from failure


def _write_new(parts: Iterable[bytes], path: Path, stop: Event) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".oceano-", suffix=".tmp", dir=path.parent)
    try:
        for_user(handle)
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                if stop.is_set():
                    return
                file.write(part)
        if not publish(temporary, path):
            raise _exists(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _exists(path: Path) -> OceanoError:
    return OceanoError("invalid_request", f"{path} exists; choose another name, or delete it first")
