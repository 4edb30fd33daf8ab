"""sizing: what it says of a million is what was measured; the rest grows with it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from app.cli import main
from app.errors import OceanoError
from app.sizing import amount, faces_of, plan, row

INSTALL = (Path(__file__).parents[2] / "INSTALL.md").read_text(encoding="utf-8")
TABLE = [(100_000, 1), (1_000_000, 1), (6_000_000, 1), (50_000_000, 2), (1_000_000_000, 2)]


def test_a_million_needs_what_was_measured() -> None:
    million = plan(1_000_000)
    processes = plan(1).memory_least
    assert 0.55e9 < million.memory_least - processes < 0.62e9  # 0.587 GB that cannot be given back
    assert 1.1e9 < million.memory - processes < 1.25e9  # 1.17 GB resident
    assert 3.5e9 < million.index_disk < 3.8e9  # 3.66 GB
    assert plan(1_000_000, m=32).index_disk < million.index_disk


@pytest.mark.parametrize(("faces", "replicas"), TABLE)
def test_install_has_the_numbers_that_the_command_gives(faces: int, replicas: int) -> None:
    assert f"| {' | '.join(row(plan(faces, replicas=replicas)))} |" in INSTALL


def test_more_faces_never_need_less() -> None:
    plans = [plan(1 << exponent) for exponent in range(34)]
    assert len(plans) == 34
    for smaller, larger in itertools.pairwise(plans):
        assert larger.memory > smaller.memory
        assert larger.index_disk > smaller.index_disk
        assert larger.nodes >= smaller.nodes


def test_copies_are_on_machines_of_their_own_and_all_memory_is_there() -> None:
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
def test_what_is_no_number_of_faces_is_refused(text: str) -> None:
    with pytest.raises(OceanoError) as caught:
        faces_of(text)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(("size", "said"), [(1, "1 B"), (1234, "1.2 KB"), (45e9, "45 GB"), (2.5e15, "2500 TB")])
def test_amounts_are_for_people(size: float, said: str) -> None:
    assert amount(size) == said


def test_the_command_says_it_in_words_and_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--faces", "6M"]) == 0
    assert "6,000,000 faces" in capsys.readouterr().out
    assert main(["plan", "--faces", "50M", "--replicas", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "cluster"
    assert main(["plan", "--faces", "many"]) == 2


@pytest.mark.parametrize(
    "words", [["--faces", "9" * 401], ["--faces", "6M", "--replicas", "9" * 401], ["--faces", "1e9B"]]
)
def test_numbers_beyond_all_measure_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    assert capsys.readouterr().err


def test_memory_beyond_all_measure_is_one_machine_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--faces", "6M", "--node-memory-gb", "inf"]) == 0
    assert "machines: 1" in capsys.readouterr().out


def test_two_machines_with_copies_are_three() -> None:
    assert plan(6_000_000, replicas=2).nodes == 3
