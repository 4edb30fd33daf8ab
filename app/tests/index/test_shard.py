"""What we rely on Edge for, and what it must not do to us."""

from __future__ import annotations

import dataclasses
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import OceanoError
from app.index.folders import copy_folder
from app.index.options import OwnerOptions
from app.index.shard import SIZE, Shard
from app.types import EMBEDDING_SIZE
from tests.index.conftest import unit_vectors


@pytest.fixture
def options(tmp_path: Path) -> OwnerOptions:
    return OwnerOptions(tmp_path)


@pytest.fixture
def shard(options: OwnerOptions) -> Iterator[Shard]:
    opened = Shard.open(options.folder / "shard-one", options)
    yield opened
    opened.close()


def ids(*places: int) -> bytes:
    return b"".join(uuid.UUID(int=place + 1).bytes for place in places)


def fill(shard: Shard, start: int, count: int) -> None:
    stored: list[dict[str, Any]] = [{"image_id": str(at), "folder": ["/"]} for at in range(start, start + count)]
    shard.upsert(ids(*range(start, start + count)), unit_vectors(count, seed=start).tobytes(), stored, overwrite=False)


def test_the_log_alone_brings_back_what_no_flush_has_written(options: OwnerOptions, shard: Shard) -> None:
    """The licence for `flush` as an fsync of the log: power is cut, and of all files only the log is up to date."""
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
    assert cut.count({"person": "Ana"}) == 10
    wanted = ids(*range(1000))
    assert cut.retrieve(wanted, True) == shard.retrieve(wanted, True)
    cut.close()


def test_named_and_deleted_faces_are_not_counted_as_in_the_graph(options: OwnerOptions) -> None:
    quick = dataclasses.replace(options, hnsw_m=8, hnsw_ef_construct=32, indexing_kb=200)
    shard = Shard.open(options.folder / "shard-graph", quick)
    fill(shard, 0, 800)
    shard.optimize()
    shard.close()
    shard = Shard.open(options.folder / "shard-graph", quick)
    assert shard.sizes() == (800, 800, 0, 2)
    shard.set_payload(ids(*range(100)), {"person": "Ana"})
    shard.delete(ids(*range(700, 750)))
    shard.flush()
    assert shard.sizes() == (750, 650, 150, 2)
    shard.optimize()
    shard.close()
    shard = Shard.open(options.folder / "shard-graph", quick)
    points, indexed, left, _ = shard.sizes()
    assert (points, indexed, left) == (750, 750, 0)
    shard.close()


def test_a_copy_of_a_flushed_shard_opens_while_the_shard_is_open(options: OwnerOptions, shard: Shard) -> None:
    fill(shard, 0, 500)
    shard.flush()
    copy_folder(options.folder / "shard-one", options.folder / "shard-two", link_frozen=True)
    copy = Shard.open(options.folder / "shard-two", options)
    copy.delete(ids(*range(100)))
    copy.close()
    assert shard.sizes()[0] == 500


def test_the_shard_takes_embeddings_of_the_size_that_the_rest_of_the_app_makes() -> None:
    assert SIZE == EMBEDDING_SIZE


def test_a_shard_has_one_opener(options: OwnerOptions, shard: Shard) -> None:
    with pytest.raises(OceanoError, match="WouldBlock"):
        Shard.open(options.folder / "shard-one", options)


def test_a_full_disk_is_told_apart_from_other_failures(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise Exception("Service runtime error: WAL write failed: No space left on device (os error 28)")

    class Full:
        update = staticmethod(full)

    whole = shard._shard
    monkeypatch.setattr(shard, "_shard", Full())
    with pytest.raises(OceanoError) as caught:
        fill(shard, 0, 1)
    assert caught.value.code == "disk_full"
    monkeypatch.setattr(shard, "_shard", whole)


def test_a_folder_that_is_no_shard_is_said(options: OwnerOptions) -> None:
    (options.folder / "shard-bad").mkdir()
    with pytest.raises(OceanoError) as caught:
        Shard.open(options.folder / "shard-bad", options)
    assert caught.value.code == "index_unavailable"
