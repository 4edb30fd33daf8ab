"""Every fuzz target, for a few seconds: guided by coverage if atheris is installed, else with random mutations."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import TARGETS

_SECONDS = 2  # all seeds run, however long they take
_APP = Path(__file__).parents[2]
_HAS_ATHERIS = importlib.util.find_spec("atheris") is not None


def _fuzz(target: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a target in a process of its own, in which its modules are instrumented as they are imported."""
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, "--seconds", str(_SECONDS), "--seed", "1", *options],
        env=os.environ | {"PYTHONPATH": f"{_APP}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")},
        cwd=folder,  # for the input of a bug
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_finds_no_bug(target: str, tmp_path: Path) -> None:
    done = _fuzz(target, tmp_path)
    assert done.returncode == 0, done.stderr[-6000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs is not None
    assert int(runs[1]) > 10, "most of the seeds did not run"
    assert ("cov:" in done.stderr) == _HAS_ATHERIS


@pytest.mark.skipif(not _HAS_ATHERIS, reason="the test above mutates without atheris already")
def test_a_target_runs_without_atheris_too(tmp_path: Path) -> None:
    done = _fuzz("fields", tmp_path, "--without-atheris", "--seconds", "1")
    assert done.returncode == 0, done.stderr[-6000:]
    assert "Done" in done.stderr


def test_a_bug_ends_the_run_with_its_input(tmp_path: Path) -> None:
    """A target that always fails, in place of a real one."""
    (tmp_path / "broken.py").write_text("def fuzz_one(data):\n    raise ValueError('a bug')\n\nSEEDS = [b'a']\n")
    command = (
        "import sys, broken, tests.fuzz.__main__ as fuzz\n"
        "sys.modules['tests.fuzz.fields'] = broken\n"
        "sys.argv = ['fuzz', 'fields', '--seconds', '1', '--without-atheris']\n"
        "fuzz.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", command],
        env=os.environ | {"PYTHONPATH": f"{_APP}:{tmp_path}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 77
    assert "ValueError: a bug" in done.stderr
    assert [path.read_bytes() for path in tmp_path.glob("crash-*")]
