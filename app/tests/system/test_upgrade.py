"""Data folders and backups of earlier versions open as they are.

`data-before-packages.tar.xz` was written at commit 70b500c, before the code moved into packages: the demo
model ingested the pictures of three drawn people, a copy and a broken file from /photos-of-oceano; Ada has her name.
"""

from __future__ import annotations

import json
import tarfile
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from app.catalog import Totals
from app.commands.backup import run_restore
from app.core.config import Settings
from app.core.types import FaceFilter, ModelPack
from app.images import ThumbStore
from app.index import open_index
from app.service import open_ledger
from tests.support.fakes import embedding_of
from tests.support.pictures import point

ARCHIVE = Path(__file__).parent / "data" / "data-before-packages.tar.xz"
TOTALS = Totals(done=3, failed=1, duplicate=1, faces=3)


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def _settings(data_dir: Path) -> Settings:
    return Settings(_env_file=None, data_dir=data_dir)


def _pack(data_dir: Path) -> ModelPack:
    alias = json.loads((data_dir / "qdrant_storage" / "embedded" / "faces.alias.json").read_text())
    nowhere = Path("/nowhere")
    return ModelPack(alias["model"], nowhere, nowhere, nowhere, alias["digest"], 512)


def _require_all(settings: Settings, pack: ModelPack) -> None:
    with closing(open_index(settings, pack, create=False)) as index:
        records = index.scroll(limit=10, with_embedding=True).records
        assert len(records) == 3
        (ada,) = [record for record in records if record.payload.person == "Ada"]
        assert index.facet("person") == {"Ada": 1}
        assert index.count(FaceFilter(folder="/photos-of-oceano")) == 3
        for record in records:
            assert record.embedding is not None
            (match,) = index.search(record.embedding, limit=1)
            assert (match.face_id, match.payload) == (record.face_id, record.payload)
            assert ThumbStore(settings.thumbs_dir).read(record.face_id)
    with closing(open_ledger(settings, pack)) as ledger:
        assert ledger.totals() == TOTALS
        paths = ledger.paths_of(ada.payload.image_id)
        assert paths == ["/photos-of-oceano/ada-1.jpg", "/photos-of-oceano/copy.jpg"]
        assert ada.payload.path in paths
        failed = ledger.file("/photos-of-oceano/bad.jpg")
        assert failed is not None
        assert failed.reason == "unsupported_image"


def test_an_old_data_folder_opens_and_takes_new_faces(unpacked: Path) -> None:
    settings = _settings(unpacked / "data")
    pack = _pack(unpacked / "data")
    _require_all(settings, pack)
    with closing(open_index(settings, pack)) as index:
        index.upsert([point(1)])
        index.flush()
        assert index.count() == 4
        assert index.search(embedding_of(1), limit=1)[0].face_id


def test_an_old_backup_is_restored(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(tmp_path / "new")
    pack = _pack(unpacked / "backup")
    monkeypatch.setattr("app.commands.backup.find_model", lambda _: pack)
    assert run_restore(settings, unpacked / "backup", Event()) == 0
    _require_all(settings, pack)
