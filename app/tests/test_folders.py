"""folders: what lies below a folder, as a stream."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from app.errors import OceanoError
from app.folders import File, contents, readable, scan


def _file(path: Path) -> File:
    status = path.stat()
    return File(str(path), status.st_size, status.st_mtime_ns)


def _names(folder: Path) -> list[str]:
    return [os.path.relpath(file.path, folder) for file in scan(folder)]


def test_files_come_in_a_stable_order_from_all_depths(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a/9.jpg", "a/deep/er/1.jpg", "z.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert _names(tmp_path) == ["z.jpg", "a/9.jpg", "a/deep/er/1.jpg", "b/2.jpg"]


def test_paths_are_absolute_even_for_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.jpg").touch()
    monkeypatch.chdir(tmp_path)
    assert [file.path for file in scan(Path())] == [str(tmp_path / "1.jpg")]


def test_a_link_to_a_folder_is_not_followed_so_loops_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert _names(tmp_path) == ["a/1.jpg"]


def test_a_link_to_a_file_is_that_file_and_a_dangling_one_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"12345")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "1.jpg")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone")
    assert [(Path(file.path).name, file.size) for file in scan(tmp_path)] == [("1.jpg", 5), ("link.jpg", 5)]


def test_pipes_and_resource_forks_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "._photo.jpg").touch()
    assert _names(tmp_path) == []


def test_a_folder_that_vanishes_is_passed_over(tmp_path: Path) -> None:
    assert list(scan(tmp_path / "gone")) == []


def test_a_picture_is_known_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.txt", "PNG")
    assert contents(_file(tmp_path / "picture.txt")) == (tmp_path / "picture.txt").read_bytes()


def test_a_text_is_none_of_ours_but_rubbish_called_a_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert contents(_file(tmp_path / "notes.txt")) is None
    (tmp_path / "broken.JPG").write_text("hello")
    with pytest.raises(OceanoError) as raised:
        contents(_file(tmp_path / "broken.JPG"))
    assert raised.value.code == "unsupported_image"
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(OceanoError) as raised:
        contents(_file(tmp_path / "empty.jpg"))
    assert raised.value.code == "invalid_image"


def test_a_name_in_any_encoding_can_be_said_in_json(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(raw)).touch()
    (found,) = scan(tmp_path)
    assert os.fsencode(found.path) == raw
    assert readable(found.path) == f"{tmp_path}/caf\\xe9.jpg"
    assert readable(f"{tmp_path}/café.jpg") == f"{tmp_path}/café.jpg"
