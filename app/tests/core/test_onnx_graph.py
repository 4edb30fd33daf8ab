"""Which of the ONNX files in a folder is what, told by their graphs alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app.core.onnx_graph import Fingerprint, Graph, describe, find_roles, fingerprint, look, onnx_files
from app.packs.store import find_pack, list_packs
from tests.support.packs import (
    DETECTOR,
    OTHERS,
    PACK,
    PACK_DIGEST,
    RECOGNISER,
    detector,
    embedder,
    graph,
    put,
    recogniser,
    refused,
    sha,
    yunet,
)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


# --- roles


def test_the_other_models_of_a_pack_are_passed_over(models: Path) -> None:
    put(models / "tiny", {**OTHERS, **PACK})
    assert find_pack("tiny", models).digest == PACK_DIGEST


@pytest.mark.parametrize("strides", [3, 5])
@pytest.mark.parametrize("size", [112, 128, 224])
def test_each_kind_of_detector_and_recogniser_is_recognised(models: Path, strides: int, size: int) -> None:
    put(models / "tiny", {"a.onnx": recogniser(size), "b.onnx": detector(strides)})
    pack = find_pack("tiny", models)
    assert (pack.detector.name, pack.recogniser.name) == ("b.onnx", "a.onnx")


def test_weights_listed_among_the_inputs_do_not_hide_a_recogniser(models: Path) -> None:
    put(models / "tiny", {DETECTOR: detector(), RECOGNISER: recogniser(old=True)})
    assert find_pack("tiny", models).recogniser.name == RECOGNISER


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no .onnx files"),
        ({DETECTOR: detector(), **OTHERS}, "exactly one recogniser needed, 0 found"),
        ({RECOGNISER: recogniser()}, "exactly one detector needed, 0 found"),
        ({DETECTOR: detector(3, landmarks=False), RECOGNISER: recogniser()}, "a detector without landmarks"),
        ({DETECTOR: detector(5, landmarks=False), RECOGNISER: recogniser()}, "a detector without landmarks"),
        ({DETECTOR: detector(4), RECOGNISER: recogniser()}, "another model"),
        ({DETECTOR: graph([[1, 3, 0, 0]], [[1, 7]] * 9), RECOGNISER: recogniser()}, "det.onnx: another model"),
        *[
            ({DETECTOR: detector(), RECOGNISER: recogniser(size)}, f"another model, input {size}x{size}")
            for size in (96, 120, 192)
        ],
        ({DETECTOR: detector(), RECOGNISER: graph([[1, 3, 112, 128]], [[1, 512]])}, "another model, input 128x112"),
        ({DETECTOR: detector(), RECOGNISER: graph([[1, 1, 112, 112]], [[1, 512]])}, "rec.onnx: another model"),
        ({DETECTOR: detector(), RECOGNISER: recogniser(width=1000)}, "another model, 1000 values per image"),
        ({DETECTOR: detector(), RECOGNISER: recogniser(width=8192)}, "another model, 8192 values"),
        ({DETECTOR: detector(), RECOGNISER: graph([[1, 3, 112, 112]], [[1, 32, 7, 7]])}, "another model, output 1x32"),
        ({DETECTOR: graph([[1, 3, 64, 64]], [[1, 4, 7]] * 12), RECOGNISER: recogniser()}, "det.onnx: another model"),
        ({DETECTOR: detector(), RECOGNISER: recogniser(), "x.onnx": recogniser()}, "exactly one recogniser needed, 2"),
        ({DETECTOR: detector(), RECOGNISER: b"\x0a\xff"}, "not a readable ONNX file"),
        (
            {DETECTOR: detector(), RECOGNISER: graph([[1, 3, 112, 112]], [[1, 512]], external=True)},
            "weights are in another file",
        ),
    ],
)
def test_a_folder_without_the_two_models_is_refused_with_what_was_seen(
    models: Path, files: dict[str, bytes], said: str
) -> None:
    put(models / "tiny", files)
    assert said in refused("model_not_found", lambda: find_pack("tiny", models)).message


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_models_of_insightface_have_no_role_and_hidden_files_are_not_looked_at(
    tmp_path: Path, name: str
) -> None:
    folder = put(tmp_path, {name: OTHERS[name]})
    assert name.startswith(".") or look(folder / name).startswith("another model")
    assert "0 found" in refused("model_not_found", lambda: find_roles(folder)).message


def test_a_graph_that_may_not_be_read_has_no_role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("onnx.load", refuse)
    message = refused("model_not_found", lambda: find_roles(tmp_path)).message
    assert f"{RECOGNISER}: it cannot be read (Permission denied)" in message


def test_a_missing_folder_holds_no_graphs(tmp_path: Path) -> None:
    assert onnx_files(tmp_path / "none") == []
    assert "no .onnx files" in refused("model_not_found", lambda: find_roles(tmp_path / "none")).message


# --- what goes in and comes out


def _described(content: bytes) -> Graph:
    found = describe(onnx.load_from_string(content))
    assert isinstance(found, Graph), found
    return found


def test_a_scrfd_detector_takes_scaled_rgb_of_any_size() -> None:
    assert _described(detector()) == Graph("scrfd", "in0", None, 127.5, 128.0, swap=True)


def test_a_detector_with_coarser_grids_needs_coarser_frames() -> None:
    assert (_described(detector(3)).stride, _described(detector(5)).stride) == (32, 128)


def test_a_detector_of_one_size_says_it() -> None:
    fixed = graph([[1, 3, 480, 640]], [[100, width] for width in (1, 4, 10) for _ in range(3)])
    assert _described(fixed).input_size == (640, 480)


@pytest.mark.parametrize("size", [None, 640])
def test_a_yunet_detector_takes_plain_bgr_of_any_size_whatever_it_names(size: int | None) -> None:
    assert _described(yunet(size)) == Graph("yunet", "input", None, 0.0, 1.0, swap=False)


def test_a_yunet_detector_that_reshapes_to_its_size_takes_only_that() -> None:
    model = onnx.load_from_string(yunet(64))
    shape = next(tensor for tensor in model.graph.initializer if tensor.name == "cls_8_s")
    shape.CopyFrom(numpy_helper.from_array(np.array([1, 64, 1], np.int64), shape.name))
    assert _described(model.SerializeToString()).input_size == (64, 64)


def test_a_recogniser_takes_scaled_rgb_and_says_its_size() -> None:
    assert _described(recogniser(width=256)) == Graph("arcface", "in0", (112, 112), 127.5, 127.5, True, 256)


@pytest.mark.parametrize(("operations", "scaled"), [(("Sub", "Mul"), True), (("Mul", "Sub"), False), (("Sub",), False)])
def test_a_recogniser_that_scales_by_itself_gets_plain_pixels(operations: tuple[str, ...], scaled: bool) -> None:
    found = _described(embedder(operations=operations))
    assert (found.mean, found.std) == ((0.0, 1.0) if scaled else (127.5, 127.5))


def test_a_size_that_the_output_does_not_say_is_worked_out() -> None:
    assert _described(embedder(output=["N", "?"])).embedding_size == 64
    assert "another model" in str(describe(onnx.load_from_string(graph([[1, 3, 112, 112]], [["N", "?"]]))))


def test_weights_in_another_file_are_found_wherever_they_hang() -> None:
    model = onnx.load_from_string(embedder())
    tensor = onnx.TensorProto(name="hidden", data_location=onnx.TensorProto.EXTERNAL, data_type=1, dims=[1])
    model.graph.node.append(helper.make_node("Constant", [], ["far"], value=tensor))
    assert "another file" in str(describe(model))


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.UINT8])
def test_a_graph_that_takes_other_numbers_is_another_model(kind: int) -> None:
    model = onnx.load_from_string(recogniser())
    model.graph.input[0].type.tensor_type.elem_type = kind
    assert "not float32" in str(describe(model))


def test_a_graph_that_is_no_graph_has_no_role_and_does_not_hide_the_others(models: Path) -> None:
    model = onnx.load_from_string(embedder(output=["N", "?"]))
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Reshape", ["data"], ["embedding"]))
    odd = model.SerializeToString()
    put(models / "odd", {DETECTOR: detector(), RECOGNISER: odd})
    assert "rec.onnx: " in refused("model_not_found", lambda: find_pack("odd", models)).message
    assert "odd" in {pack.name for pack in list_packs(models)}


def test_names_that_nothing_uses_among_the_inputs_do_not_hide_a_recogniser() -> None:
    assert _described(embedder(unused_input=True)).input_name == "data"


# --- fingerprints


def test_a_fingerprint_is_the_sha_256_and_a_stamp_that_vouches_for_it(tmp_path: Path) -> None:
    file = put(tmp_path) / DETECTOR
    found = fingerprint(file)
    info = file.stat()
    assert found == Fingerprint(DETECTOR, sha(PACK[DETECTOR]), (info.st_size, info.st_mtime_ns, info.st_ino))
    assert fingerprint(file, found) is found


@pytest.mark.parametrize("change", ["content", "mtime", "inode", "name"])
def test_a_changed_stamp_or_another_name_is_hashed_again(tmp_path: Path, change: str) -> None:
    file = put(tmp_path) / DETECTOR
    before = fingerprint(file)
    if change == "content":
        file.write_bytes(PACK[DETECTOR] + b"x")
    elif change == "mtime":
        os.utime(file, ns=(10**18, 10**18 + 1))
    elif change == "inode":
        beside = tmp_path / "beside"
        beside.write_bytes(PACK[DETECTOR])
        os.utime(beside, ns=(10**18, 10**18))
        beside.replace(file)
    else:
        file = file.rename(tmp_path / "new.onnx")
    assert fingerprint(file, before) is not before
    assert fingerprint(file, before).sha256 == sha(file.read_bytes())


def test_a_file_just_written_has_no_stamp(tmp_path: Path) -> None:
    file = tmp_path / DETECTOR
    file.write_bytes(b"new")
    assert fingerprint(file).stamp is None


def test_a_file_that_cannot_be_read_is_model_corrupt(tmp_path: Path) -> None:
    assert "cannot be read" in refused("model_corrupt", lambda: fingerprint(tmp_path / "none.onnx")).message
