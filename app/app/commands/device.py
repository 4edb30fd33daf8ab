"""`oceano device`: check the device that DEVICE names."""

from __future__ import annotations

import typer

from app.core.config import Settings
from app.engine import probe


def run_device(settings: Settings) -> None:
    """Run a small convolution and print on which device it ran.

    Raises:
        OceanoError: `device_unavailable`.
    """
    found = probe(settings.device)
    typer.echo(f"the model will run on {found.device} ({found.provider}): {found.reason}")
