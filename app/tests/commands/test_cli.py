"""cli: exit codes, help, what is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__
from app.cli import main
from app.packs.known import FREE, NON_COMMERCIAL


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setattr("app.core.config.REPOSITORY", tmp_path)
    return tmp_path


def test_help_names_every_command_and_is_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("serve", "ingest", "models", "demo"):
        assert command in out


def test_help_loads_no_model_library() -> None:
    code = "import sys; from app.cli import main; main(['--help']); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-P", "-c", code], text=True, capture_output=True, check=True).stdout
    assert "'typer'" in out
    for heavy in ("insightface", "onnxruntime", "cv2", "numpy", "fastapi", "qdrant_edge"):
        assert f"'{heavy}'" not in out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_only_a_process_of_its_own_diverts_the_warnings_of_libjpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("app.cli.divert_warnings", lambda: calls.append("diverted"))
    assert main(["--version"]) == 0
    assert calls == []
    monkeypatch.setattr(sys, "argv", ["oceano", "--version"])
    assert main() == 0
    assert calls == ["diverted"]


@pytest.mark.parametrize("words", [["nonsense"], ["ingest"], ["ingest", "a", "--what"], ["models", "install", "--url"]])
def test_wrong_use_is_exit_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err


def test_a_folder_that_is_not_there_is_exit_2_before_anything_is_loaded(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", str(data / "gone"), "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["error"]["code"] == "not_found"
    assert "gone is not a folder or file" in said.err


def test_a_model_that_is_not_there_is_exit_3_and_says_how_to_get_it(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "verify", "antelopev2"]) == 3
    assert "oceano models install antelopev2" in capsys.readouterr().err


def test_the_models_are_listed_with_their_licence(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    out = capsys.readouterr().out
    assert "antelopev2" in out
    assert "not installed" in out
    assert f"antelopev2: {NON_COMMERCIAL}" in out
    assert f"opencv: {FREE}" in out


def test_the_demo_draws_a_pack_that_verifies(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    gallery = Path(capsys.readouterr().out.strip())
    assert len(list(gallery.rglob("*.jpg"))) > 20
    assert main(["models", "verify", "demo"]) == 0


def test_the_samples_are_written_with_the_picture_to_search_with(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["samples"]) == 0
    said = capsys.readouterr()
    folder = Path(said.out.strip())
    assert said.err.startswith(f"Search with {folder}/")
    assert len(list(folder.glob("eileen-collins/*.jpg"))) > 5
    assert "public domain" in (folder / "SOURCE.txt").read_text(encoding="utf-8")


def test_a_wrong_setting_is_exit_2_and_named(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UVICORN_WORKERS", "4")
    assert main(["serve"]) == 2
    assert "UVICORN_WORKERS='4'" in capsys.readouterr().err


def test_data_are_made_for_their_owner_only_and_older_ones_are_corrected(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("logs", "state", "thumbs", "qdrant_storage"):
        (data / name).mkdir(mode=0o755)
        (data / name).chmod(0o755)
        (data / name / "older.log").touch()
        (data / name / "older.log").chmod(0o644)
    assert main(["ingest", str(data)]) == 3  # no model
    assert "model_not_found" in capsys.readouterr().err
    for path in data.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_logs_that_cannot_be_written_are_a_wrong_setting(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "file").touch()
    monkeypatch.setenv("DATA_DIR", str(data / "file"))
    assert main(["ingest", str(data)]) == 2
    assert "DATA_DIR=" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["models", "verify", "~nobody-has-this-name/x"],
        ["models", "combine", *2 * ["~nobody-has-this-name/x.onnx"], "--name", "x"],
    ],
)
def test_a_home_of_nobody_is_no_traceback(data: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) in (2, 3)
    assert "nobody-has-this-name" in capsys.readouterr().err
