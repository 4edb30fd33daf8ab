"""`oceano keys`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.process import open_settings

keys = typer.Typer(
    help="Keys of programs and users of the page: add, list, revoke.", no_args_is_help=True, rich_markup_mode=None
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the key or user.")]


@keys.command("add")
def add(
    name: Annotated[str, typer.Argument(help="For people; the name with which a user signs in.")],
    role: Annotated[str, typer.Option(help="search, curate, ingest or admin.")] = "search",
    folder: Annotated[
        list[str] | None, typer.Option(help="A folder that it may see, with all below; repeat it. Default: all.")
    ] = None,
    days: Annotated[int | None, typer.Option(help="Days until it expires. Default: never.")] = None,
    user: Annotated[bool, typer.Option("--user", help="Add a user, and ask for the password.")] = False,
    as_json: _Json = False,
) -> int:
    """Add a key and print it once, or add a user."""
    from app.commands.keys import run_add

    return run_add(open_settings("keys"), name, role, folder or [], days, user=user, as_json=as_json)


@keys.command("list")
def list_keys(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were revoked.")] = False,
    as_json: _Json = False,
) -> int:
    """List keys and users."""
    from app.commands.keys import run_list

    return run_list(open_settings("keys"), everything=everything, as_json=as_json)


@keys.command("revoke")
def revoke(name: _Name) -> int:
    """Make a key or user invalid for good, and end its sessions."""
    from app.commands.keys import run_revoke

    return run_revoke(open_settings("keys"), name)


@keys.command("password")
def password(name: _Name) -> int:
    """Set a new password for a user, and end the user's sessions."""
    from app.commands.keys import run_password

    return run_password(open_settings("keys"), name)
