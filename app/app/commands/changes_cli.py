"""The commands for changes of people: their options."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.process import open_settings

changes = typer.Typer()  # its commands become those of `oceano` itself

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@changes.command("changes")
def list_changes(
    person: Annotated[str, typer.Option(help="Only changes of this person: name or id.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The largest number of changes.")] = 50,
    as_json: _Json = False,
) -> int:
    """List the newest changes of people: who was named, merged, deleted and so on, by whom, and what was undone."""
    from app.commands.changes import run_changes

    return run_changes(open_settings("changes"), person, limit, as_json=as_json)


@changes.command("undo")
def undo(
    number: Annotated[int, typer.Argument(min=1, max=2**53, help="Of the change, as `oceano changes` shows it.")],
    as_json: _Json = False,
) -> int:
    """Undo a change of people, such as an import of names. An undo is a change, too, and can be undone."""
    from app.commands.changes import run_undo

    return run_undo(open_settings("undo"), number, as_json=as_json)
