"""PostgreSQL servers for tests, made from the system's binaries in temporary folders."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from tests.support.running import free_port

START_SECONDS = 30
_USER = "postgres"  # of the system; PostgreSQL refuses to run as root


@cache
def binaries() -> Path | None:
    """The folder of the newest PostgreSQL that is installed; None if there is none, or no way to run it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found and shutil.which("setpriv") else None


class PostgresServer:
    """A server on 127.0.0.1 in a folder of its own. It ends with this process, however that ends.

    Args:
        settings: of the server, such as `max_connections`.
        durable: write to the disk as a real one does; else it is faster.
    """

    def __init__(self, *, durable: bool = False, **settings: object) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="oceano-postgresql-"))
        self.port = free_port()
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"
        self._settings = {} if durable else {"fsync": "off", "full_page_writes": "off"}
        self._settings |= {name: str(value) for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, _USER, _USER)
        data = str(self.folder / "data")
        options = ["-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run(self._command("initdb", *options), check=True, capture_output=True, cwd="/")
        atexit.register(self.remove)

    def start(self) -> PostgresServer:
        """Start it, and wait until it accepts connections."""
        fixed = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "32MB"}
        options = [part for item in (fixed | self._settings).items() for part in ("-c", "=".join(item))]
        command = self._command("postgres", "-D", str(self.folder / "data"), "-p", str(self.port), *options)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.05)
        return self

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it: SIGINT cuts all connections, SIGQUIT does so without writing anything more."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)
            self._process = None

    def restart(self, number: int = signal.SIGINT) -> None:
        """Stop and start it."""
        self.stop(number)
        self.start()

    def run(self, statement: str) -> None:
        """Run a statement as the administrator, outside a transaction."""
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            self.run("SELECT 1")
        except OperationalError:
            return False
        return True

    @staticmethod
    def _command(name: str, *options: str) -> list[str]:
        folder = binaries()
        assert folder is not None
        as_user = [f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"] if os.geteuid() == 0 else []
        return ["setpriv", "--pdeathsig=INT", *as_user, str(folder / name), *options]


@cache
def shared_server() -> PostgresServer:
    """The server of this test process."""
    return PostgresServer().start()
