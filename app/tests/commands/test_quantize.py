"""`oceano models quantize`: from a folder of photographs to an engine that runs in int8, with an index of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli import main
from app.core.config import load_settings
from app.core.errors import OceanoError
from app.demo import draw_portrait
from app.embeddings import FaceEngine
from app.service import build_engine, find_model, quantize_model
from tests.support.fakes import picture_of

PEOPLE = 28


@pytest.fixture
def data(tmp_path: Path, demo_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(demo_models / "demo", folder / "models" / "demo")
    for name, value in {"DATA_DIR": str(folder), "MODEL_NAME": "demo", "DEVICE": "cpu"}.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for person in range(PEOPLE):
        sub = folder / f"album {person % 3}"
        sub.mkdir(exist_ok=True)
        Image.fromarray(draw_portrait(person, 0, (320, 320))[:, :, ::-1]).save(sub / f"{person}.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    shutil.copy(folder / "album 0" / "0.png", folder / "copy.png")
    return folder


def test_a_pack_is_quantized_and_then_used_with_another_index(
    data: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "quantize", "--photographs", str(photographs)]) == 0
    said = capsys.readouterr()
    assert f"{PEOPLE} faces found" in said.err
    plain = find_model(load_settings(None))
    monkeypatch.setenv("PRECISION", "int8")
    settings = load_settings(None)
    pack = find_model(settings)
    assert pack.short_digest in said.out and pack.digest != plain.digest
    assert pack.recogniser.parent == data / "models" / "demo" / "int8"
    engine = build_engine(settings)
    precisions = {role: one.precision for role, one in engine.device.runtimes.items()}
    assert precisions == {"detector": "fp32", "recogniser": "int8"}
    picture = picture_of(draw_portrait(40, 0, (320, 320)))
    monkeypatch.setenv("PRECISION", "fp32")
    ((expected,),) = FaceEngine(plain, load_settings(None)).analyze([picture])
    ((found,),) = engine.analyze([picture])
    cosine = float(expected.embedding @ found.embedding)
    assert 0.97 < cosine < 0.9999999
    assert np.allclose(expected.bbox, found.bbox)
    assert main(["models", "list"]) == 0
    assert "int8" not in capsys.readouterr().out.split(), "the folder of the quantized file is no pack"


def test_without_the_quantized_file_the_error_names_the_command(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECISION", "int8")
    with pytest.raises(OceanoError, match="oceano models quantize demo --photographs") as raised:
        find_model(load_settings(None))
    assert raised.value.code == "model_not_found"


def test_a_folder_without_faces_or_with_few_is_refused(
    data: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["models", "quantize", "demo", "--photographs", str(empty)]) == 2
    assert "oceano: 0 faces were found" in capsys.readouterr().err
    assert main(["models", "quantize", "demo", "--photographs", str(photographs), "--limit", "5"]) == 2
    assert "faces were found, and at least" in capsys.readouterr().err
    assert [path.name for path in (data / "models" / "demo" / "int8").iterdir()] == [".lock"]


def test_a_folder_that_is_not_there_or_vanishes_is_said(data: Path, photographs: Path, tmp_path: Path) -> None:
    assert main(["models", "quantize", "demo", "--photographs", str(tmp_path / "none")]) == 3
    drive = tmp_path / "drive"
    shutil.copytree(photographs, drive)

    def step(text: str) -> None:
        if text.startswith("looking"):
            shutil.rmtree(drive)

    with pytest.raises(OceanoError) as raised:
        quantize_model(load_settings(None), "demo", drive, 500, step)
    assert raised.value.code == "folder_unavailable"


def test_an_interruption_leaves_nothing(data: Path, photographs: Path) -> None:
    def step(text: str) -> None:
        if text.startswith("calibrating"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_model(load_settings(None), "demo", photographs, 500, step)
    assert [path.name for path in (data / "models" / "demo" / "int8").iterdir()] == [".lock"]
