"""nginx: with docker/nginx.conf, and with any other configuration."""

from __future__ import annotations

import contextlib
import getpass
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.running import free_port

CONF = Path(__file__).parents[3] / "docker" / "nginx.conf"


@contextlib.contextmanager
def balancer(folder: Path, ports: list[int]) -> Iterator[httpx.Client]:
    """nginx with our configuration; what it asks a network of containers for is given: the services' addresses."""
    port = free_port()
    text, names = re.subn(
        r"server oceano:9100 resolve (.*);",
        lambda found: "\n".join(f"server 127.0.0.1:{one} {found[1]};" for one in ports),
        CONF.read_text(encoding="utf-8"),
    )
    text, listeners = re.subn(r"listen 9100;", f"listen 127.0.0.1:{port};", text)
    assert (names, listeners) == (1, 1)
    with nginx(folder, text, port) as client:
        yield client


@contextlib.contextmanager
def nginx(folder: Path, text: str, port: int) -> Iterator[httpx.Client]:
    """Run nginx with a configuration that listens on a port; skip the test if it is not installed."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if not program:
        pytest.skip("nginx is not installed: its configuration is not tried out")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    ours = "".join(f" {kind}_temp_path {folder}/{kind};" for kind in kinds)
    text = text.replace("http {", f"http {{ access_log off;{ours}", 1)
    for_us = f"user {getpass.getuser()}; daemon off; pid {folder}/pid; error_log {folder}/errors;"
    (folder / "nginx.conf").write_text(f"{for_us}\n{text}")
    process = subprocess.Popen([program, "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            deadline = time.monotonic() + 20
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    client.get("/wait")
                    break
                time.sleep(0.05)
            assert process.poll() is None, process.stderr and process.stderr.read()
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=20)
