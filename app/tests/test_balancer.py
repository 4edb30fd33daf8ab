"""docker/nginx.conf, in a real nginx before two services that are not well."""

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
from fastapi import FastAPI, Request, Response

from tests.index.fake_server import serving
from tests.running import free_port

CONF = Path(__file__).parents[2] / "docker" / "nginx.conf"


class Replica:
    """Answers with its name and how many bytes came, or with `status`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = 200
        self.asked = 0
        self.app = FastAPI()

        @self.app.api_route("/{path:path}", methods=["GET", "POST"])
        async def answer(request: Request) -> Response:
            self.asked += 1
            body = await request.body()
            headers = {"Replica": self.name, "Bytes": str(len(body)), "Asked-For": request.headers.get("host", "")}
            return Response("said", self.status, headers)


@contextlib.contextmanager
def balancer(folder: Path, ports: list[int]) -> Iterator[httpx.Client]:
    """nginx with our configuration; what it asks a network of containers for is given: the services' addresses."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if not nginx:
        pytest.skip("nginx is not installed: docker/nginx.conf is not tried out")
    port = free_port()
    text, names = re.subn(
        r"server oceano:9100 resolve (.*);",
        lambda found: "\n".join(f"server 127.0.0.1:{one} {found[1]};" for one in ports),
        CONF.read_text(encoding="utf-8"),
    )
    text, listeners = re.subn(r"listen 9100;", f"listen 127.0.0.1:{port};", text)
    assert (names, listeners) == (1, 1)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    ours = "".join(f" {kind}_temp_path {folder}/{kind};" for kind in kinds)
    text = text.replace("http {", f"http {{ access_log off;{ours}", 1)
    for_us = f"user {getpass.getuser()}; daemon off; pid {folder}/pid; error_log {folder}/errors;"
    (folder / "nginx.conf").write_text(f"{for_us}\n{text}")
    process = subprocess.Popen([nginx, "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.PIPE, text=True)
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


def test_requests_are_shared_out_and_one_that_is_not_well_is_gone_around(tmp_path: Path) -> None:
    first, second = Replica("first"), Replica("second")
    with serving(first.app) as one, serving(second.app) as other, balancer(tmp_path, [one, other]) as client:
        answered = [client.get("/health").headers["Replica"] for _ in range(10)]
        assert {*answered} == {"first", "second"}

        first.status = 503
        asked = first.asked
        for _ in range(4):
            answer = client.post("/search", content=b"x" * 2_000_000)
            assert (answer.status_code, answer.headers["Replica"]) == (200, "second")
            assert answer.headers["Bytes"] == "2000000"
        assert first.asked > asked


def test_a_service_that_is_gone_is_gone_around_and_clients_errors_are_passed_on(tmp_path: Path) -> None:
    left = Replica("left")
    with serving(left.app) as port, balancer(tmp_path, [free_port(), port]) as client:
        for _ in range(6):
            assert client.post("/search", content=b"picture").headers["Replica"] == "left"
        asked = left.asked
        left.status = 422
        assert client.post("/search").status_code == 422
        assert left.asked == asked + 1
        left.status = 503
        assert client.get("/ready").status_code in (502, 503)
        left.status = 200
        answer = client.get("/health", headers={"Host": "photos.example.org"})
        assert (answer.status_code, answer.headers["Asked-For"]) == (200, "photos.example.org")
