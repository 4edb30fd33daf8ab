"""Atomic writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.core.files import for_user, keep_new_files_private, restore_umask, write_atomic


def test_a_whole_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "one")
    write_atomic(path, "two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "two")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_gets_the_mode_asked_for(tmp_path: Path) -> None:
    write_atomic(tmp_path / "key", b"secret", mode=0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_two_threads_may_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = [str(number) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda text: write_atomic(path, text, durable=False), texts))
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def private() -> Iterator[None]:
    keep_new_files_private()
    yield
    restore_umask()


@pytest.mark.usefixtures("private")
def test_new_files_are_private_except_those_for_the_user(tmp_path: Path) -> None:
    keep_new_files_private()  # a second call does not take its own umask for the user's
    for name in ("ours", "users"):
        (tmp_path / name).touch()
    for_user(tmp_path / "users")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("ours", "users")] == [0o600, 0o644]


@pytest.mark.usefixtures("private")
def test_a_folder_for_the_user_keeps_the_group_that_it_hands_on(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o2700)
    for_user(folder, 0o777)
    assert folder.stat().st_mode & 0o7777 == 0o2755


def test_without_a_private_umask_a_file_for_the_user_has_the_umask_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(mode=0o600)
    for_user(path)
    assert path.stat().st_mode & 0o777 == 0o644
