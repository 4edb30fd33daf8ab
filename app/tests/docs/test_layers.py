"""The layers of packages: each contract of `lint-imports` holds, and names every package."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

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


def test_the_contracts_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(APP)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == EXIT_STATUS_SUCCESS
