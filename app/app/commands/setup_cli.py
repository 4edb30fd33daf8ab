"""The commands that set Oceano up: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.process import open_settings

models = typer.Typer(
    help="Model packs: list, install, combine, verify, quantize.", no_args_is_help=True, rich_markup_mode=None
)
setup = typer.Typer()  # its commands become those of `oceano` itself


@models.command("list")
def list_models() -> None:
    """List the installed packs and those that can be installed."""
    from app.commands.models import print_packs

    print_packs(open_settings("models"))


@models.command("install")
def install_model(
    name: Annotated[str, typer.Argument(help="antelopev2, opencv, or any name with --url or --archive.")] = (
        "antelopev2"
    ),
    url: Annotated[str | None, typer.Option(help="Download this zip file instead.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Use this zip, wheel or folder instead of a download.")] = None,
) -> None:
    """Download a pack, check it and put it into models/. If interrupted, run it again to continue."""
    from app.commands.models import run_install

    run_install(open_settings("models"), name, url=url, archive=archive)


@models.command("combine")
def combine_models(
    detector: Annotated[str, typer.Argument(help="An .onnx file, or the name or folder of a pack.")],
    recogniser: Annotated[str, typer.Argument(help="An .onnx file, or the name or folder of a pack.")],
    name: Annotated[str, typer.Option(help="Name of the new pack.", show_default=False)],
) -> None:
    """Make a pack from the detector of one model and the recogniser of another."""
    from app.commands.models import run_combine

    run_combine(open_settings("models"), detector, recogniser, name)


@models.command("verify")
def verify_model(
    name: Annotated[str | None, typer.Argument(help="Name or folder of a pack; default: MODEL_NAME.")] = None,
) -> None:
    """Hash the files of a pack again and compare."""
    from app.commands.models import run_verify

    settings = open_settings("models")
    run_verify(settings, name or settings.model_name)


@models.command("quantize")
def quantize_model(
    photographs: Annotated[
        Path, typer.Option(help="Folder of photographs with faces, for calibration.", show_default=False)
    ],
    name: Annotated[str | None, typer.Argument(help="Name or folder of a pack; default: MODEL_NAME.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Photographs to read at most, drawn from the whole folder.")] = 500,
) -> None:
    """Quantize the recogniser of a pack to int8, for PRECISION=int8; calibrated with your own photographs."""
    from app.commands.models import run_quantize

    settings = open_settings("models")
    run_quantize(settings, name or settings.model_name, photographs, limit)


@setup.command()
def device() -> None:
    """Check GPU, driver and CUDA by running a small test."""
    from app.commands.device import run_device
    from app.core.config import load_settings

    run_device(load_settings())


@setup.command()
def plan(
    faces: Annotated[str, typer.Option(help="Number of faces, such as 250k, 6M or 1B.", show_default=False)],
    replicas: Annotated[int, typer.Option(min=1, help="Copies of each face, each on another machine.")] = 1,
    node_memory_gb: Annotated[float, typer.Option(min=1, help="Memory of one machine, in GB.")] = 64,
    embedding_size: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Dimensions of an embedding; default: those of the model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Estimate memory, disk space and machines for a number of faces."""
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


@setup.command()
def demo() -> None:
    """Draw the demo model and a gallery of drawn people, for trying Oceano without a model."""
    from app.commands.demo import run_demo

    run_demo(open_settings("demo"))


@setup.command()
def samples() -> None:
    """Write sample pictures for trying a real model: one real photograph in nine versions, and drawn strangers."""
    from app.commands.demo import run_samples

    run_samples(open_settings("demo"))
