"""Real Qdrant servers, started from the program at QDRANT_TEST_BINARY, alone or as a cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import httpx

BINARY = os.environ.get("QDRANT_TEST_BINARY", "")
START_SECONDS = 60


class Node:
    """One server with its data in `folder`; it keeps its ports when it is started again.

    Args:
        folder: data and log of the server.
        host: the address to listen on.
        first: the first node of the cluster to join.
        cluster: start as the first node of a cluster.
        **more: Qdrant settings, such as `service__api_key`.
    """

    def __init__(
        self, folder: Path, *, host: str = "127.0.0.1", first: Node | None = None, cluster: bool = False, **more: object
    ) -> None:
        self._folder = folder
        self.host = host
        self.http, self.grpc = two_ports(host)
        self.peer = free_port(host)
        self._first = first
        self._cluster = cluster or first is not None
        self._settings = more
        self._process: subprocess.Popen[bytes] | None = None
        self._ca: str | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.http}"

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, *, wait: bool = True) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "service__host": self.host,
            "service__http_port": self.http,
            "service__grpc_port": self.grpc,
            "storage__storage_path": self._folder / "storage",
            "storage__snapshots_path": self._folder / "snapshots",
            "telemetry_disabled": "true",
            "cluster__enabled": str(self._cluster).lower(),
            "cluster__p2p__port": self.peer,
            **self._settings,
        }
        command = [BINARY]
        if self._cluster:
            command += ["--uri", f"http://{self.host}:{self.peer}"]
        if self._first:
            command += ["--bootstrap", f"http://{self._first.host}:{self._first.peer}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env={"PATH": os.environ["PATH"]}
                | {f"QDRANT__{key.upper()}": str(value) for key, value in settings.items()},
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until the server accepts requests; raise AssertionError with its log after a minute."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                socket.create_connection((self.host, self.grpc), 1).close()
                if "tls__cert" in self._settings or httpx.get(f"{self.url}/readyz", timeout=2).is_success:
                    return
            except (OSError, httpx.TransportError):
                pass
            time.sleep(0.1)
        raise AssertionError((self._folder / "log").read_text()[-3000:])

    def wait_until_complete(self) -> None:
        """Wait until every replica of every shard of the cluster is up to date."""
        deadline = time.monotonic() + START_SECONDS
        while not all(self._is_complete(name) for name in self._collections()):
            assert time.monotonic() < deadline, "the cluster is not complete"
            time.sleep(0.2)

    def _collections(self) -> list[str]:
        return [found["name"] for found in httpx.get(f"{self.url}/collections").json()["result"]["collections"]]

    def _is_complete(self, collection: str) -> bool:
        found = httpx.get(f"{self.url}/collections/{collection}/cluster").json()["result"]
        shards = found["local_shards"] + found["remote_shards"]
        return not found["shard_transfers"] and all(shard["state"] == "Active" for shard in shards)

    def pause(self) -> None:
        """Stop the process with SIGSTOP, so that connections are accepted and requests not handled."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None


def free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def two_ports(host: str) -> tuple[int, int]:
    """Return two consecutive free ports, as Oceano expects them."""
    while True:
        port = free_port(host)
        with suppress(OSError), socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, port + 1))
            return port, port + 1
