"""The commands for names in pictures and from other systems: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.process import interruptible, open_settings

names = typer.Typer()  # its commands become those of `oceano` itself


@names.command("names")
def read(
    folder: Annotated[Path, typer.Argument(help="The pictures in this folder and its subfolders, or this file.")],
    people_from_folders: Annotated[
        bool,
        typer.Option(
            "--people-from-folders", help="A picture's folder has the name of the person, if it has one face."
        ),
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write a CSV file that lists names that no face got.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line at the end.")] = False,
) -> int:
    """Name faces as the metadata of ingested pictures and their .xmp sidecars says. An ingest does so for new ones."""
    from app.commands.names import run_names

    with interruptible() as stop:
        settings = open_settings("names")
        return run_names(settings, folder, report, stop, from_folders=people_from_folders, as_json=as_json)


@names.command("export-names")
def export(
    folder: Annotated[Path, typer.Argument(help="The pictures in this folder and its subfolders, or this file.")],
    into: Annotated[
        Path | None, typer.Option(help="Write the sidecars into this folder, not beside the pictures.")
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write into JPEG files themselves; other formats get a sidecar.")
    ] = False,
    hidden: Annotated[bool, typer.Option("--hidden", help="Also write the names of hidden people.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line at the end.")] = False,
) -> int:
    """Write the names of faces as regions (MWG) into .xmp sidecars beside the pictures, for other programs."""
    from app.commands.names import run_export_names

    with interruptible() as stop:
        return run_export_names(
            open_settings("export-names"), folder, into, stop, in_place=in_place, hidden=hidden, as_json=as_json
        )


@names.command("import-people")
def import_people(
    file: Annotated[
        Path, typer.Argument(help="CSV with columns name, and path or sha256; x1,y1,x2,y2 if they are known.")
    ],
    root: Annotated[
        Path | None, typer.Option(help="Relative paths in the file are relative to this folder; default: this one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say which rows name a face.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write a CSV file that lists rows that named no face.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line at the end.")] = False,
) -> int:
    """Name faces as a list from another system says, such as CompreFace or Immich. `oceano undo` takes it back."""
    from app.commands.names import run_import_people

    return run_import_people(open_settings("import-people"), file, root, report, dry_run=dry_run, as_json=as_json)
