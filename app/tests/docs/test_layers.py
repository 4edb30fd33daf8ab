"""The layers of packages: each contract of `lint-imports` holds, and names every package."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    "contract", [one for one in CONTRACTS if one["type"] == "forbidden"], ids=lambda one: one["name"]
)
def test_a_library_is_forbidden_to_all_but_those_who_know_it(contract: dict[str, Any]) -> None:
    assert set(contract["source_modules"]) <= _parts()


def test_the_contracts_hold() -> None:
    """In a process of its own: import-linter sets up logging anew."""
    program = Path(sys.executable).with_name("lint-imports")
    command = [program, "--config", "pyproject.toml", "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=APP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in done.stdout
