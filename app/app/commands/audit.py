"""`oceano audit`: list, export, verify and prune the audit log; and the entries that commands write."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from app.catalog import AuditEntry, AuditFilter
from app.commands.console import counted, plain, say
from app.core.config import Settings
from app.core.errors import EXIT_OK, EXIT_SOME_FAILED, ErrorCode, OceanoError, is_full
from app.core.files import for_user
from app.security import EXPORTS, Action, as_json, audit_lines, new_entry
from app.service import open_audit, this_user


def record_command(settings: Settings, action: Action, details: Mapping[str, object]) -> None:
    """Write an entry of a command to the audit log; the user of this process is who ran it.

    Raises:
        OceanoError: `ledger_unavailable`, `disk_full`.
    """
    if settings.audit_days:
        with open_audit(settings) as audit:
            audit.record(new_entry(action, _who(), details))


def run_list(settings: Settings, wanted: AuditFilter, limit: int, *, as_lines: bool) -> int:
    """Print the newest entries, newest first: a line each, or as JSON lines.

    Raises:
        OceanoError: `ledger_unavailable`.
    """
    with open_audit(settings) as audit:
        found = audit.log.find(wanted, limit=limit)
        audit.record(new_entry("audit.view", _who(), _told(wanted) | {"entries": len(found)}))
    for entry in found:
        print(json.dumps(as_json(entry), ensure_ascii=False) if as_lines else _line(entry))  # noqa: T201 - not logged
    return EXIT_OK


def run_export(settings: Settings, path: Path, wanted: AuditFilter) -> int:
    """Write all entries to a CSV file or a file of JSON lines, oldest first.

    Raises:
        OceanoError: `invalid_request` if the file exists, cannot be written or has another ending, `disk_full`,
            `ledger_unavailable`.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in EXPORTS:
        raise OceanoError("invalid_request", f"{path} must end in {' or '.join(f'.{name}' for name in EXPORTS)}")
    try:
        with path.open("xb") as file, open_audit(settings) as audit:
            for_user(file.fileno())
            audit.record(new_entry("audit.export", _who(), _told(wanted) | {"format": kind}))
            entries = _written(file, audit.log.all(wanted), kind)
    except FileExistsError:
        raise OceanoError("invalid_request", f"{path} already exists") from None
    except OSError as failure:
        code: ErrorCode = "disk_full" if is_full(failure) else "invalid_request"
        raise OceanoError(code, f"{path} cannot be written: {failure.strerror}") from failure
    say(f"{path}: {counted(entries, 'entry') if entries == 1 else f'{entries} entries'}")
    return EXIT_OK


def run_verify(settings: Settings, *, as_json_line: bool) -> int:
    """Check the audit log, and print what is wrong.

    Returns:
        The exit code: 0 nothing is wrong, 1 something is.

    Raises:
        OceanoError: `ledger_unavailable`.
    """
    with open_audit(settings) as audit:
        report = audit.verify()
    if as_json_line:
        values = asdict(report) | {"well": report.is_well, "first_wrong": report.first_wrong}
        print(json.dumps(values))  # noqa: T201
        return EXIT_OK if report.is_well else EXIT_SOME_FAILED
    for finding in report.findings:
        say(f"{finding.kind}: {finding.message}")
    numbers = f"{report.first} to {report.last}" if report.entries else "none"
    say(f"checked {report.entries} entries ({numbers}) and {counted(report.anchors, 'anchor')}")
    if report.is_well:
        say("nothing is wrong")
        return EXIT_OK
    if report.first_wrong is not None:
        say(f"the first wrong entry is {report.first_wrong}")
    return EXIT_SOME_FAILED


def run_prune(settings: Settings) -> int:
    """Delete the entries that are older than AUDIT_DAYS.

    Raises:
        OceanoError: `ledger_unavailable`, `disk_full`.
    """
    with open_audit(settings) as audit:
        pruned = audit.prune(_who())
    say(f"deleted {'1 entry' if pruned == 1 else f'{pruned} entries'}")
    return EXIT_OK


def _who() -> str:
    return f"command {this_user()}"


def _told(wanted: AuditFilter) -> dict[str, object]:
    return {name: value or None for name, value in asdict(wanted).items()}


def _written(file: BinaryIO, entries: Iterator[AuditEntry], kind: str) -> int:
    """Write entries, and put them on the disk; return how many there were."""
    count = 0

    def counting() -> Iterator[AuditEntry]:
        nonlocal count
        for entry in entries:
            count += 1
            yield entry

    file.writelines(audit_lines(counting(), kind))
    file.flush()
    os.fsync(file.fileno())
    return count


def _line(entry: AuditEntry) -> str:
    parts = [f"{entry.number:>8}", entry.at, entry.who, entry.address or "-", entry.action]
    purpose = f"  ({entry.purpose})" if entry.purpose else ""
    return plain("  ".join(parts) + purpose + f"  {entry.details}")
