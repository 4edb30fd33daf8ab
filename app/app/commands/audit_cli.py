"""`oceano audit`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.process import open_settings

audit = typer.Typer(help="The audit log: list, export, verify, prune.", no_args_is_help=True, rich_markup_mode=None)

_Who = Annotated[str, typer.Option(help="Only of these, such as 'user ana' or 'key*'.")]
_Action = Annotated[str, typer.Option(help="Only these actions, such as export or 'search*'.")]
_Since = Annotated[str, typer.Option(help="From this year, month, day or time on, in UTC.")]
_Until = Annotated[str, typer.Option(help="Up to this year, month, day or time, inclusive, in UTC.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@audit.command("list")
def list_entries(
    who: _Who = "",
    action: _Action = "",
    since: _Since = "",
    until: _Until = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The largest number of entries.")] = 100,
    as_json: _Json = False,
) -> int:
    """List the newest entries, newest first."""
    from app.commands.audit import run_list
    from app.security import audit_filter

    return run_list(open_settings("audit"), audit_filter(who, action, since, until), limit, as_lines=as_json)


@audit.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="The new file: .csv or .jsonl.")],
    who: _Who = "",
    action: _Action = "",
    since: _Since = "",
    until: _Until = "",
) -> int:
    """Write all entries to a file, oldest first."""
    from app.commands.audit import run_export
    from app.security import audit_filter

    return run_export(open_settings("audit"), file, audit_filter(who, action, since, until))


@audit.command("verify")
def verify(as_json: _Json = False) -> int:
    """Check that no entry was changed, removed or inserted. Exit code 1: something is wrong."""
    from app.commands.audit import run_verify

    return run_verify(open_settings("audit"), as_json_line=as_json)


@audit.command("prune")
def prune() -> int:
    """Delete the entries older than AUDIT_DAYS, as the service does by itself."""
    from app.commands.audit import run_prune

    return run_prune(open_settings("audit"))
