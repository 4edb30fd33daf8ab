"""The behaviour of Qdrant Edge that the index relies on."""

from __future__ import annotations

import dataclasses
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import OceanoError
from app.index.embedded.options import OwnerOptions
from app.index.embedded.shard import Shard
from app.index.embedded.storage import copy_folder
from tests.index.conftest import PACK, unit_vectors


@pytest.fixture
def options(tmp_path: Path) -> OwnerOptions:
    return OwnerOptions(tmp_path, PACK.embedding_size)


@pytest.fixture
def shard(options: OwnerOptions) -> Iterator[Shard]:
    opened = Shard.open(options.folder / "shard-one", options)
    yield opened
    opened.close()


def ids(*numbers: int) -> bytes:
    return b"".join(uuid.UUID(int=number + 1).bytes for number in numbers)


def fill(shard: Shard, start: int, count: int, size: int = PACK.embedding_size) -> None:
    payloads: list[dict[str, Any]] = [{"image_id": str(n), "folder": ["/"]} for n in range(start, start + count)]
    vectors = unit_vectors(count, start, size).tobytes()
    shard.upsert(ids(*range(start, start + count)), vectors, payloads, overwrite=False)


def test_the_log_alone_restores_writes_that_were_not_flushed(options: OwnerOptions, shard: Shard) -> None:
    """Why `flush` needs only an fsync of the log: after a power cut, only the log is up to date."""
    fill(shard, 0, 300)
    shard.flush()
    copy_folder(options.folder / "shard-one", options.folder / "shard-cut", link_frozen=False)
    fill(shard, 300, 700)
    shard.set_payload(ids(*range(10)), {"person": "Ana"})
    shard.delete(ids(*range(900, 950)))
    shutil.rmtree(options.folder / "shard-cut" / "wal")
    copy_folder(options.folder / "shard-one" / "wal", options.folder / "shard-cut" / "wal", link_frozen=False)
    cut = Shard.open(options.folder / "shard-cut", options)
    assert cut.sizes()[0] == 950
    assert cut.count({"person": ["Ana"]}) == 10
    all_ids = ids(*range(1000))
    assert cut.retrieve(all_ids, True) == shard.retrieve(all_ids, True)
    cut.close()


def test_named_and_deleted_faces_are_not_counted_as_in_the_graph(options: OwnerOptions) -> None:
    quick = dataclasses.replace(options, hnsw_m=8, hnsw_ef_construct=32, indexing_points=100)
    shard = Shard.open(options.folder / "shard-graph", quick)
    fill(shard, 0, 800)
    shard.optimize()
    shard.close()
    shard = Shard.open(options.folder / "shard-graph", quick)
    assert shard.sizes() == (800, 800, 0, 800, 2)
    shard.set_payload(ids(*range(100)), {"person": "Ana"})
    shard.delete(ids(*range(700, 750)))
    shard.flush()
    assert shard.sizes() == (750, 650, 150, 650, 2)
    shard.optimize()
    shard.close()
    shard = Shard.open(options.folder / "shard-graph", quick)
    sizes = shard.sizes()
    assert sizes[:4] == (750, 750, 0, 750)
    shard.close()


@pytest.mark.parametrize("size", [128, 512, 1024])
def test_edge_builds_a_graph_from_indexing_points_on(tmp_path: Path, size: int) -> None:
    options = OwnerOptions(tmp_path, size, hnsw_m=8, hnsw_ef_construct=16)
    least = options.indexing_points
    assert least <= options.build_min  # or a build that is due would build no graph
    shard = Shard.open(tmp_path / "shard-one", options)
    fill(shard, 0, least - 1, size)
    assert not shard.optimize()
    fill(shard, least - 1, 1, size)
    assert shard.optimize()
    assert shard.sizes()[:2] == (least, least)
    shard.close()


@pytest.mark.parametrize(("made", "opened"), [(512, 128), (128, 512)])
def test_edge_itself_refuses_a_shard_of_another_size(
    tmp_path: Path, made: int, opened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, options = tmp_path / "shard-one", OwnerOptions(tmp_path, made)
    shard = Shard.open(folder, options)
    fill(shard, 0, 20, made)
    shard.close()
    changed = dataclasses.replace(options, embedding_size=opened)
    with pytest.raises(OceanoError, match=f"{made} dimensions.*have {opened}") as caught:
        Shard.open(folder, changed)
    assert caught.value.code == "invalid_setting"
    monkeypatch.setattr("app.index.embedded.shard._require_size", lambda *_: None)
    with pytest.raises(OceanoError, match=f"expected vector size {opened}, but got {made}"):
        Shard.open(folder, changed)
    Shard.open(folder, options).close()


def test_vectors_that_do_not_match_their_points_are_refused(shard: Shard) -> None:
    one, four = unit_vectors(1, 1, 512).tobytes(), unit_vectors(4, 1, 128).tobytes()
    for vectors in (one + one, four[:512], four + four[:512]):
        with pytest.raises(OceanoError):
            shard.upsert(ids(1), vectors, [{"image_id": "1"}], overwrite=False)
    with pytest.raises(OceanoError):
        shard.search(four[:512], 1, None, {}, 64)
    assert shard.sizes()[0] == 0


def test_a_copy_of_a_flushed_shard_opens_while_the_shard_is_open(options: OwnerOptions, shard: Shard) -> None:
    fill(shard, 0, 500)
    shard.flush()
    copy_folder(options.folder / "shard-one", options.folder / "shard-two", link_frozen=True)
    copy = Shard.open(options.folder / "shard-two", options)
    copy.delete(ids(*range(100)))
    copy.close()
    assert shard.sizes()[0] == 500


def test_a_shard_is_open_in_one_process_only(options: OwnerOptions, shard: Shard) -> None:
    with pytest.raises(OceanoError, match="WouldBlock"):
        Shard.open(options.folder / "shard-one", options)


def test_a_full_disk_is_disk_full(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise Exception("Service runtime error: WAL write failed: No space left on device (os error 28)")

    class Full:
        update = staticmethod(full)

    real = shard._shard
    monkeypatch.setattr(shard, "_shard", Full())
    with pytest.raises(OceanoError) as caught:
        fill(shard, 0, 1)
    assert caught.value.code == "disk_full"
    monkeypatch.setattr(shard, "_shard", real)


def test_a_folder_that_is_not_a_shard_is_refused(options: OwnerOptions) -> None:
    (options.folder / "shard-bad").mkdir()
    with pytest.raises(OceanoError) as caught:
        Shard.open(options.folder / "shard-bad", options)
    assert caught.value.code == "index_unavailable"
