"""The layers of packages: each contract of `lint-imports` holds, and names every package."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

APP = Path(__file__).parents[2]
PACKAGE = APP / "app"
CONTRACTS: list[dict[str, Any]] = tomllib.loads((APP / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"]


def _parts() -> set[str]:
    """The packages and modules at the top."""
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return {f"app.{name}" for name in (modules | packages) - {"__init__"}}


def test_every_package_has_a_layer() -> None:
    (layers,) = [one["layers"] for one in CONTRACTS if one["type"] == "layers"]
    assert sorted(name for layer in layers for name in layer.split(" | ")) == sorted(_parts())


def test_the_modules_of_every_package_are_private() -> None:
    """Except core, whose modules are for everyone, and commands, which only the command line imports."""
    packages = {f"app.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    protected = {
        ".".join(name.split(".")[:2])
        for one in CONTRACTS
        if one["type"] == "protected"
        for name in one["protected_modules"]
    }
    assert packages - protected == {"app.core", "app.commands"}


@pytest.mark.parametrize("package", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_a_package_says_what_it_is_and_what_others_may_use(package: str) -> None:
    face = importlib.import_module(f"app.{package}")
    assert face.__doc__
    if package not in ("core", "commands"):
        assert face.__all__ == sorted(face.__all__, key=_ruff_order)
        assert all(hasattr(face, name) for name in face.__all__)


def _ruff_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_the_contracts_hold() -> None:
    """In a process of its own: import-linter sets up logging anew."""
    program = Path(sys.executable).with_name("lint-imports")
    command = [program, "--config", "pyproject.toml", "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=APP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in done.stdout
