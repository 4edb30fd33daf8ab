"""Capacity estimates: the numbers for a million faces are the measurement; others grow with the faces."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from app.cli import main
from app.core.errors import OceanoError
from app.index.capacity import amount, faces_of, plan, row
from tests.support.packs import detector, recogniser

INSTALL = (Path(__file__).parents[3] / "INSTALL.md").read_text(encoding="utf-8")
TABLE = [(100_000, 1), (1_000_000, 1), (6_000_000, 1), (50_000_000, 2), (1_000_000_000, 2)]


def test_the_estimate_for_a_million_faces_is_the_measurement() -> None:
    million = plan(1_000_000)
    processes = plan(1).memory_least
    assert 0.55e9 < million.memory_least - processes < 0.62e9  # measured: 0.587 GB at least
    assert 1.1e9 < million.memory - processes < 1.25e9  # measured: 1.17 GB resident
    assert 3.5e9 < million.index_disk < 3.8e9  # measured: 3.66 GB
    assert plan(1_000_000, m=32).index_disk < million.index_disk


@pytest.mark.parametrize("size", [1, 128, 1024, 2048, 4096])
def test_the_size_of_an_embedding_depends_on_its_dimensions(size: int) -> None:
    sized, default = plan(1_000_000, embedding_size=size), plan(1_000_000)
    assert (sized.embedding_size, default.embedding_size) == (size, 512)
    assert sized.index_disk - default.index_disk == (4 + 1) * (size - 512) * 1_000_000  # original and int8 copy
    assert sized.memory - default.memory == sized.memory_least - default.memory_least == (size - 512) * 1_000_000
    assert sized.thumbnails_disk == default.thumbnails_disk


@pytest.mark.parametrize("size", [-1, 0, 4097])
def test_dimensions_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(OceanoError, match="embedding size") as caught:
        plan(1000, embedding_size=size)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(("faces", "replicas"), TABLE)
def test_install_md_has_the_numbers_of_the_command(faces: int, replicas: int) -> None:
    assert f"| {' | '.join(row(plan(faces, replicas=replicas)))} |" in INSTALL


def test_more_faces_never_need_less() -> None:
    plans = [plan(1 << exponent) for exponent in range(34)]
    assert len(plans) == 34
    for smaller, larger in itertools.pairwise(plans):
        assert larger.memory > smaller.memory
        assert larger.index_disk > smaller.index_disk
        assert larger.nodes >= smaller.nodes


def test_replicas_are_on_separate_machines_with_enough_memory() -> None:
    three = plan(1000, replicas=3)
    assert (three.kind, three.nodes) == ("cluster", 3)
    large = plan(50_000_000, replicas=2)
    assert large.nodes * large.node_memory > large.memory
    assert plan(6_000_000, node_memory=8_000_000_000).kind == "cluster"
    assert plan(30_000_000).kind == "server"


@pytest.mark.parametrize(
    ("text", "faces"), [("6M", 6_000_000), ("250k", 250_000), ("1.5b", 1_500_000_000), ("1,000", 1000), ("7", 7)]
)
def test_a_number_of_faces_can_have_a_unit(text: str, faces: int) -> None:
    assert faces_of(text) == faces


@pytest.mark.parametrize("text", ["", "x", "-5", "0", "6G", "1e6", "M"])
def test_a_text_that_is_not_a_number_of_faces_is_refused(text: str) -> None:
    with pytest.raises(OceanoError) as caught:
        faces_of(text)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(("size", "text"), [(1, "1 B"), (1234, "1.2 KB"), (45e9, "45 GB"), (2.5e15, "2500 TB")])
def test_amounts_are_readable(size: float, text: str) -> None:
    assert amount(size) == text


def test_the_command_prints_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--faces", "6M"]) == 0
    assert "6,000,000 faces" in capsys.readouterr().out
    assert main(["plan", "--faces", "50M", "--replicas", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "cluster"
    assert main(["plan", "--faces", "many"]) == 2


@pytest.mark.parametrize(("model", "size"), [("antelopev2", 512), ("opencv", 128), ("own", 64), ("nothing", 512)])
def test_the_command_uses_the_model_s_dimensions_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: str, size: int
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MODEL_NAME", model)
    own = tmp_path / "models" / "own"
    own.mkdir(parents=True)
    (own / "det.onnx").write_bytes(detector())
    (own / "rec.onnx").write_bytes(recogniser(width=64))
    assert main(["plan", "--faces", "6M"]) == 0
    assert f"6,000,000 faces of {size} dimensions" in capsys.readouterr().out
    assert main(["plan", "--faces", "6M", "--embedding-size", "2048", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["embedding_size"] == 2048
    assert [path.name for path in tmp_path.rglob("*.json")] == []  # planning pins no pack


@pytest.mark.parametrize("size", ["0", "4097", "many"])
def test_the_command_refuses_dimensions_out_of_range(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--faces", "6M", "--embedding-size", size]) == 2
    assert "--embedding-size" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--faces", "9" * 401], ["--faces", "6M", "--replicas", "9" * 401], ["--faces", "1e9B"]]
)
def test_numbers_that_are_too_large_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    assert capsys.readouterr().err


def test_infinite_memory_needs_one_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--faces", "6M", "--node-memory-gb", "inf"]) == 0
    assert "machines: 1" in capsys.readouterr().out


def test_two_replicas_need_three_machines() -> None:
    assert plan(6_000_000, replicas=2).nodes == 3
