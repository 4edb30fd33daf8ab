"""What an ingest shall do: the options of `oceano ingest`, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import OceanoError
from app.core.files import for_user
from app.core.paths import readable
from app.images import SNIFF_BYTES, sniff
from app.library import PathFilter


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """What to ingest, and what to do afterwards; the options of `oceano ingest`.

    `folder` may be a single file. `report` is a CSV file for the failed and no-face files of the folder.
    """

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
    include_system: bool = False
    raw_pairs: bool = False
    all_pages: bool = False
    people_from_folders: bool = False

    @property
    def wanted(self) -> PathFilter:
        """The filter that `include`, `exclude`, `include_system` and `raw_pairs` make."""
        return PathFilter(self.include, self.exclude, system=self.include_system, raw_pairs=self.raw_pairs)

    def check(self) -> None:
        """Check the folder and the combination of the options.

        Raises:
            OceanoError: `not_found`, `invalid_request`.
        """
        _check(self)


def _check(request: IngestRequest) -> None:
    """Raise OceanoError `not_found` or `invalid_request` for a folder or a combination that makes no sense."""
    shown = readable(str(request.folder))
    is_file = os.path.isfile(request.folder)  # noqa: PTH113 - Path.is_file raises if a name is too long
    if not is_file and not os.path.isdir(request.folder):  # noqa: PTH112
        raise OceanoError("not_found", f"{shown} is not a folder or file", details={"folder": shown})
    if is_file and (request.watch or request.prune or request.include or request.exclude):
        raise OceanoError(
            "invalid_request", f"{shown} is a file; --watch, --prune, --include and --exclude need a folder"
        )
    if not all(pattern.strip() for pattern in (*request.include, *request.exclude)):  # an unset shell variable
        raise OceanoError("invalid_request", "a pattern of --include or --exclude is empty")
    if request.dry_run and not request.prune:
        raise OceanoError("invalid_request", "--dry-run needs --prune: it shows what --prune would remove")
    if request.forget_drives and not request.prune:
        raise OceanoError("invalid_request", "--forget-drives needs --prune: it extends what --prune removes")
    if request.dry_run and request.report is not None:
        raise OceanoError("invalid_request", "--dry-run ingests nothing, so there is nothing to --report")
    if request.watch and (request.prune or request.limit is not None):
        raise OceanoError("invalid_request", "--watch never ends, so it excludes --prune and --limit")
    if request.prune and (request.include or request.exclude or request.limit is not None):
        raise OceanoError(
            "invalid_request", "--prune covers the whole folder, so it excludes --include, --exclude and --limit"
        )


def require_writable(report: Path) -> None:
    """Check the report before the work, and that it would not overwrite a picture."""
    is_new = not os.path.lexists(report)
    try:
        with report.open("ab+") as file:
            if is_new:
                for_user(file.fileno())
            file.seek(0)
            if sniff(file.read(SNIFF_BYTES)) is not None:
                raise OceanoError("invalid_request", f"--report {report}: this file is a picture; name another file")
    except OSError as failure:
        raise OceanoError("invalid_request", f"--report {report}: {failure.strerror}") from failure
