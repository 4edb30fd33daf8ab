"""`oceano demo` and `oceano samples`: pictures for trying Oceano, and a model for drawn people."""

from __future__ import annotations

import typer

from app.core.config import Settings
from app.demo import PACK_VERSION, SAMPLES_VERSION, write_demo_gallery, write_demo_pack, write_samples
from app.packs import forget_pin


def run_demo(settings: Settings) -> None:
    """Draw the demo pack and its gallery; print the gallery's folder."""
    gallery = settings.state_dir / f"demo-{PACK_VERSION}"
    if write_demo_pack(settings.models_dir / "demo"):
        forget_pin("demo", settings.models_dir)  # a new version of the pack has another digest
    write_demo_gallery(gallery)
    typer.echo(str(gallery))


def run_samples(settings: Settings) -> None:
    """Write the sample pictures; print their folder.

    Raises:
        OceanoError: `not_found` if the photograph of scikit-image cannot be read.
    """
    folder = settings.state_dir / f"samples-{SAMPLES_VERSION}"
    typer.echo(f"Search with {write_samples(folder)}", err=True)
    typer.echo(str(folder))
