"""The command `oceano`: its commands, options and exit codes; `commands/setup_cli` has those that set it up.

Each command imports its modules when it runs, so that `oceano --help` is fast.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from app import __version__
from app.commands.audit_cli import audit
from app.commands.changes_cli import changes
from app.commands.jobs_cli import jobs, workers
from app.commands.keys_cli import keys
from app.commands.names_cli import names
from app.commands.process import interruptible, open_settings
from app.commands.setup_cli import models, setup
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, OceanoError
from app.core.files import restore_umask
from app.core.memory import collect_rarely
from app.core.native_output import divert_warnings

cli = typer.Typer(
    name="oceano",
    help="Finds a face in millions of photographs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
cli.add_typer(models, name="models")
cli.add_typer(jobs, name="jobs")
cli.add_typer(keys, name="keys")
cli.add_typer(audit, name="audit")
cli.add_typer(workers)
cli.add_typer(names)
cli.add_typer(changes)
cli.add_typer(setup)


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the words of the command line; None for those of the process.

    Returns:
        The exit code: 0 success; 1 finished, but some files failed; 2 wrong usage or settings; 3 a part (index, model)
        is unavailable; 130 interrupted.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if arguments is None:
        divert_warnings()
        collect_rarely()
    command = typer.main.get_command(cli)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as for stderr, so that any file name can be printed
    try:
        code = command.main(words, prog_name="oceano", standalone_mode=False)
    except OceanoError as failure:
        _print_error(failure, as_json="--json" in words)
        return failure.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as failure:
        show = getattr(failure, "show", None)  # an error of the command line parser
        if show is None:
            raise
        show()
        return EXIT_USAGE
    finally:
        restore_umask()
    return code if isinstance(code, int) else EXIT_OK


@cli.callback(invoke_without_command=True)
def _oceano(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@cli.command()
def serve() -> None:
    """Start the service: the page, the REST API, the metrics."""
    from app.commands.serve import run_serve

    run_serve(open_settings("service"))


@cli.command()
def ingest(  # noqa: PLR0913, PLR0917 - an option each
    folder: Annotated[
        str, typer.Argument(help="Index all pictures in this folder and its subfolders, or this single file.")
    ],
    include: Annotated[
        list[str] | None,
        typer.Option(help="Index only files that match this pattern, such as '*.jpg' or '2024/*'. Repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Skip files and folders that match this pattern. Repeatable.")
    ] = None,
    include_system: Annotated[
        bool,
        typer.Option("--include-system", help="Also index recycle bins, thumbnail folders, snapshots and the like."),
    ] = False,
    raw_pairs: Annotated[
        bool, typer.Option("--raw-pairs", help="Also index raw files that have a JPEG or HEIC of the same name.")
    ] = False,
    all_pages: Annotated[
        bool, typer.Option("--all-pages", help="Index all pages of a TIFF, MPO or HEIC file, not only the first.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Ingest at most this many new files.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Also ingest files that failed or had no face.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep running and add new files.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Afterwards, remove deleted files from the index.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --prune: only report what would be removed.")
    ] = False,
    forget_drives: Annotated[
        bool, typer.Option("--forget-drives", help="With --prune: also remove files of drives that are not connected.")
    ] = False,
    people_from_folders: Annotated[
        bool,
        typer.Option(
            "--people-from-folders", help="A picture's folder has the name of the person, if it has one face."
        ),
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write a CSV file that lists files that failed or had no face, with reasons.")
    ] = None,
    queue: Annotated[
        bool,
        typer.Option("--queue", help="Only queue it, for `oceano worker`; not with --watch, --dry-run or --report."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line at the end.")] = False,
) -> int:
    """Index the faces of all pictures in a folder. Run it again to add new pictures."""
    from app.commands.ingest import run_ingest, run_queue
    from app.service import IngestRequest

    if not folder:  # such as an unset shell variable; Path("") is the current folder
        raise OceanoError("invalid_request", "FOLDER is empty")
    request = IngestRequest(
        Path(folder),
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        limit=limit,
        retry=retry,
        watch=watch,
        prune=prune,
        dry_run=dry_run,
        forget_drives=forget_drives,
        report=report,
        include_system=include_system,
        raw_pairs=raw_pairs,
        all_pages=all_pages,
        people_from_folders=people_from_folders,
    )
    if queue:
        return run_queue(request, open_settings("ingest"), as_json=as_json)
    with interruptible() as stop:
        return run_ingest(request, open_settings("ingest"), stop, as_json=as_json)


@cli.command()
def migrate(
    to: Annotated[str, typer.Option(help="For the index: URL of a Qdrant server, or 'embedded'.")] = "",
    catalog: Annotated[
        str,
        typer.Option(
            envvar="MIGRATE_CATALOG_URL",
            help="For the catalog: URL of a PostgreSQL database, or 'sqlite'.",
        ),
    ] = "",
    grpc_port: Annotated[int, typer.Option(help="gRPC port of the target; 0: the port of the URL plus 1.")] = 0,
    key: Annotated[
        str,
        typer.Option("--api-key", envvar="MIGRATE_API_KEY", help="API key of the target, if it is not QDRANT_API_KEY."),
    ] = "",
    exact: Annotated[
        bool, typer.Option("--exact", help="Delete faces from the target that the current index lacks.")
    ] = False,
) -> int:
    """Copy the index to a Qdrant server, the catalog to PostgreSQL, or both back. If interrupted, run it again."""
    from app.commands.migrate import EMBEDDED, run_migrate
    from app.core.config import load_settings

    if not (to or catalog):
        raise OceanoError("invalid_request", "migrate needs --to for the index, --catalog for the catalog, or both")
    settings = open_settings("migrate")
    try:
        target_settings = load_settings(
            qdrant_url="" if to == EMBEDDED else to,
            qdrant_grpc_port=grpc_port,
            qdrant_api_key=key or settings.qdrant_api_key,
        )
    except OceanoError as failure:
        raise OceanoError("invalid_request", failure.message.replace("QDRANT_URL=", "--to ")) from failure
    with interruptible() as stop:
        return run_migrate(settings, target_settings if to else None, stop, exact=exact, catalog_to=catalog)


@cli.command()
def reembed(
    model: Annotated[str, typer.Option(help="The new model: the name of a pack, or a folder.", show_default=False)],
    without_gone: Annotated[
        bool, typer.Option("--without-gone", help="Switch even if many pictures are missing.")
    ] = False,
) -> int:
    """Embed all pictures with another model while the old one stays in use, then switch. Keeps all names."""
    from app.commands.reembed import run_reembed
    from app.core.config import load_settings

    with interruptible() as stop:
        return run_reembed(open_settings("ingest"), load_settings(model_name=model), stop, without_gone=without_gone)


@cli.command()
def backup(folder: Annotated[Path, typer.Argument(help="The folder to create.")]) -> int:
    """Copy index, catalog and thumbnails to a new folder. The service and ingests can keep running."""
    from app.commands.backup import run_backup

    with interruptible() as stop:
        return run_backup(open_settings("backup"), folder, stop)


@cli.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="A folder that `oceano backup` created.")],
) -> int:
    """Restore a backup into an empty or missing index. If interrupted, run it again to continue."""
    from app.commands.backup import run_restore

    with interruptible() as stop:
        return run_restore(open_settings("backup"), folder, stop)


@cli.command()
def search(  # noqa: PLR0913, PLR0917 - an option each
    photographs: Annotated[
        list[Path] | None, typer.Argument(help="Photographs of the person; several are one query.", show_default=False)
    ] = None,
    face: Annotated[
        list[str] | None,
        typer.Option(help="Which face of a photograph, from 0; M:N: face N of photograph M. Repeatable."),
    ] = None,
    face_id: Annotated[list[str] | None, typer.Option(help="An indexed face of the person. Repeatable.")] = None,
    together: Annotated[
        list[str] | None,
        typer.Option("--with", help="A photograph or face id of someone in the same photograph. Repeatable."),
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option("--not", help="A photograph or face id of someone else. Repeatable.")
    ] = None,
    folder: Annotated[list[Path] | None, typer.Option(help="Only below this folder. Repeatable.")] = None,
    taken_from: Annotated[str, typer.Option("--from", help="Taken at or after: a year, month or day.")] = "",
    taken_to: Annotated[str, typer.Option("--to", help="Taken at or before.")] = "",
    undated: Annotated[bool, typer.Option("--undated", help="Only photographs without a date.")] = False,
    min_face: Annotated[int | None, typer.Option(min=1, help="Least size of a face in pixels.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Only clear faces.")] = False,
    person: Annotated[list[str] | None, typer.Option(help="Only faces of this person: name or id. Repeatable.")] = None,
    unnamed: Annotated[bool, typer.Option("--unnamed", help="Only faces without a name.")] = False,
    threshold: Annotated[float | None, typer.Option(min=-1, max=1, help="Lowest similarity.")] = None,
    sort: Annotated[Literal["similarity", "newest", "oldest"], typer.Option(help="The order.")] = "similarity",
    group_by: Annotated[
        Literal["image", "person", "day", "alike"] | None,
        typer.Option(help="Only the best match of each; alike: of near-identical photographs."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The largest number of matches.")] = 100,
    every: Annotated[bool, typer.Option("--all", help="All matches.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print a path per line.")] = False,
    null: Annotated[bool, typer.Option("--null", help="As --paths, each ended by a NUL character.")] = False,
    csv: Annotated[str, typer.Option(help="Write a CSV file; - prints it.")] = "",
    pdf: Annotated[Path | None, typer.Option(help="Write a contact sheet.")] = None,
    archive: Annotated[Path | None, typer.Option("--zip", help="Write a ZIP archive of the originals.")] = None,
    copy_to: Annotated[Path | None, typer.Option(help="Copy the originals to this folder.")] = None,
    link_to: Annotated[Path | None, typer.Option(help="Make symbolic links to the originals in this folder.")] = None,
) -> int:
    """Find the photographs of a person. Exit code 1: nothing was found."""
    from app.commands.search import SearchRequest, condition, run_search
    from app.commands.search_output import SearchOutput

    request = SearchRequest(
        photographs=tuple(photographs or ()),
        faces=tuple(face or ()),
        face_ids=tuple(face_id or ()),
        together=tuple(together or ()),
        unlike=tuple(unlike or ()),
        where=condition(folder or (), taken_from, taken_to, undated=undated, clear=clear, unnamed=unnamed),
        people=tuple(person or ()),
        threshold=threshold,
        sort=sort,
        group_by="image_id" if group_by == "image" else group_by,
        min_face=min_face,
        limit=None if every else limit,
    )
    output = SearchOutput(as_json, paths, null, csv, pdf, archive, copy_to, link_to)
    with interruptible() as stop:
        return run_search(open_settings("search"), request, output, stop)


@cli.command()
def group(
    again: Annotated[bool, typer.Option("--all", help="Look at all faces again, not only at new ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line at the end.")] = False,
) -> int:
    """Group faces without a name by person. An ingest does it by itself. If interrupted, run it again to go on."""
    from app.commands.group import run_group

    with interruptible() as stop:
        return run_group(open_settings("group"), stop, again=again, as_json=as_json)


@cli.command()
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what the picture files allow.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line at the end.")] = False,
) -> int:
    """Check that index, ledger and thumbnails agree and are undamaged."""
    from app.commands.doctor import run_doctor

    with interruptible() as stop:
        return run_doctor(open_settings("doctor"), stop, fix=fix, as_json=as_json)


def _print_error(failure: OceanoError, *, as_json: bool) -> None:
    if as_json:
        body = {"error": {"code": failure.code, "message": failure.message, "details": failure.details}}
        typer.echo(json.dumps(body))
    typer.echo(f"oceano: {failure.message} ({failure.code})", err=True)


if __name__ == "__main__":
    sys.exit(main())
