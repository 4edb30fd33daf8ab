"""locks: what happens on a file system that has none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from app.core import locks
from app.core.errors import OceanoError
from app.core.logs import _unused_suffix


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def _no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("app.core.locks.fcntl.flock", unsupported)


@pytest.mark.usefixtures("_no_locks")
def test_a_file_system_without_locks_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OceanoError, match=f"{tmp_path} is on a file system without locks") as raised:
        locks.try_lock(tmp_path / "a.lock")
    assert (raised.value.code, raised.value.exit_code) == ("index_unavailable", 3)
    with pytest.raises(OceanoError, match="without locks"), locks.locked(tmp_path / "a.lock"):
        pass


@pytest.mark.usefixtures("_no_locks")
def test_where_a_lock_is_not_required_the_work_goes_on(tmp_path: Path) -> None:
    with locks.locked(tmp_path / "a.lock", required=False):
        pass
    assert not _unused_suffix(tmp_path, "ingest")


def test_a_lock_that_is_held_is_none(tmp_path: Path) -> None:
    with locks.locked(tmp_path / "a.lock"):
        assert locks.try_lock(tmp_path / "a.lock") is None
