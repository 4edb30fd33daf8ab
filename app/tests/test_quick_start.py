"""quick-start.sh: its words, and the choices it makes before it installs anything."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
SCRIPTS = (TOP / "quick-start.sh", TOP / ".ci" / "run")


def run(*words: str, script: Path = SCRIPTS[0], **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("OCEANO_")} | variables
    return subprocess.run([script, *words], env=env, text=True, capture_output=True, timeout=60, check=False, cwd="/")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_executable_and_bash(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("word", ["help", "-h", "--help"])
def test_help_says_what_it_does_and_does_nothing(word: str) -> None:
    done = run(word)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "./quick-start.sh test" in done.stdout
    assert "OCEANO_VARIANT" in done.stdout


def test_an_unknown_word_is_wrong_use() -> None:
    done = run("halp")
    assert done.returncode == 2
    assert "unknown word 'halp'" in done.stderr
    assert "./quick-start.sh ingest FOLDER" in done.stderr


def test_an_ingest_without_a_folder_is_wrong_use() -> None:
    done = run("ingest")
    assert done.returncode == 2
    assert "which folder?" in done.stderr


def test_the_containers_are_said_to_be_missing() -> None:
    done = run("docker")
    assert done.returncode == 3
    assert "not part of this version" in done.stderr


# --- what it would install: its functions alone


def ask(question: str, path: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Ask the functions of quick-start; `path` goes before PATH, and there is no environment yet."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OCEANO_")} | variables
    env["PATH"] = f"{path}:{env['PATH']}" if path else env["PATH"]
    command = f"source '{SCRIPTS[0]}'\nvenv=/nowhere\n{question}"
    return subprocess.run(["bash", "-c", command], env=env, text=True, capture_output=True, timeout=60, check=False)


def test_a_python_that_fits_is_found_and_it_is_no_environments() -> None:
    done = ask("find_python 14", path=str(Path(sys.executable).parent))
    assert done.returncode == 0
    found = Path(done.stdout.strip())
    assert found.is_file()
    assert found == found.resolve()
    assert not (found.parents[1] / "pyvenv.cfg").exists()


def test_a_python_that_does_not_fit_is_passed_over(tmp_path: Path) -> None:
    for name in ("python3", *(f"python3.{minor}" for minor in range(11, 15))):
        _executable(tmp_path / name, "exit 1")
    done = ask("find_python 14", path=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("cuda", "capability", "variant"),
    [
        ("13000", "9.0", "cu13"),
        ("13000", "6.1", "cu12"),  # the driver knows CUDA 13, the GPU does not
        ("13000", "9.0\n7.0", "cu12"),
        ("12040", "9.0", "cu12"),
        ("11080", "7.5", "cu118"),
        ("11040", "7.5", "cpu"),
        ("0", "7.5", "cpu"),
    ],
)
def test_the_packages_fit_the_driver_and_the_gpu(tmp_path: Path, cuda: str, capability: str, variant: str) -> None:
    _executable(tmp_path / "nvidia-smi", f"printf '%s\\n' '{capability}'")
    question = f"cuda_of_driver() {{ echo {cuda}; }}\nfind_python() {{ echo python3; }}\nchoose_variant python3"
    assert ask(question, path=str(tmp_path)).stdout == f"{variant}\n"


def test_without_a_working_driver_it_is_the_cpu(tmp_path: Path) -> None:
    _executable(tmp_path / "nvidia-smi", "exit 9")
    assert ask("choose_variant python3", path=str(tmp_path)).stdout == "cpu\n"


def test_a_variant_that_is_asked_for_is_taken() -> None:
    assert ask("choose_variant python3", OCEANO_VARIANT="cu12").stdout == "cu12\n"


def test_a_variant_that_does_not_exist_is_wrong_use() -> None:
    done = ask("choose_variant python3", OCEANO_VARIANT="cu9")
    assert done.returncode == 2
    assert "cpu, cu118, cu12 or cu13" in done.stderr


@pytest.mark.parametrize("name", ["cpu", "cu118", "cu12", "cu13", "dev"])
def test_every_set_has_its_list(name: str) -> None:
    done = ask(f"here='{TOP}'\nrequirements_of {name}")
    assert Path(done.stdout.strip()).is_file()


def test_what_is_stamped_changes_with_the_lists(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    for name in ("pyproject.toml", "requirements-cpu.txt"):
        (tmp_path / "app" / name).write_text("one")
    question = f"here='{tmp_path}'\nstamp_of cpu '{sys.executable}'"
    before = ask(question).stdout
    assert before == ask(question).stdout
    (tmp_path / "app" / "requirements-cpu.txt").write_text("two")
    assert ask(question).stdout != before


def test_before_a_download_it_looks_whether_there_is_a_way() -> None:
    """Where there is none, the demo starts in seconds: `oceano models install` itself tries for longer."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(30)
        heard = []

        def refuse() -> None:
            connection, _ = proxy.accept()
            with connection:
                heard.append(connection.recv(4096).decode())

        thread = threading.Thread(target=refuse)
        thread.start()
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        done = ask(f"venv='{sys.prefix}'\ncan_download && echo yes", HTTPS_PROXY=address, https_proxy=address)
        thread.join()
    assert done.stdout == ""
    assert heard[0].startswith("CONNECT github.com:443 ")


def _executable(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
