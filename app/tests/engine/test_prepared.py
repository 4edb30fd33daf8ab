"""prepared: a graph is optimized once, loaded again as it is, and prepared anew if anything differs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from app.core.files import free_bytes
from app.core.types import Floats, ModelPack
from app.engine import prepared, sessions
from app.engine.network import Network
from app.engine.onnx_runtime import OnnxRuntimeSession
from app.engine.placement import Placement, place
from app.engine.prepared import Cache

BLOB = np.random.default_rng(7).uniform(-1, 1, (3, 3, 112, 112)).astype(np.float32)


@pytest.fixture
def placement(tmp_path: Path) -> Placement:
    return replace(place("cpu", threads=1), cache=Cache(tmp_path / "kept", "model and processor"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were read as ONNX files."""
    read: list[str] = []
    real = onnx.load

    def load(file: Path, *arguments: object, **options: object) -> onnx.ModelProto:
        read.append(Path(file).name)
        return real(file, *arguments, **options)

    monkeypatch.setattr(onnx, "load", load)
    return read


def outputs(pack: ModelPack, placement: Placement) -> Floats:
    return Network(pack.recogniser, placement, max_batch=8).run(BLOB)[0]


def files(placement: Placement) -> list[Path]:
    assert placement.cache
    return sorted(placement.cache.folder.iterdir())


def test_the_second_start_loads_the_kept_graph_and_returns_the_same(
    demo_pack: ModelPack, placement: Placement, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outputs(demo_pack, replace(placement, cache=None))
    assert np.array_equal(outputs(demo_pack, placement), expected)
    assert [file.suffix for file in files(placement)] == [".json", ".onnx"]
    loads.clear()
    monkeypatch.setattr(Network, "_runs_batches", lambda _: pytest.fail("it is remembered that batches work"))
    assert np.array_equal(outputs(demo_pack, placement), expected)
    assert loads == []


@pytest.mark.parametrize("damage", ["bytes", "cut", "record", "no record", "no graph"])
def test_a_damaged_graph_is_prepared_again(
    damage: str, demo_pack: ModelPack, placement: Placement, loads: list[str]
) -> None:
    expected = outputs(demo_pack, placement)
    record, graph = files(placement)
    before = graph.stat()
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    {
        "bytes": lambda: graph.write_bytes(content),
        "cut": lambda: graph.write_bytes(content[:-9]),
        "record": lambda: record.write_text("[]"),
        "no record": record.unlink,
        "no graph": graph.unlink,
    }[damage]()
    if graph.exists():
        os.utime(graph, ns=(before.st_atime_ns, before.st_mtime_ns))
    loads.clear()
    assert np.array_equal(outputs(demo_pack, placement), expected)
    assert loads
    loads.clear()
    assert np.array_equal(outputs(demo_pack, placement), expected)
    assert loads == [], "it is kept again"


def test_another_model_processor_or_precision_gets_a_graph_of_its_own(
    demo_pack: ModelPack, placement: Placement, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "_KEPT", 3)
    outputs(demo_pack, placement)
    assert placement.cache
    for other in (
        replace(placement, cache=replace(placement.cache, identity="another")),
        replace(placement, precision="fp16"),
    ):
        loads.clear()
        outputs(demo_pack, other)
        assert loads
    assert len(files(placement)) == 6
    outputs(demo_pack, replace(placement, cache=replace(placement.cache, identity="a third")))
    assert len(files(placement)) == 6, "the oldest graph is removed"


def test_where_nothing_can_be_kept_the_model_is_loaded_all_the_same(
    demo_pack: ModelPack, placement: Placement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outputs(demo_pack, replace(placement, cache=None))
    (tmp_path / "kept").write_text("a file in place of the folder")
    assert np.array_equal(outputs(demo_pack, placement), expected)
    (tmp_path / "kept").unlink()
    monkeypatch.setattr(prepared, "free_bytes", lambda _: 1000)
    assert free_bytes(tmp_path) > 1000
    assert np.array_equal(outputs(demo_pack, placement), expected)
    assert files(placement) == []


@pytest.mark.parametrize("fails", ["optimized", "save_to"])
def test_a_graph_that_cannot_be_loaded_or_written_is_done_without(
    fails: str, demo_pack: ModelPack, placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outputs(demo_pack, placement if fails == "optimized" else replace(placement, cache=None))

    class Failing(OnnxRuntimeSession):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            if options.get(fails):
                raise RuntimeError("no space left on device")
            super().__init__(*arguments, **options)

    monkeypatch.setattr(sessions, "OnnxRuntimeSession", Failing)
    assert np.array_equal(outputs(demo_pack, placement), expected)
    assert not [file for file in files(placement) if file.name.startswith(".")]


def test_what_a_killed_process_left_is_removed_but_not_what_another_writes(
    demo_pack: ModelPack, placement: Placement
) -> None:
    assert placement.cache
    placement.cache.folder.mkdir()
    old, young = placement.cache.folder / ".new-old.onnx", placement.cache.folder / ".new-young.onnx"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    outputs(demo_pack, placement)
    assert not old.exists() and young.exists()
    assert json.loads(files(placement)[1].read_text())["batches"] is True


def test_a_start_from_kept_graphs_imports_neither_onnx_nor_insightface(demo_pack: ModelPack, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path;"
        "from app.core.config import Settings; from app.embeddings import FaceEngine; from app.packs import find_pack;"
        "settings = Settings(_env_file=None, device='cpu', runtime='onnxruntime', data_dir=Path(sys.argv[1]));"
        "FaceEngine(find_pack(sys.argv[2], settings.models_dir), settings);"
        "print(sorted({'onnx', 'insightface'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(demo_pack.recogniser.parent)]
    starts = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for _ in range(2)]
    assert starts == ["['insightface', 'onnx']", "[]"]
