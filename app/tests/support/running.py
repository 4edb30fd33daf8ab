"""Running Oceano as a user does: the command line and a real service, each a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 60


def environment(data_dir: Path, **settings: object) -> dict[str, str]:
    """The environment of a run over `data_dir`: what is set here and nothing else."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    # measuring which runtime is the fastest takes seconds in every new data folder
    usual = {"DATA_DIR": str(data_dir), "DEVICE": "cpu", "RUNTIME": "onnxruntime"}
    return kept | usual | {name: str(value) for name, value in settings.items()}


def oceano(
    *arguments: object, env: Mapping[str, str], timeout: float = 300, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `oceano ARGUMENTS` to its end."""
    command = [sys.executable, "-P", "-m", "app.cli", *map(str, arguments)]
    return subprocess.run(
        command, env=dict(env), input=stdin, text=True, capture_output=True, timeout=timeout, check=False
    )


def ingest(folder: Path, env: Mapping[str, str], *options: str) -> dict[str, Any]:
    """`oceano ingest FOLDER --json`; the JSON line and the exit code (`exit_code`)."""
    done = oceano("ingest", folder, "--json", *options, env=env)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"exit_code": done.returncode}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def service(env: Mapping[str, str]) -> Iterator[httpx.Client]:
    """A service that answers, and a client for it; stopped with SIGTERM in the end."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "app.cli", "serve"]
    running = dict(env) | {"UVICORN_PORT": str(port)}
    process = subprocess.Popen(command, env=running, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait(client, process)
            yield client
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
    assert process.returncode == 0, process.returncode


def _wait(client: httpx.Client, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            output = process.stdout.read() if process.stdout else ""
            raise AssertionError(f"the service ended with {process.returncode}: {output}")
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"the service was not ready within {START_SECONDS} s")


def open_below(folder: Path) -> list[Path]:
    """The files in a folder that this process has open."""
    opened = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # of the list itself, which is closed by now
            opened.append(link.readlink())
    return [path for path in opened if path.is_relative_to(folder)]
