"""reembed_command: another model takes over, with every face that has a file and every name."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from threading import Event

import cv2
import onnx
import pytest

from app.cli import main
from app.commands.reembed import overlap, run_reembed
from app.core.config import Settings, load_settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FaceRecord, ModelPack
from app.demo import draw_portrait
from app.index import open_index
from app.service.factory import find_model, open_ledger
from tests.conftest import BOTH, kind_of

NAMED = 3


@pytest.fixture
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, demo_pack: ModelPack, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Six drawn people, ingested with the demo model; three are named. A second model stands beside it."""
    shutil.copytree(demo_pack.folder, tmp_path / "data" / "models" / "first")
    shutil.copytree(demo_pack.folder, tmp_path / "data" / "models" / "second")
    recogniser = tmp_path / "data" / "models" / "second" / demo_pack.recogniser.name
    model = onnx.load(recogniser)
    model.doc_string = "the same, by another digest"
    onnx.save(model, recogniser)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MODEL_NAME", "first")
    monkeypatch.setattr("app.core.config.REPOSITORY", tmp_path / "data")
    (tmp_path / "photos").mkdir()
    for person in range(6):
        cv2.imwrite(str(tmp_path / "photos" / f"{person}.png"), draw_portrait(person, 0, (320, 320)))
    if kind_of(request) == "server":
        monkeypatch.setenv("QDRANT_URL", request.getfixturevalue("qdrant_url"))
    return _ingested(tmp_path)


def _ingested(folder: Path) -> Settings:
    assert main(["ingest", str(folder / "photos")]) == 0
    made = load_settings()
    index = open_index(made, find_model(made))
    for number, record in enumerate(everything(index)[:NAMED]):
        index.set_payload([record.face_id], person=f"person {number}")
    index.close()
    return made


def everything(index: FaceIndex, where: FaceFilter | None = None) -> list[FaceRecord]:
    return list(index.scroll(limit=1000, where=where).records)


def opened(settings: Settings, model: str) -> FaceIndex:
    there = settings.model_copy(update={"model_name": model})
    return open_index(there, find_model(there), create=False)


@BOTH
def test_another_model_takes_over_with_every_face_and_every_name(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    before = opened(settings, "first")
    faces = {(one.payload.path, one.payload.bbox): one.payload.person for one in everything(before)}
    assert len(faces) == 6
    capsys.readouterr()
    assert main(["reembed", "--model", "second"]) == 0
    said = capsys.readouterr().out
    assert "6 faces by second, 6 before" in said
    assert "names: 3 went over, 0 found no face" in said
    assert "MODEL_NAME=second" in said
    after = opened(settings, "second")
    assert {(one.payload.path, one.payload.bbox): one.payload.person for one in everything(after)} == faces
    assert before.count() == 6  # it went on serving
    before.close()
    after.close()
    with pytest.raises(OceanoError) as caught:
        opened(settings, "first")
    assert caught.value.code == "index_model_mismatch"


def test_a_file_that_is_gone_is_reported_unless_a_copy_is_there(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *_ = sorted((tmp_path / "photos").iterdir())
    shutil.copy(first, tmp_path / "photos" / "copy.png")
    assert main(["ingest", str(tmp_path / "photos")]) == 0
    first.unlink()
    second.unlink()
    capsys.readouterr()
    assert main(["reembed", "--model", "second"]) == 1
    said = capsys.readouterr().out
    assert f"gone: {second}" in said
    assert str(first) not in said
    assert "5 faces by second, 6 before; files: 1 gone" in said


def test_where_many_are_gone_nothing_is_switched_unless_that_is_wanted(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.commands.reembed._FEW", 1)
    for path in sorted((tmp_path / "photos").iterdir())[:2]:
        path.unlink()
    assert main(["reembed", "--model", "second"]) == 3
    said = capsys.readouterr().err
    assert "2 pictures are gone" in said
    assert "folder_unavailable" in said
    with closing(open_index(settings, find_model(settings), create=False)) as serving:
        assert serving.count() == 6
    assert main(["reembed", "--model", "second", "--without-gone"]) == 1
    assert "4 faces by second, 6 before; files: 2 gone" in capsys.readouterr().out


def test_who_was_forgotten_since_does_not_come_back_with_an_earlier_model(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["reembed", "--model", "second"]) == 0
    monkeypatch.setenv("MODEL_NAME", "second")
    gone = sorted((tmp_path / "photos").iterdir())[0]
    kept = gone.read_bytes()
    gone.unlink()
    assert main(["ingest", str(tmp_path / "photos"), "--prune"]) == 0
    now = load_settings()
    with closing(open_index(now, find_model(now))) as index:
        index.set_payload([record.face_id for record in everything(index)], person=None)
    assert main(["reembed", "--model", "first"]) == 0
    monkeypatch.setenv("MODEL_NAME", "first")
    with closing(open_index(settings, find_model(settings))) as index:
        assert index.count() == 5
        assert index.facet("person") == {}
    gone.write_bytes(kept)  # and can come back as a picture does
    assert main(["ingest", str(tmp_path / "photos")]) == 0
    with closing(open_index(settings, find_model(settings))) as index:
        assert index.count() == 6


def test_where_the_ledger_is_lost_nothing_is_switched(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    (settings.state_dir / "ledger.sqlite3").unlink()
    assert main(["reembed", "--model", "second"]) == 3
    assert "has 0 faces where the index has 6" in capsys.readouterr().err
    with closing(open_index(settings, find_model(settings), create=False)) as serving:
        assert serving.count() == 6


def test_until_it_is_done_the_old_model_serves_and_the_same_call_goes_on(settings: Settings) -> None:
    stop = Event()
    stop.set()
    assert run_reembed(settings, settings.model_copy(update={"model_name": "second"}), stop) == 130
    opened(settings, "first").close()
    assert main(["reembed", "--model", "second"]) == 0
    index = opened(settings, "second")
    assert index.count() == 6
    index.close()


def test_the_same_model_and_one_that_is_not_there_are_refused(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reembed", "--model", "first"]) == 2
    assert "has already" in capsys.readouterr().err
    assert main(["reembed", "--model", "third"]) == 3


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),
        ((0, 0, 10, 10), (2, 2, 4, 4), 0.04),
    ],
)
def test_overlap_is_intersection_over_union(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float], share: float
) -> None:
    assert overlap(one, other) == pytest.approx(share)
    assert overlap(other, one) == pytest.approx(share)


def test_copies_go_over_so_that_a_picture_lives_on_in_them(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = tmp_path / "copies"
    shutil.copytree(tmp_path / "photos", copies)
    assert main(["ingest", str(copies)]) == 0
    assert main(["reembed", "--model", "second"]) == 0
    there = settings.model_copy(update={"model_name": "second"})
    with closing(open_ledger(there, find_model(there))) as ledger:
        assert (ledger.totals().done, ledger.totals().duplicate) == (6, 6)
    (tmp_path / "photos" / "0.png").unlink()
    monkeypatch.setenv("MODEL_NAME", "second")
    assert main(["ingest", str(tmp_path / "photos"), "--prune"]) == 0
    with closing(opened(settings, "second")) as index:
        assert len(everything(index)) == 6
        assert str(copies / "0.png") in {face.payload.path for face in everything(index)}


def test_the_model_of_the_index_counts_whatever_the_settings_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL_NAME", "second")  # changed before the index was
    assert main(["ingest", "/"]) == 3
    said = capsys.readouterr().err
    assert "Set MODEL_NAME=first to go on with it" in said
    assert "`oceano reembed --model second`" in said
    assert main(["reembed", "--model", "second"]) == 0
    assert "6 faces by second, 6 before" in capsys.readouterr().out
    assert main(["reembed", "--model", "second"]) == 2
    assert "is the model that the index has already" in capsys.readouterr().err


def test_a_model_that_is_gone_is_not_needed_to_leave_it(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(settings.models_dir / "first")
    assert main(["reembed", "--model", "second"]) == 0
    assert "names: 3 went over" in capsys.readouterr().out
