"""Commands with thumbnails in an S3 store: backup, restore, doctor, and what they say if the store fails."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from app.catalog import FileRecord
from app.cli import main
from app.core.config import Settings, load_settings
from app.images import S3Location, ThumbStore
from app.index import open_index
from app.service.factory import find_model, open_ledger
from app.service.thumbs import open_thumbs
from tests.index.conftest import points
from tests.support import memory
from tests.support.packs import put
from tests.support.s3_store import plain_client, s3_location, s3_settings, s3_url

__all__ = ["s3_location", "s3_settings", "s3_url"]

COUNT = 12
FACES = sorted(points(COUNT, seed=3), key=lambda point: point.face_id)

base, tmp_path = memory.base, memory.tmp_path


@pytest.fixture
def settings(tmp_path: Path, s3_settings: S3Location, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with an index of some faces, whose thumbnails are on S3."""
    data = tmp_path / "data"
    put(data / "models" / "small")
    monkeypatch.setenv("DATA_DIR", str(data))
    monkeypatch.setenv("MODEL_NAME", "small")
    monkeypatch.setattr("app.core.config.REPOSITORY", data)
    made = load_settings()
    pack = find_model(made)
    with closing(open_index(made, pack)) as index, closing(open_ledger(made, pack)) as ledger:
        index.upsert(FACES)
        ledger.record([FileRecord("/photos/1.jpg", 5, 6, "a" * 64, "done", COUNT, None, None)])
    thumbs = open_thumbs(made)
    for face in FACES:
        thumbs.write_soon(face.face_id, face.face_id.encode())
    thumbs.flush()
    return made


def keys(location: S3Location) -> list[str]:
    found = plain_client(location.endpoint).list_objects_v2(Bucket=location.bucket)
    return [one["Key"] for one in found.get("Contents", ())]


def test_a_backup_has_the_thumbnails_and_a_restore_adds_those_that_the_store_lacks(
    settings: Settings,
    s3_settings: S3Location,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["backup", str(tmp_path / "backup")]) == 0
    assert f"{COUNT} faces, {COUNT} thumbnails" in capsys.readouterr().out
    copied = ThumbStore(tmp_path / "backup" / "thumbs")
    assert copied.read_many([face.face_id for face in FACES]) == [face.face_id.encode() for face in FACES]

    before, thumbs = keys(s3_settings), open_thumbs(settings)
    thumbs.delete([face.face_id for face in FACES[1:]])
    thumbs.write(FACES[0].face_id, b"drawn anew")
    put(tmp_path / "new" / "models" / "small")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "new"))
    assert main(["restore", str(tmp_path / "backup")]) == 0
    assert keys(s3_settings) == before
    assert thumbs.read(FACES[0].face_id) == b"drawn anew"
    assert thumbs.read(FACES[1].face_id) == FACES[1].face_id.encode()
    assert list(ThumbStore(tmp_path / "new" / "thumbs").face_ids()) == []


def test_a_backup_of_a_folder_is_restored_into_a_store_and_back(
    settings: Settings, s3_settings: S3Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["backup", str(tmp_path / "backup")]) == 0
    put(tmp_path / "new" / "models" / "small")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "new"))
    monkeypatch.delenv("THUMBS_URL")
    assert main(["restore", str(tmp_path / "backup")]) == 0
    assert list(ThumbStore(tmp_path / "new" / "thumbs").face_ids()) == [face.face_id for face in FACES]


@pytest.mark.usefixtures("settings")
def test_a_backup_without_the_store_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THUMBS_URL", "s3://not-there")
    assert main(["backup", str(tmp_path / "backup")]) == 3
    message = capsys.readouterr().err
    assert "THUMBS_URL=s3://not-there" in message
    assert "thumbs_unavailable" in message
    assert "Traceback" not in message
    assert not list(tmp_path.glob("*backup*"))


@pytest.mark.parametrize("url", ["gs://bucket/thumbs", "file:///thumbs"])
@pytest.mark.parametrize("command", [["backup", "somewhere"], ["doctor"], ["ingest", "."]])
def test_a_url_of_another_scheme_is_exit_code_2(
    url: str,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("THUMBS_URL", url)
    assert main(command) == 2
    message = capsys.readouterr().err
    assert f"THUMBS_URL='{url}': must be like s3://BUCKET/PREFIX" in message
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []
