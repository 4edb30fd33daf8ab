"""Embeddings of other sizes than 512: an index accepts only those of its model's size."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FacePoint, ModelPack, collection_name
from app.index import activate_collection, alias_path, open_index, restore_embedded, restored_copy
from app.index.capacity import kilobytes
from app.index.embedded.alias import open_embedded_collection, read_alias
from app.index.server.connect import collection_of
from app.index.transfer import Migration
from tests.index.conftest import (
    PACK,
    QUICK,
    SMALL_PACK,
    ids_of,
    open_local,
    open_quick,
    payload,
    points,
    processes_of,
    settings_at,
    unit_vectors,
    wait_until,
)

LARGE_PACK = dataclasses.replace(SMALL_PACK, name="largepack", digest="7d9f0003" + "0" * 56, embedding_size=2048)
MISFIT = dataclasses.replace(PACK, embedding_size=128)  # impossible for a real model: the same digest with another size
PACKS = {pack.embedding_size: pack for pack in (PACK, SMALL_PACK, LARGE_PACK)}
GRAPH: dict[str, Any] = {"hnsw_m": 8, "hnsw_ef_construct": 32, "full_scan_kb": 25}


@dataclasses.dataclass(frozen=True)
class Filled:
    index: FaceIndex
    pack: ModelPack
    faces: list[FacePoint]

    @property
    def rows(self) -> np.ndarray:
        return np.stack([face.embedding for face in self.faces])

    def queries(self, count: int, seed: int) -> np.ndarray:
        return unit_vectors(count, seed, self.pack.embedding_size)


@pytest.fixture(scope="module", params=[("embedded", 128), ("embedded", 2048), ("local", 128)], ids=str)
def filled(request: pytest.FixtureRequest, base: Path) -> Iterator[Filled]:
    """An index of each kind with 300 faces, with embeddings of another size."""
    kind, size = request.param
    pack = PACKS[size]
    faces = points(300, seed=1, pack=pack)
    settings = settings_at(Path(tempfile.mkdtemp(dir=base)))
    with closing(open_quick(settings, pack) if kind == "embedded" else open_local(pack=pack)) as index:
        index.upsert(faces)
        index.flush()
        yield Filled(index, pack, faces)


def test_similarities_are_the_cosines_that_numpy_computes(filled: Filled) -> None:
    queries = filled.queries(20, seed=2)
    found = filled.index.search_batch(list(queries), limit=10)
    assert len(found) == 20
    for query, matches in zip(queries, found, strict=True):
        cosines = filled.rows @ query
        best = np.argsort(-cosines)[:10]
        assert [match.face_id for match in matches] == [filled.faces[row].face_id for row in best]
        assert np.allclose([match.similarity for match in matches], cosines[best], atol=1e-4)


def test_a_filter_and_a_threshold_apply(filled: Filled) -> None:
    (match,) = filled.index.search(filled.faces[7].embedding, limit=5, threshold=0.9)
    assert (match.face_id, match.payload) == (filled.faces[7].face_id, filled.faces[7].payload)
    elsewhere = FaceFilter(folder="/photos/0")
    assert filled.index.search(filled.faces[7].embedding, limit=5, threshold=0.9, where=elsewhere) == []


def test_embeddings_are_read_back_as_they_were_written(filled: Filled) -> None:
    by_id = {face.face_id: face.embedding for face in filled.faces}
    ids = ids_of(filled.faces[:40])
    read = filled.index.retrieve(ids, with_embedding=True)
    assert [record.face_id for record in read] == ids
    page = filled.index.scroll(limit=300, with_embedding=True)
    assert len(page.records) == 300
    for record in (*read, *page.records):
        assert record.embedding is not None
        assert record.embedding.dtype == np.float32
        assert np.allclose(record.embedding, by_id[record.face_id], atol=1e-6)


@pytest.mark.parametrize("size", [64, 128, 512, 2048])
def test_an_embedding_of_another_size_is_refused_with_both_shapes(filled: Filled, size: int) -> None:
    (bad,) = points(1, seed=3, pack=dataclasses.replace(filled.pack, embedding_size=size))
    if size == filled.pack.embedding_size:
        filled.index.upsert([bad])
        filled.index.delete([bad.face_id])
        return
    batch = [filled.faces[0].embedding, bad.embedding]
    for attempt in (
        lambda: filled.index.upsert([filled.faces[0], bad]),
        lambda: filled.index.search(bad.embedding, limit=1),
        lambda: filled.index.search_batch(batch, limit=1),
    ):
        with pytest.raises(OceanoError) as caught:
            attempt()
        assert caught.value.code == "invalid_request"
        assert f"({size},)" in caught.value.message
        assert f"({filled.pack.embedding_size},)" in caught.value.message
    assert filled.index.retrieve([bad.face_id]) == []


def test_an_index_of_512_dimensions_refuses_others(index: FaceIndex) -> None:
    (small,) = points(1, pack=SMALL_PACK)
    with pytest.raises(OceanoError, match=r"shape \(128,\).*\(512,\)") as caught:
        index.upsert([small])
    assert caught.value.code == "invalid_request"


def test_faces_are_migrated_from_index_to_index_and_back(settings: Settings) -> None:
    faces = points(700, seed=4, pack=SMALL_PACK)
    with (
        closing(open_quick(settings, SMALL_PACK)) as source,
        closing(open_local(pack=SMALL_PACK)) as server,
        closing(open_quick(settings_at(settings.data_dir / "back"), SMALL_PACK)) as back,
    ):
        source.upsert(faces)
        source.set_payload([faces[3].face_id], person="Ana")
        for origin, target in ((source, server), (server, back)):
            migration = Migration(origin, target)
            assert migration.run().copied == 700
            assert migration.compare().share == 1.0
        (record,) = back.retrieve([faces[3].face_id], with_embedding=True)
        assert record.payload.person == "Ana"
        assert record.embedding is not None
        assert np.allclose(record.embedding, faces[3].embedding, atol=1e-6)


def test_a_backup_is_restored_and_read_with_its_size(settings: Settings, tmp_path: Path) -> None:
    faces = points(200, seed=5, pack=SMALL_PACK)
    with closing(open_quick(settings, SMALL_PACK)) as index:
        index.upsert(faces)
        index.backup(tmp_path / "copy")
    restored = settings_at(tmp_path / "restored")
    restore_embedded(restored, tmp_path / "copy")
    with closing(open_index(restored, SMALL_PACK, create=False)) as index:
        assert index.search(faces[9].embedding, limit=1)[0].face_id == faces[9].face_id
        assert index.count() == 200
    with (
        restored_copy(settings, tmp_path / "copy") as copied,
        closing(open_index(copied, SMALL_PACK, create=False)) as copy,
    ):
        assert copy.count() == 200


# --- the graph


@pytest.mark.parametrize("size", [128, 512, 2048])
def test_a_graph_is_built_from_the_same_number_of_points_for_every_size(settings: Settings, size: int) -> None:
    pack = PACKS[size]
    faces = points(400, seed=6, pack=pack)
    with closing(open_quick(settings, pack, **GRAPH, indexing_points=400)) as index:
        index.upsert(faces[:399])
        index.maintain(wait=True)
        assert index.info().indexed == 0
        index.upsert(faces[399:])
        index.maintain(wait=True)
        assert index.info().indexed == 400


@pytest.mark.parametrize("size", [1, 3, 33, 96, 100, 128, 512, 4096])
def test_a_threshold_in_kilobytes_is_reached_by_its_number_of_points(size: int) -> None:
    for count in (1, 250, 399, 5000, 50_000):
        assert 1 <= kilobytes(count, size) <= max(1, count * size * 4 / 1024)
    assert kilobytes(5000, 512) == 10_000


def test_searches_through_a_graph_of_small_embeddings_find_the_nearest(settings: Settings) -> None:
    faces = [
        FacePoint(face.face_id, face.embedding, payload(n, quality=n % 10 / 10))
        for n, face in enumerate(points(1200, seed=8, pack=SMALL_PACK))
    ]
    with closing(open_quick(settings, SMALL_PACK, **GRAPH, indexing_points=400)) as index:
        index.upsert(faces)
        index.maintain(wait=True)
        assert index.info().indexed == 1200
        for least in (0.0, 0.7):
            matching = [face for face in faces if face.payload.quality >= least]
            rows = np.stack([face.embedding for face in matching])
            hits = 0
            for query in unit_vectors(20, 9, 128):
                nearest = {matching[row].face_id for row in np.argsort(-(rows @ query))[:10]}
                where = FaceFilter(min_quality=least)
                hits += len(nearest & {match.face_id for match in index.search(query, limit=10, where=where)})
            assert hits > 180  # of 200
        index.upsert(points(100, seed=10, pack=SMALL_PACK))
        assert index.count() == 1300


# --- sizes that differ


def test_an_alias_file_without_a_size_still_works(settings: Settings) -> None:
    with closing(open_quick(settings)) as index:
        index.upsert(points(3))
    _remove_size(settings)
    with closing(open_quick(settings)) as index:
        assert index.count() == 3
    with pytest.raises(OceanoError) as caught:
        open_quick(settings, SMALL_PACK)
    assert (caught.value.code, caught.value.details["points"]) == ("index_model_mismatch", 3)


def test_an_empty_index_of_another_size_is_replaced(settings: Settings) -> None:
    open_quick(settings).close()
    _remove_size(settings)
    for pack in (SMALL_PACK, LARGE_PACK, PACK):
        with closing(open_quick(settings, pack)) as index:
            assert index.info().collection == collection_name("faces", pack)
            alias = read_alias(alias_path(settings.embedded_dir, "faces"))
            assert alias is not None
            assert alias["embedding_size"] == pack.embedding_size


def test_an_empty_collection_of_another_size_on_a_server_is_replaced() -> None:
    client = QdrantClient(":memory:")
    client.close = lambda *_, **__: None  # type: ignore[method-assign]
    open_local(client)
    open_local(client, SMALL_PACK).upsert(points(2, pack=SMALL_PACK))
    assert collection_of(client, "faces") == collection_name("faces", SMALL_PACK)
    with pytest.raises(OceanoError) as caught:
        open_local(client)
    assert caught.value.code == "index_model_mismatch"


def test_a_collection_of_another_size_is_filled_and_activated(settings: Settings) -> None:
    with closing(open_quick(settings)) as old, closing(open_embedded_collection(settings, SMALL_PACK, **QUICK)) as new:
        old.upsert(points(3))
        new.upsert(points(2, pack=SMALL_PACK))
        activate_collection(settings, SMALL_PACK)
        with closing(open_quick(settings, SMALL_PACK)) as index:
            assert index.count() == 2
        assert old.count() == 3


def test_a_shard_of_another_size_is_refused_and_unchanged(settings: Settings) -> None:
    faces = points(3)
    with closing(open_quick(settings)) as index:
        index.upsert(faces)
        with pytest.raises(OceanoError, match=r"512 dimensions.*128") as caught:
            open_quick(settings, MISFIT)
        assert caught.value.code == "index_in_use"
        assert index.search(faces[0].embedding, limit=1)[0].face_id == faces[0].face_id
    wait_until(lambda: not processes_of(settings.data_dir))
    with pytest.raises(OceanoError, match=r"512 dimensions.*128") as caught:
        open_quick(settings, MISFIT)
    assert caught.value.code == "invalid_setting"
    wait_until(lambda: not processes_of(settings.data_dir))
    with closing(open_quick(settings)) as index:
        assert index.search(faces[0].embedding, limit=1)[0].face_id == faces[0].face_id


def test_a_collection_of_another_size_on_a_server_is_refused_with_both_sizes() -> None:
    client = QdrantClient(":memory:")
    client.close = lambda *_, **__: None  # type: ignore[method-assign]
    open_local(client).upsert(points(3))
    with pytest.raises(OceanoError, match="vectors is 512, the model's 128") as caught:
        open_local(client, MISFIT)
    assert caught.value.code == "invalid_setting"


def test_owner_and_worker_start_without_numpy() -> None:
    code = "import sys, app.index.embedded.owner, app.index.embedded.worker; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _remove_size(settings: Settings) -> None:
    path = alias_path(settings.embedded_dir, "faces")
    alias = json.loads(path.read_text())
    assert alias.pop("embedding_size") == 512
    path.write_text(json.dumps(alias))
