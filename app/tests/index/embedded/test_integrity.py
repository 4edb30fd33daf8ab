"""Damage to files of a shard is found, a kill causes no false alarm, and a damaged shard is built again."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.core.errors import OceanoError
from app.index.base import matches_of, records_of
from app.index.embedded import integrity
from app.index.embedded.integrity import CHECKSUMS, FrozenCheck, damaged_frozen_files, require_frozen_files
from app.index.embedded.options import OwnerOptions
from app.index.embedded.rebuild import rebuild
from app.index.embedded.shard import Shard
from app.index.embedded.storage import current_shard, is_frozen, set_current
from app.index.payload import is_unit, to_stored
from tests.index.conftest import PACK, payload, unit_vectors
from tests.index.embedded.test_shard import ids

POINTS = 300


@pytest.fixture
def options(tmp_path: Path) -> OwnerOptions:
    return OwnerOptions(tmp_path, PACK.embedding_size, hnsw_m=8, hnsw_ef_construct=32, indexing_points=100)


@pytest.fixture
def folder(options: OwnerOptions) -> Path:
    """A closed shard with a graph, and a few points outside it."""
    shard = Shard.open(options.folder / "shard-one", options)
    _fill(shard, 0, POINTS - 50)
    shard.optimize()
    shard.close()
    shard = Shard.open(options.folder / "shard-one", options)
    _fill(shard, POINTS - 50, 50)
    shard.delete(ids(7))
    shard.close()
    set_current(options.folder / "shard-one")
    return options.folder / "shard-one"


def _fill(shard: Shard, start: int, count: int) -> None:
    payloads = [to_stored(payload(number)) for number in range(start, start + count)]
    shard.upsert(ids(*range(start, start + count)), unit_vectors(count, start).tobytes(), payloads, overwrite=False)


def _first(path: Path) -> int:
    """Position of the first byte that is not zero."""
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_DATA)
        content = file.read()
        return start + len(content) - len(content.lstrip(b"\0"))


def _overwrite(path: Path, start: int, content: bytes) -> bytes:
    """Change bytes of a file, and return the former ones."""
    with path.open("r+b") as file:
        file.seek(start)
        before = file.read(len(content))
        file.seek(start)
        file.write(content)
        return before


def _flip(path: Path) -> tuple[int, bytes]:
    start = _first(path)
    return start, _overwrite(path, start, bytes([path.read_bytes()[start] ^ 1]))


def _zero(path: Path) -> tuple[int, bytes]:
    start = _first(path)
    return start, _overwrite(path, start, bytes(min(512, path.stat().st_size - start)))


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted((folder / "segments").rglob("*")) if path.is_file() and path.stat().st_blocks]


@pytest.mark.parametrize("damage", [_flip, _zero])
def test_damage_to_any_file_is_found(
    options: OwnerOptions, folder: Path, damage: Callable[[Path], tuple[int, bytes]]
) -> None:
    sums = json.loads((folder / CHECKSUMS).read_text())
    recorded = sums["frozen"] | sums["closed"]
    files = [path for path in _files(folder) if any(path.read_bytes())]
    assert len(files) > 40
    for path in files:
        name = str(path.relative_to(folder))
        start, before = damage(path)
        assert integrity._damaged(folder, {name: recorded[name]}) == [name]
        _overwrite(path, start, before)
    Shard.open(folder, options).close()


def test_a_damaged_shard_is_not_opened_and_the_error_names_the_files(options: OwnerOptions, folder: Path) -> None:
    path = next(path for path in _files(folder) if path.name == "flags_a.dat" and any(path.read_bytes()))
    _flip(path)
    for _ in range(2):
        with pytest.raises(OceanoError, match="damaged on the disk") as caught:
            Shard.open(folder, options)
        assert caught.value.details["damaged"] == [str(path.relative_to(folder))]


def test_a_file_that_is_missing_or_shorter_is_damage(options: OwnerOptions, folder: Path) -> None:
    path = next(path for path in _files(folder) if is_frozen(path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OceanoError, match="damaged on the disk"):
        Shard.open(folder, options)
    path.unlink()
    with pytest.raises(OceanoError, match="damaged on the disk"):
        Shard.open(folder, options)


def test_a_process_that_was_killed_causes_no_false_alarm(options: OwnerOptions, folder: Path) -> None:
    shard = Shard.open(folder, options)
    _fill(shard, 1000, 50)
    shard.delete(ids(20, 21))
    killed = folder.with_name("shard-killed")
    shutil.copytree(folder, killed)  # what a kill leaves
    shard.flush()
    shutil.copytree(folder, folder.with_name("shard-flushed"))
    shard.close()
    for copy in (killed, folder.with_name("shard-flushed"), folder):
        opened = Shard.open(copy, options)
        assert opened.sizes()[0] == POINTS - 1 + 50 - 2
        opened.close()


def test_holes_of_a_file_count_as_zeros(tmp_path: Path) -> None:
    full, sparse = tmp_path / "full", tmp_path / "sparse"
    content = bytes(5_000_000) + b"x" * 5000 + bytes(3_000_000)
    full.write_bytes(content)
    with sparse.open("wb") as file:
        file.seek(5_000_000)
        file.write(b"x" * 5000)
        file.truncate(len(content))
    assert integrity._checksum(full) == integrity._checksum(sparse)
    _flip(full)
    assert integrity._checksum(full) != integrity._checksum(sparse)


def test_a_shard_of_an_earlier_version_or_with_unreadable_checksums_is_opened(
    options: OwnerOptions, folder: Path
) -> None:
    (folder / CHECKSUMS).write_text("{")
    Shard.open(folder, options).close()
    (folder / CHECKSUMS).unlink()
    Shard.open(folder, options).close()
    sums = json.loads((folder / CHECKSUMS).read_text())
    assert sums["frozen"]
    assert sums["closed"]


def test_of_a_large_index_only_the_small_files_are_read_at_the_start(
    options: OwnerOptions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = next(path for path in _files(folder) if path.name == "matrix.dat")
    _flip(frozen)
    monkeypatch.setattr(integrity, "OPENING_BYTES", 100_000)
    Shard.open(folder, options).close()
    assert damaged_frozen_files(folder) == [str(frozen.relative_to(folder))]
    assert damaged_frozen_files(current_shard(options.folder) or folder) == [str(frozen.relative_to(folder))]
    with pytest.raises(OceanoError, match="damaged on the disk"):
        require_frozen_files(folder)


def test_the_check_beside_the_work_finds_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "FIRST_CHECK_SECONDS", 0)
    monkeypatch.setattr(integrity, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(integrity, "CHECK_BYTES_PER_SECOND", 1e9)
    check = FrozenCheck(lambda: folder)
    check._stop.wait = lambda wait: wait == 0.01  # type: ignore[method-assign,assignment,misc]
    check._run()
    assert check.damaged == []
    frozen = next(path for path in _files(folder) if path.name == "matrix.dat")
    _flip(frozen)
    check._run()
    assert check.damaged == [str(frozen.relative_to(folder))]


def test_a_damaged_index_is_built_again_from_what_can_be_read(options: OwnerOptions, folder: Path) -> None:
    for path in _files(folder):
        if path.name in ("matrix.dat", "quantized.data"):
            _zero(path)
    with pytest.raises(OceanoError, match="damaged on the disk"):
        Shard.open(folder, options)
    faces = rebuild(options)
    assert POINTS - 10 <= faces < POINTS  # zeros in the vectors are those of one or two faces
    shard = current_shard(options.folder)
    assert shard is not None
    assert shard != folder
    opened = Shard.open(shard, options)
    assert opened.count({"folder": ["/photos"]}) == opened.sizes()[0] == faces
    opened.close()


def test_an_index_that_cannot_be_opened_at_all_is_built_again_empty(options: OwnerOptions, folder: Path) -> None:
    for path in folder.rglob("segment.json"):
        path.unlink()
    assert rebuild(options) == 0
    shard = current_shard(options.folder)
    assert shard is not None
    Shard.open(shard, dataclasses.replace(options)).close()


def test_damaged_faces_are_left_out_of_answers(caplog: pytest.LogCaptureFixture) -> None:
    good = to_stored(payload(1))
    hits = [
        ("a", 0.5, good),
        ("b", float("nan"), good),
        ("c", 7.0, good),
        ("d", 0.5, {"path": "x"}),
        ("e", 1.000001, good),
    ]
    assert [(match.face_id, match.similarity) for match in matches_of(hits)] == [("a", 0.5), ("e", 1.0)]
    assert [record.face_id for record in records_of([("a", good, None), ("b", good | {"bbox": [1]}, None)])] == ["a"]
    assert "the face d in the index is damaged" in caplog.text


@pytest.mark.parametrize("embedding", [np.zeros(512), np.full(512, np.nan), np.full(512, 0.05)])
def test_an_embedding_without_norm_1_is_damaged(embedding: np.ndarray) -> None:
    assert not is_unit(embedding.astype(np.float32))
    assert is_unit(unit_vectors(1, 1)[0])
