"""openvino_runtime: the same outputs as in ONNX Runtime, for any size, in batches, from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import ModelPack
from app.demo import draw_portrait
from app.embeddings import FaceEngine
from app.engine.network import Network
from app.engine.placement import place
from tests.support.fakes import picture_of

pytest.importorskip("openvino", reason="OpenVINO is not installed")

PLAIN = place("cpu", threads=1)
IN_OPENVINO = replace(PLAIN, runtime="openvino", streams=2)


def networks(path: Path) -> tuple[Network, Network]:
    return Network(path, PLAIN, max_batch=8), Network(path, IN_OPENVINO, max_batch=8)


def test_a_recogniser_gives_the_same_embeddings_in_batches_of_any_size(demo_pack: ModelPack) -> None:
    one, other = networks(demo_pack.recogniser)
    crops = [draw_portrait(person, 0, (112, 112)) for person in range(11)]
    expected = [outputs[0] for _, _, outputs in one.batches(crops)]
    found = [outputs[0] for _, _, outputs in other.batches(crops)]
    assert [len(batch) for batch in found] == [8, 3]
    assert np.allclose(np.concatenate(found), np.concatenate(expected), atol=1e-4)
    assert other.provider == "OpenVINO CPU"


@pytest.mark.parametrize("size", [(160, 160), (640, 320), (320, 640)])
def test_a_detector_gives_the_same_outputs_for_any_size(size: tuple[int, int], demo_pack: ModelPack) -> None:
    one, other = networks(demo_pack.detector)
    picture = draw_portrait(3, 0, size)
    ((_, _, expected),) = one.batches([picture])
    ((_, _, found),) = other.batches([picture])
    for a, b in zip(expected, found, strict=True):
        assert np.allclose(a, b, atol=1e-3)


def test_threads_do_not_get_the_outputs_of_each_other(demo_pack: ModelPack) -> None:
    _, network = networks(demo_pack.recogniser)
    blobs = [np.full((1, 3, 112, 112), value, np.float32) for value in np.linspace(-1, 1, 40)]
    alone = [network.run(blob)[0] for blob in blobs]
    network.release_memory()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda blob: network.run(blob)[0], blobs * 3))
    for number, output in enumerate(together):
        assert np.allclose(output, alone[number % 40], atol=1e-5)


def test_a_file_that_is_no_model_is_corrupt(tmp_path: Path, demo_pack: ModelPack) -> None:
    broken = tmp_path / "r.onnx"
    broken.write_bytes(demo_pack.recogniser.read_bytes()[:-500])
    with pytest.raises(OceanoError) as raised:
        Network(broken, IN_OPENVINO, max_batch=1)
    assert raised.value.code == "model_corrupt"


@pytest.mark.parametrize("many", [False, True])
def test_an_engine_finds_the_same_faces(many: bool, demo_pack: ModelPack, tmp_path: Path) -> None:
    def found(runtime: str) -> list[list[object]]:
        settings = Settings(_env_file=None, device="cpu", data_dir=tmp_path, runtime=runtime)
        engine = FaceEngine(demo_pack, settings, many=many)
        pictures = [picture_of(draw_portrait(person, 0, (400, 500))) for person in range(3)]
        assert engine.check().healthy
        return [list(faces) for faces in engine.analyze(pictures)]

    for expected, faces in zip(found("onnxruntime"), found("openvino"), strict=True):
        assert len(faces) == len(expected) == 1
        for a, b in zip(expected, faces, strict=True):
            assert np.allclose(a.bbox, b.bbox, atol=0.5)  # type: ignore[attr-defined]
            assert float(a.embedding @ b.embedding) > 0.9999  # type: ignore[attr-defined]
