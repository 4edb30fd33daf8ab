"""`oceano serve`: run the service until a signal."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from ipaddress import ip_address
from typing import Any

import typer
import uvicorn

from app.catalog import KeyStore
from app.core.config import Settings, misspelt_api_keys
from app.core.errors import EXIT_OK, OceanoError
from app.core.program import program
from app.index import open_index
from app.main import create_app
from app.service import build_engine, find_model, open_ledger
from app.web import Connection, backlog, raise_file_limit


def run_serve(settings: Settings) -> None:
    """Run the service until SIGTERM or Ctrl-C.

    Raises:
        OceanoError: `invalid_setting` if the port is in use, `internal` if the service does not start, and as
            `build_engine`, `open_ledger` and `open_index` do.
    """
    host = settings.uvicorn_host
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.uvicorn_port}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                typer.echo(f"Oceano is at {address}", err=True)
                if empty:
                    how = f"{program()} ingest FOLDER"
                    typer.echo(f"The index is empty. To index pictures, in another terminal: {how}", err=True)

    raise_file_limit()
    with _listening(settings) as listener:
        if not settings.api_keys and (misspelt := misspelt_api_keys(os.environ)):
            warning = f"{', '.join(misspelt)} is set, but the setting is API_KEYS, so it has no effect."
            typer.echo(f"oceano: WARNING: {warning}", err=True)
        # open each part before the server starts, so that an error is one sentence and an exit code
        pack = find_model(settings)
        with ThreadPoolExecutor(1, "load") as loader:
            loading = loader.submit(build_engine, settings)  # the model is loaded while the process of the index starts
            with closing(open_ledger(settings, pack)) as ledger:
                if not ip_address(listener.getsockname()[0]).is_loopback:
                    _require_key(settings, KeyStore(ledger.database))
            index = open_index(settings, pack)
            try:
                engine = loading.result()
            except OceanoError:
                index.close()
                raise
        empty = not index.info().points
        app = create_app(settings, engine, index)
        server = Server(
            uvicorn.Config(
                app,
                http=Connection,
                backlog=backlog(),
                log_config=None,
                access_log=False,
                proxy_headers=False,  # the application's middleware reads them
                server_header=False,
                timeout_graceful_shutdown=10,
            )
        )
        # uvicorn raises the signal again after an orderly shutdown; exit with 0 then
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_OK))
        server.run(sockets=[listener])
        if not server.started:
            raise OceanoError("internal", f"the service did not start; see {settings.logs_dir}/service-errors.log")


def _require_key(settings: Settings, keys: KeyStore) -> None:
    """Check that not everyone who can reach this machine may do everything."""
    if not settings.api_keys and not keys.is_any():
        raise OceanoError(
            "invalid_setting",
            f"UVICORN_HOST={settings.uvicorn_host} lets other machines connect, and there is no key: everyone could "
            f"search and see all faces. Add a key (`{program()} keys add NAME --role admin`), or set "
            "UVICORN_HOST=127.0.0.1",
            details={"settings": ["UVICORN_HOST", "API_KEYS"]},
        )


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """Open the listening socket before the model is loaded, so that a port in use is reported immediately."""
    host, port = settings.uvicorn_host, settings.uvicorn_port
    family, sockaddr = _resolved(host, port)
    # asyncio sets TCP_NODELAY only if the protocol is given; without it a response waits 40 ms for the client's ACK
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(sockaddr)
        except OSError as failure:
            raise OceanoError(
                "invalid_setting",
                f"UVICORN_HOST={host!r}, UVICORN_PORT={port}: cannot listen there: {failure.strerror}; "
                "is another Oceano running? Set another port",
            ) from failure
        yield listener


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """Resolve a host to the family and address to listen on; IPv4 first."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as failure:
        raise OceanoError("invalid_setting", f"UVICORN_HOST={host!r} cannot be resolved: {failure}") from failure
    family, _, _, _, sockaddr = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, sockaddr
