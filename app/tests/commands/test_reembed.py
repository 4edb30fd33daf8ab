"""`oceano reembed`: another model gets every face that has a file, and every name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import cv2
import onnx
import pytest

from app.catalog import FaceTable
from app.cli import main
from app.commands.reembed import run_reembed
from app.core.config import Settings, load_settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FaceRecord, ModelPack
from app.demo import draw_portrait
from app.index import open_index
from app.service.factory import find_model, open_ledger
from tests.conftest import BOTH, kind_of
from tests.index.conftest import kill, processes_of, wait_until
from tests.support import memory
from tests.support.naming import name_faces, names_by_id, unname_all

NAMED = 3

base = memory.base


@pytest.fixture
def tmp_path(base: Path) -> Iterator[Path]:
    """A folder that has the same path in each test, because an index knows the paths of its photographs."""
    folder = base / "test"
    folder.mkdir()
    yield folder
    for pid in processes_of(folder):
        kill(pid)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def models(base: Path, demo_pack: ModelPack) -> Path:
    """The demo model, and the same with another digest."""
    for name in ("first", "second"):
        shutil.copytree(demo_pack.folder, base / "models" / name)
    recogniser = base / "models" / "second" / demo_pack.recogniser.name
    model = onnx.load(recogniser)
    model.doc_string = "the same, by another digest"
    onnx.save(model, recogniser)
    return base / "models"


@pytest.fixture
def settings(
    request: pytest.FixtureRequest, base: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings with six drawn people, ingested with the demo model, three of them named, and a second model."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MODEL_NAME", "first")
    monkeypatch.setenv("DET_SIZE", "320,320")  # as large as the photographs
    monkeypatch.setattr("app.core.config.REPOSITORY", tmp_path / "data")
    is_embedded, made = kind_of(request) == "embedded", base / "made"
    if is_embedded and made.exists():
        tmp_path.rmdir()
        memory.copy_tree(made, tmp_path)
        return load_settings()
    shutil.copytree(models, tmp_path / "data" / "models")
    (tmp_path / "photos").mkdir()
    for person in range(6):
        cv2.imwrite(str(tmp_path / "photos" / f"{person}.png"), draw_portrait(person, 0, (320, 320)))
    if not is_embedded:
        monkeypatch.setenv("QDRANT_URL", request.getfixturevalue("qdrant_url"))
    settings = _ingested(tmp_path)
    if is_embedded:
        wait_until(lambda: not processes_of(tmp_path))
        memory.copy_tree(tmp_path, made)
    return settings


def _ingested(folder: Path) -> Settings:
    assert main(["ingest", str(folder / "photos")]) == 0
    made = load_settings()
    index = open_index(made, find_model(made))
    names = {record.face_id: f"person {number}" for number, record in enumerate(everything(index)[:NAMED])}
    name_faces(made, index, names)
    index.close()
    return made


def everything(index: FaceIndex, where: FaceFilter | None = None) -> list[FaceRecord]:
    return list(index.scroll(limit=1000, where=where).records)


def opened(settings: Settings, model: str) -> FaceIndex:
    there = settings.model_copy(update={"model_name": model})
    return open_index(there, find_model(there), create=False)


@BOTH
def test_another_model_gets_every_face_and_every_name(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    before = opened(settings, "first")
    faces = {(record.payload.path, record.payload.bbox): record.payload.person for record in everything(before)}
    assert len(faces) == 6
    capsys.readouterr()
    assert main(["reembed", "--model", "second"]) == 0
    output = capsys.readouterr().out
    assert "6 faces with second, 6 before" in output
    assert "names: 3 kept, 0 lost" in output
    assert "MODEL_NAME=second" in output
    after = opened(settings, "second")
    assert {(record.payload.path, record.payload.bbox): record.payload.person for record in everything(after)} == faces
    second = load_settings(None, model_name="second")
    with closing(open_ledger(second, find_model(second))) as ledger:
        assert FaceTable(ledger.database, ledger.collection).images_to_group() == []  # all faces have been grouped
    assert before.count() == 6  # still in use
    before.close()
    after.close()
    with pytest.raises(OceanoError) as caught:
        opened(settings, "first")
    assert caught.value.code == "index_model_mismatch"


def test_a_missing_file_is_reported_unless_a_copy_exists(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *_ = sorted((tmp_path / "photos").iterdir())
    shutil.copy(first, tmp_path / "photos" / "copy.png")
    assert main(["ingest", str(tmp_path / "photos")]) == 0
    first.unlink()
    second.unlink()
    capsys.readouterr()
    assert main(["reembed", "--model", "second"]) == 1
    output = capsys.readouterr().out
    assert f"missing: {second}" in output
    assert str(first) not in output
    assert "5 faces with second, 6 before; files: 1 missing" in output


def test_with_many_missing_files_the_collection_is_activated_only_on_request(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.commands.reembed._MAX_MISSING", 1)
    for path in sorted((tmp_path / "photos").iterdir())[:2]:
        path.unlink()
    assert main(["reembed", "--model", "second"]) == 3
    output = capsys.readouterr().err
    assert "2 pictures are missing" in output
    assert "folder_unavailable" in output
    with closing(open_index(settings, find_model(settings), create=False)) as serving:
        assert serving.count() == 6
    assert main(["reembed", "--model", "second", "--without-gone"]) == 1
    assert "4 faces with second, 6 before; files: 2 missing" in capsys.readouterr().out


def test_removed_faces_do_not_return_with_an_earlier_model(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["reembed", "--model", "second"]) == 0
    monkeypatch.setenv("MODEL_NAME", "second")
    removed = sorted((tmp_path / "photos").iterdir())[0]
    content = removed.read_bytes()
    removed.unlink()
    assert main(["ingest", str(tmp_path / "photos"), "--prune"]) == 0
    now = load_settings()
    with closing(open_index(now, find_model(now))) as index:
        unname_all(now, index)
    assert main(["reembed", "--model", "first"]) == 0
    monkeypatch.setenv("MODEL_NAME", "first")
    with closing(open_index(settings, find_model(settings))) as index:
        assert index.count() == 5
        assert index.facet("person") == {}
    removed.write_bytes(content)  # the picture can be ingested again
    assert main(["ingest", str(tmp_path / "photos")]) == 0
    with closing(open_index(settings, find_model(settings))) as index:
        assert index.count() == 6


def test_without_a_ledger_no_collection_is_activated(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    (settings.state_dir / "catalog.sqlite3").unlink()
    assert main(["reembed", "--model", "second"]) == 3
    assert "found 0 faces, but the index has 6" in capsys.readouterr().err
    with closing(open_index(settings, find_model(settings), create=False)) as serving:
        assert serving.count() == 6


def test_the_old_model_stays_active_until_an_interrupted_reembed_is_finished(settings: Settings) -> None:
    stop = Event()
    stop.set()
    assert run_reembed(settings, settings.model_copy(update={"model_name": "second"}), stop) == 130
    opened(settings, "first").close()
    assert main(["reembed", "--model", "second"]) == 0
    index = opened(settings, "second")
    assert index.count() == 6
    index.close()


def test_the_same_model_and_a_missing_one_are_refused(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reembed", "--model", "first"]) == 2
    assert "already uses this model" in capsys.readouterr().err
    assert main(["reembed", "--model", "third"]) == 3


def test_copies_are_recorded_so_that_a_picture_survives_in_them(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = tmp_path / "copies"
    shutil.copytree(tmp_path / "photos", copies)
    assert main(["ingest", str(copies)]) == 0
    assert main(["reembed", "--model", "second"]) == 0
    there = settings.model_copy(update={"model_name": "second"})
    with closing(open_ledger(there, find_model(there))) as ledger:
        assert (ledger.totals().done, ledger.totals().duplicate) == (6, 6)
    with closing(opened(settings, "second")) as index:
        for folder in ("photos", "copies"):
            assert index.count(FaceFilter(folder=str(tmp_path / folder))) == 6
    (tmp_path / "photos" / "0.png").unlink()
    monkeypatch.setenv("MODEL_NAME", "second")
    assert main(["ingest", str(tmp_path / "photos"), "--prune"]) == 0
    with closing(opened(settings, "second")) as index:
        assert len(everything(index)) == 6
        assert str(copies / "0.png") in {face.payload.path for face in everything(index)}


def test_the_model_of_the_index_is_used_whatever_the_settings_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL_NAME", "second")  # set before `oceano reembed`
    assert main(["ingest", "/"]) == 3
    output = capsys.readouterr().err
    assert "Set MODEL_NAME=first to keep using the index" in output
    assert "`oceano reembed --model second`" in output
    assert main(["reembed", "--model", "second"]) == 0
    assert "6 faces with second, 6 before" in capsys.readouterr().out
    assert main(["reembed", "--model", "second"]) == 2
    assert "already uses this model" in capsys.readouterr().err


def test_the_old_model_s_files_are_not_needed(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(settings.models_dir / "first")
    assert main(["reembed", "--model", "second"]) == 0
    assert "names: 3 kept" in capsys.readouterr().out


def test_all_pages_of_a_file_and_their_names_are_kept(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    album = tmp_path / "photos" / "album.tif"
    assert cv2.imwritemulti(str(album), [draw_portrait(person, 1, (320, 320)) for person in (1, 2)])
    assert main(["ingest", str(album), "--all-pages"]) == 0
    before = opened(settings, "first")
    pages = {record.payload.page: record for record in everything(before) if record.payload.path == str(album)}
    assert sorted(pages) == [0, 1]
    name_faces(settings, before, {record.face_id: f"page {page}" for page, record in pages.items()})
    before.close()
    assert main(["reembed", "--model", "second"]) == 0
    assert "names: 5 kept, 0 lost" in capsys.readouterr().out
    with closing(opened(settings, "second")) as after:
        found = [record.payload for record in everything(after) if record.payload.path == str(album)]
    names = names_by_id(settings)
    assert {(payload.page, names[str(payload.person)]) for payload in found} == {(0, "page 0"), (1, "page 1")}
