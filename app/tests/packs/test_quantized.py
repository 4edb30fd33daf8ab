"""quantized: the file of PRECISION=int8 is put beside its pack at once, is checked, and has a digest of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.types import ModelPack
from app.packs import find_pack, in_precision, keep_quantized, quantized, quantizing
from tests.support.packs import put, refused


@pytest.fixture
def pack(models: Path) -> ModelPack:
    put(models / "tiny")
    return find_pack("tiny", models)


def made(pack: ModelPack, models: Path, content: bytes) -> ModelPack:
    with quantizing(pack, models) as work:
        work.target.write_bytes(content)
        return keep_quantized(work, {"median": 0.99})


def files(models: Path) -> set[str]:
    return {path.name for path in (models / "tiny" / "int8").iterdir()} - {".lock"}


def test_a_quantized_pack_has_its_own_recogniser_and_a_digest_of_that_file(pack: ModelPack, models: Path) -> None:
    first = made(pack, models, b"first")
    assert first == in_precision(pack, "int8", models)
    assert first.recogniser.read_bytes() == b"first"
    assert (first.name, first.detector, first.threshold) == (pack.name, pack.detector, pack.threshold)
    second = made(pack, models, b"second")
    assert len({pack.digest, in_precision(pack, "fp16", models).digest, first.digest, second.digest}) == 4
    assert files(models) == {second.recogniser.name, f"{pack.digest[:16]}.json"}, "the first file is gone"
    assert made(pack, models, b"first").digest == first.digest


def test_precisions_with_the_embeddings_of_fp32_are_the_pack_itself(pack: ModelPack, models: Path) -> None:
    made(pack, models, b"int8")
    assert [in_precision(pack, one, models) for one in ("auto", "fp32", "bf16")] == [pack] * 3
    assert find_pack("tiny", models) == pack


def test_a_pack_that_was_not_quantized_is_refused_with_the_command(pack: ModelPack, models: Path) -> None:
    failure = refused("model_not_found", lambda: in_precision(pack, "int8", models))
    assert "`oceano models quantize tiny --photographs FOLDER`" in failure.message


@pytest.mark.parametrize("content", ["", "[]", '{"file": 3}', '{"file": "gone.onnx", "sha256": "00"}', "\0"])
def test_a_damaged_record_counts_as_not_quantized(content: str, pack: ModelPack, models: Path) -> None:
    made(pack, models, b"int8")
    (models / "tiny" / "int8" / f"{pack.digest[:16]}.json").write_text(content)
    refused("model_not_found", lambda: in_precision(pack, "int8", models))


def test_a_quantized_file_that_was_altered_is_refused_even_if_its_size_and_time_are_the_same(
    pack: ModelPack, models: Path
) -> None:
    file = made(pack, models, b"int8").recogniser
    before = file.stat()
    file.write_bytes(b"INT8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "has been altered" in refused("model_corrupt", lambda: in_precision(pack, "int8", models)).message


def test_another_pack_of_the_same_name_does_not_get_the_file(pack: ModelPack, models: Path, tmp_path: Path) -> None:
    from tests.support.packs import DETECTOR, PACK, RECOGNISER, recogniser

    made(pack, models, b"int8")
    other = find_pack(str(put(tmp_path / "tiny", {DETECTOR: PACK[DETECTOR], RECOGNISER: recogniser(seed=9)})), models)
    refused("model_not_found", lambda: in_precision(other, "int8", models))
    assert made(other, models, b"other").digest != in_precision(pack, "int8", models).digest
    assert len(files(models)) == 4, "each keeps its own"


def test_two_at_once_are_refused(pack: ModelPack, models: Path) -> None:
    with quantizing(pack, models):
        failure = refused("quantization_failed", lambda: quantizing(pack, models).__enter__())
    assert "another process is quantizing tiny" in failure.message
    assert made(pack, models, b"int8")


def test_what_fails_or_is_interrupted_leaves_the_earlier_file_in_use(pack: ModelPack, models: Path) -> None:
    first = made(pack, models, b"first")
    before = files(models)
    for failure in (KeyboardInterrupt, ValueError):
        with pytest.raises(failure), quantizing(pack, models) as work:
            work.target.write_bytes(b"half")
            raise failure
    assert files(models) == before
    assert in_precision(pack, "int8", models) == first


def test_a_full_disk_is_said_and_leaves_the_earlier_file_in_use(
    pack: ModelPack, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(pack, models, b"first")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(quantized, "write_atomic", full)
    refused("disk_full", lambda: made(pack, models, b"second"))
    assert in_precision(pack, "int8", models) == first


KILLED = """
import json, os, sys
from pathlib import Path
from app.packs import find_pack, in_precision, keep_quantized, quantizing

models = Path(sys.argv[1])
pack = find_pack("tiny", models)

def make(content):
    with quantizing(pack, models) as work:
        work.target.write_bytes(content)
        keep_quantized(work, {"median": 0.99})

def die_at(count):
    lines = 0
    def trace(frame, event, _):
        nonlocal lines
        if "quantized.py" not in frame.f_code.co_filename and "files.py" not in frame.f_code.co_filename:
            return None
        lines += event == "line"
        if lines == count:
            os._exit(9)
        return trace
    sys.settrace(trace)
    make(b"second")
    os._exit(0)

for count in range(1, 1000):
    make(b"first")
    if not (child := os.fork()):
        die_at(count)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([code, in_precision(pack, "int8", models).digest]))
    if code == 0:
        break
"""


def test_a_process_that_is_killed_at_any_line_leaves_the_old_file_or_the_new_one(pack: ModelPack, models: Path) -> None:
    first = made(pack, models, b"first").digest
    second = made(pack, models, b"second").digest
    ran = subprocess.run([sys.executable, "-c", KILLED, str(models)], check=True, capture_output=True)
    ends = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(ends) > 30 and ends[-1] == [0, second]
    assert {digest for _, digest in ends} == {first, second}
    made(pack, models, b"third")
    record = json.loads((models / "tiny" / "int8" / f"{pack.digest[:16]}.json").read_text())
    assert files(models) == {record["file"], f"{pack.digest[:16]}.json"}, "nothing half-done is left"
