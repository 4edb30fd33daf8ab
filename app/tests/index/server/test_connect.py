"""Opening a collection on a server, and creating a new one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import grpc
import pytest
from fastapi import FastAPI, Response
from qdrant_client import QdrantClient, models

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import collection_name
from app.index.server.connect import collection_of, connect, make_collection, open_server
from tests.index.conftest import OTHER_PACK, PACK, ids_of, open_local, points
from tests.support.fake_server import app_of, serving


@pytest.fixture
def client() -> QdrantClient:
    """A server that keeps its data when an index is closed."""
    opened = QdrantClient(":memory:")
    opened.close = lambda *_, **__: None  # type: ignore[method-assign]
    return opened


def test_a_new_index_is_a_collection_of_the_model_behind_the_alias(client: QdrantClient) -> None:
    index = open_local(client)
    assert index.info().kind == "server"
    assert collection_of(client, "faces") == collection_name("faces", PACK)
    metadata = client.get_collection("faces").config.metadata or {}
    assert (metadata["model"], metadata["digest"]) == (PACK.name, PACK.digest)


def test_an_index_that_does_not_exist_is_created_only_on_request(client: QdrantClient) -> None:
    with pytest.raises(OceanoError) as caught:
        open_local(client, create=False)
    assert caught.value.code == "not_found"
    assert client.get_collections().collections == []
    open_local(client)
    open_local(client, create=False)


def test_an_index_with_faces_of_another_model_is_refused_with_advice(client: QdrantClient) -> None:
    open_local(client).upsert(points(3))
    with pytest.raises(
        OceanoError, match=r"MODEL_NAME=testpack.*oceano reembed --model otherpack.*QDRANT_COLLECTION"
    ) as caught:
        open_local(client, OTHER_PACK)
    assert caught.value.code == "index_model_mismatch"
    assert caught.value.details["points"] == 3
    assert caught.value.details["index_digest"] == PACK.digest
    assert open_local(client).count() == 3


def test_an_empty_index_of_another_model_is_replaced(client: QdrantClient) -> None:
    open_local(client)
    open_local(client, OTHER_PACK)
    assert collection_of(client, "faces") == collection_name("faces", OTHER_PACK)


def test_the_same_model_under_another_name_finds_its_faces(client: QdrantClient) -> None:
    faces = points(2)
    open_local(client).upsert(faces)
    again = open_local(client, dataclasses.replace(PACK, name="renamed"))
    assert [record.face_id for record in again.retrieve(ids_of(faces))] == ids_of(faces)


def test_a_collection_left_incomplete_by_a_kill_is_completed(client: QdrantClient) -> None:
    made = []
    client.create_payload_index = lambda _, key, *__, **___: made.append(key)  # type: ignore[method-assign, assignment]
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    make_collection(client, settings, PACK, collection_name("faces", PACK))
    made.clear()
    open_local(client)
    assert sorted(set(made)) == [
        "det_score", "flaws", "folder", "image_id", "ingested_at", "person", "quality", "taken_at",
    ]  # fmt: skip
    assert collection_of(client, "faces") == collection_name("faces", PACK)


def parameters_of(client: QdrantClient) -> dict[str, Any]:
    """Record the parameters of the collections that the client creates from now on."""
    requested: dict[str, Any] = {}
    create = client.create_collection

    def recorded(name: str, **parameters: Any) -> bool:
        requested.update(parameters)
        return create(name, vectors_config=parameters["vectors_config"])

    client.create_collection = recorded  # type: ignore[method-assign, assignment]
    return requested


def test_a_collection_is_created_with_the_parameters_of_the_settings(client: QdrantClient) -> None:
    requested = parameters_of(client)
    settings = Settings(  # type: ignore[call-arg]
        _env_file=None, hnsw_m=24, hnsw_ef_construct=77, shard_number=3, replication_factor=2,
        write_consistency_factor=2,
    )  # fmt: skip
    make_collection(client, settings, PACK, "made")
    assert (requested["vectors_config"].size, requested["vectors_config"].distance) == (512, models.Distance.COSINE)
    assert requested["vectors_config"].on_disk
    assert requested["on_disk_payload"]
    scalar = requested["quantization_config"].scalar
    assert (scalar.type, scalar.always_ram) == (models.ScalarType.INT8, True)
    assert (requested["hnsw_config"].m, requested["hnsw_config"].ef_construct) == (24, 77)
    assert requested["hnsw_config"].full_scan_threshold == 100_000
    counts = ("shard_number", "replication_factor", "write_consistency_factor")
    assert [requested[key] for key in counts] == [3, 2, 2]


@pytest.mark.parametrize(("size", "kilobytes"), [(128, 25_000), (1024, 200_000)])
def test_the_scan_threshold_is_the_same_number_of_faces_for_every_size(
    client: QdrantClient, size: int, kilobytes: int
) -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    requested = parameters_of(client)
    make_collection(client, settings, dataclasses.replace(PACK, embedding_size=size), "made")
    assert requested["vectors_config"].size == size
    assert requested["hnsw_config"].full_scan_threshold == kilobytes


@pytest.mark.parametrize("text", [None, "no certificate at all"])
def test_certificates_that_cannot_be_read_are_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    settings = Settings(_env_file=None, qdrant_url="https://localhost:1", qdrant_ca_file=str(file))  # type: ignore[call-arg]
    with pytest.raises(OceanoError, match="QDRANT_CA_FILE") as caught:
        connect(settings)
    assert caught.value.code == "invalid_setting"


@pytest.mark.parametrize("content", [None, "<html>hello</html>", '{"hello": 1}'], ids=["404", "html", "json"])
def test_a_server_that_is_not_qdrant_is_reported(content: str | None) -> None:
    app = FastAPI()
    if content is not None:
        app.get("/collections")(lambda: Response(content))
    with serving(app) as port, pytest.raises(OceanoError, match="not a Qdrant server") as caught:
        connect(Settings(_env_file=None, qdrant_url=f"http://127.0.0.1:{port}"))  # type: ignore[call-arg]
    assert caught.value.code == "invalid_setting"


@pytest.mark.parametrize(
    ("version", "fits"), [("1.16.3", False), ("0.11.0", False), ("1.17.0", True), ("2.0.0-dev", True)]
)
def test_a_server_that_is_too_old_is_refused(version: str, *, fits: bool) -> None:
    with serving(app_of(QdrantClient(":memory:"), version=version)) as port:
        settings = Settings(_env_file=None, qdrant_url=f"http://127.0.0.1:{port}")  # type: ignore[call-arg]
        if fits:
            connect(settings).close()
            return
        with pytest.raises(OceanoError, match=r"needs 1\.17 or newer") as caught:
            connect(settings)
        assert caught.value.code == "invalid_setting"


def test_grpc_is_tried_again_when_the_server_was_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Starting(QdrantClient):
        def get_collections(self, **_: Any) -> models.CollectionsResponse:
            if self is not clients[-1]:
                raise grpc.RpcError("not yet")
            return models.CollectionsResponse(collections=[])

    clients = [Starting(":memory:"), QdrantClient(":memory:"), Starting(":memory:")]
    opened = iter(clients)
    monkeypatch.setattr("app.index.server.connect._client", lambda *_, **__: next(opened))
    assert connect(Settings(_env_file=None, qdrant_url="http://in.memory:1")) is clients[-1]  # type: ignore[call-arg]


@pytest.mark.parametrize("status", ["grey", "red"])
def test_maintain_wakes_a_grey_server_and_reports_a_red_one(
    client: QdrantClient, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = open_local(client)
    found = client.get_collection(index.info().collection)
    last = "green" if status == "grey" else "red"
    seen = iter([status if status == "grey" else "yellow", "yellow"])
    changes: list[object] = []

    def get_collection(_: str) -> models.CollectionInfo:
        return found.model_copy(update={"status": models.CollectionStatus(next(seen, last))})

    monkeypatch.setattr(client, "get_collection", get_collection)
    monkeypatch.setattr(client, "update_collection", lambda _, change: changes.append(change))
    monkeypatch.setattr("app.index.server.client._POLL_SECONDS", 0.0)
    if status == "red":
        with pytest.raises(OceanoError, match="could not build the graph") as caught:
            index.maintain(wait=True)
        assert caught.value.code == "index_unavailable"
    else:
        index.maintain(wait=True)
        assert len(changes) == 1


def test_a_collection_that_oceano_did_not_create_is_refused(client: QdrantClient) -> None:
    vectors = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection(collection_name("faces", PACK), vectors_config=vectors)
    with pytest.raises(OceanoError, match="was not created by Oceano") as caught:
        open_local(client)
    assert caught.value.code == "invalid_setting"


def test_a_setting_that_has_no_effect_is_logged(client: QdrantClient, caplog: pytest.LogCaptureFixture) -> None:
    open_local(client)
    changed = Settings(_env_file=None, qdrant_url="http://in.memory:1", replication_factor=2)  # type: ignore[call-arg]
    open_server(changed, PACK, client=client)
    assert "REPLICATION_FACTOR=2 has no effect: the index was created with 1" in caplog.text
