"""Whether another process has a file open for writing: by a lease, or by the file descriptors in /proc."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import app
from app.library.writers import Writers

_PACKAGE = Path(app.__file__ or "").parents[1]


@pytest.fixture(params=["lease", "no_lease"])
def picture(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file, with leases and without: as one of another user, or on a network drive."""
    if request.param == "no_lease":
        monkeypatch.setattr("app.library.writers.fcntl.fcntl", _without_leases)
    path = tmp_path / "1.jpg"
    path.write_bytes(b"1")
    return path


def _without_leases(handle: int, command: int, argument: Any = 0) -> int:
    if command == fcntl.F_SETLEASE:
        raise OSError(errno.EACCES, "Permission denied")
    return 0


@pytest.fixture
def writer(picture: Path) -> Iterator[subprocess.Popen[bytes]]:
    with picture.open("ab") as file:
        process = subprocess.Popen(["/bin/sleep", "60"], stdout=file)
    yield process
    process.kill()
    process.wait()


def test_a_file_that_a_process_writes_is_open(picture: Path, writer: subprocess.Popen[bytes]) -> None:
    assert Writers().have_open(str(picture))
    writer.kill()
    writer.wait()
    assert not Writers().have_open(str(picture))


def test_a_file_that_a_process_only_reads_is_not_open(picture: Path) -> None:
    with picture.open("rb") as file, subprocess.Popen(["/bin/sleep", "60"], stdin=file) as reader:
        assert not Writers().have_open(str(picture))
        reader.kill()


def test_a_missing_file_is_not_open(tmp_path: Path) -> None:
    assert not Writers().have_open(str(tmp_path / "missing.jpg"))


def test_a_writer_during_the_check_ends_nothing(tmp_path: Path) -> None:
    """A broken lease sends SIGIO, which ends a process by default: another process checks while this one writes."""
    path = tmp_path / "1.jpg"
    path.touch()
    program = "import sys; from app.library.writers import Writers; w = Writers(); print('go', flush=True)\n"
    program += "for _ in range(20000): w.have_open(sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, cwd=_PACKAGE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"go\n"
    while process.poll() is None:
        with path.open("ab"):
            pass
    process.stdout.close()
    assert process.returncode == 0


def test_the_signal_of_a_broken_lease_is_ignored_by_default(tmp_path: Path) -> None:
    path = tmp_path / "1.jpg"
    path.touch()
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)
        try:
            fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError:
            pytest.skip("this file system has no leases")
        opener = threading.Thread(target=lambda: path.open("ab").close())
        opener.start()
        opener.join(0.2)  # it waits for the lease
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        opener.join(10)
    finally:
        os.close(handle)
