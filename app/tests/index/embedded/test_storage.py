"""Locks, copies and the pointer to the current shard."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from app.core.errors import OceanoError
from app.core.locks import locked, try_lock
from app.index.embedded.storage import copy_folder, current_shard, disk_bytes, set_current


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    first = try_lock(tmp_path / "lock")
    assert first is not None
    assert try_lock(tmp_path / "lock") is None
    os.close(first)
    with locked(tmp_path / "lock"):
        assert try_lock(tmp_path / "lock") is None
    again = try_lock(tmp_path / "lock")
    assert again is not None
    os.close(again)


@pytest.mark.parametrize("link", [False, True])
def test_a_copy_has_the_same_bytes_and_keeps_holes(tmp_path: Path, link: bool) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "matrix.dat").write_bytes(os.urandom(100_000))
    (source / "empty").touch()
    with (source / "holes").open("wb") as file:
        file.truncate(50_000_000)
        file.seek(20_000_000)
        file.write(b"in the middle")
    with (source / "all hole").open("wb") as file:
        file.truncate(10_000_000)
    copy_folder(source, tmp_path / "copy", link_frozen=link)
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        assert (tmp_path / "copy" / path).read_bytes() == (source / path).read_bytes()
    assert disk_bytes(tmp_path / "copy") < 1_000_000
    shared = (tmp_path / "copy" / "deep" / "matrix.dat").stat().st_nlink
    assert shared == (2 if link else 1)


def test_the_pointer_names_the_current_shard(tmp_path: Path) -> None:
    assert current_shard(tmp_path) is None
    for name in ("shard-a", "shard-b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "edge_config.json").touch()
    with pytest.raises(OceanoError, match="2 shards"):
        current_shard(tmp_path)
    set_current(tmp_path / "shard-b")
    assert current_shard(tmp_path) == tmp_path / "shard-b"


def test_the_socket_of_a_killed_owner_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "file").write_text("content")
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(str(tmp_path / "from" / "owner.sock"))
    copy_folder(tmp_path / "from", tmp_path / "to", link_frozen=False)
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["file"]
