"""`oceano models`: list, install, combine, verify, quantize."""

from __future__ import annotations

from pathlib import Path

import typer

from app.core.config import Settings
from app.index.capacity import amount
from app.packs import KNOWN_PACKS, combine_packs, install_pack, list_packs, verify_pack


def print_packs(settings: Settings) -> None:
    """Print the installed packs and those that can be installed, one per line, then their licences."""
    packs = list_packs(settings.models_dir)
    for pack in packs:
        state = "installed" if pack.installed else "not installed"
        size = f"{pack.embedding_size}-D" if pack.embedding_size else ""
        message = pack.message
        if not pack.installed and pack.name in KNOWN_PACKS:
            message = f"oceano models install {pack.name} (downloads {amount(KNOWN_PACKS[pack.name].source.size)})"
        typer.echo(f"{pack.name:16} {state:14} {(pack.digest or '')[:8]:9} {size:7} {message}")
    for pack in packs:
        if pack.licence:
            typer.echo(f"{pack.name}: {pack.licence}")


def run_install(settings: Settings, name: str, *, url: str | None, archive: Path | None) -> None:
    """Install a pack; print its licence and a progress bar.

    Args:
        settings: have the folder of the packs.
        name: as for `install_pack`.
        url: download this zip file instead.
        archive: use this file or folder instead of a download.

    Raises:
        OceanoError: as `install_pack` does.
    """
    from app.commands.console import download_bar

    if name in KNOWN_PACKS:
        typer.echo(KNOWN_PACKS[name].licence, err=True)
    with download_bar(name) as advance:
        pack = install_pack(name, settings.models_dir, url=url, archive=archive, progress=advance)
    typer.echo(f"{pack.name} {pack.short_digest} is in {pack.folder}")


def run_combine(settings: Settings, detector: str, recogniser: str, name: str) -> None:
    """Make a pack of the detector of one model and the recogniser of another.

    Raises:
        OceanoError: as `combine_packs` does.
    """
    pack = combine_packs(detector, recogniser, name, settings.models_dir)
    typer.echo(
        f"{pack.name} {pack.short_digest} is in {pack.folder}: {pack.detector.name} and {pack.recogniser.name}, "
        f"embeddings of {pack.embedding_size} dimensions. Use it with MODEL_NAME={pack.name}"
    )


def run_verify(settings: Settings, name: str) -> None:
    """Hash the files of a pack again and compare.

    Raises:
        OceanoError: `model_not_found`, `model_corrupt`.
    """
    pack = verify_pack(name, settings.models_dir)
    typer.echo(f"{pack.name} {pack.short_digest}: {pack.detector.name} and {pack.recogniser.name} are unchanged")


def run_quantize(settings: Settings, name: str, photographs: Path, limit: int) -> None:
    """Quantize the recogniser of a pack with faces of photographs; print each step and how close it is to fp32.

    Raises:
        OceanoError: as `quantize_model` does.
    """
    from app.service import quantize_model

    pack, result = quantize_model(settings, name, photographs, limit, step=lambda text: typer.echo(text, err=True))
    typer.echo(
        f"{pack.name} {pack.short_digest} in int8 is {pack.recogniser}: on {result.checked} faces that were not used "
        f"for calibration, the cosine to fp32 is {result.median:.4f} (median), {result.lowest:.4f} (lowest). "
        f"Use it with PRECISION=int8; an existing index must be embedded again: `oceano reembed --model {name}`"
    )
