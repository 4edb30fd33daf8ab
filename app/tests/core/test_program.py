"""What a user types to run the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__
from app.core.program import program


def _script(folder: Path) -> Path:
    """A program `oceano` beside a program `python` in a folder whose name has a space."""
    folder.mkdir()
    script = folder / "oceano"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    return script


def test_a_program_that_a_shell_finds_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script(tmp_path / "a folder")
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    monkeypatch.setenv("PATH", str(script.parent))
    assert program() == "oceano"


def test_another_program_of_the_same_name_is_not_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, other = _script(tmp_path / "a folder"), _script(tmp_path / "other")
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    monkeypatch.setenv("PATH", str(other.parent))
    assert program() == f"'{script}'"


def test_without_a_script_the_module_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    assert program() == f"{python} -m app"


def test_what_is_said_works_in_a_shell() -> None:
    done = subprocess.run(f"{program()} --version", shell=True, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == __version__
