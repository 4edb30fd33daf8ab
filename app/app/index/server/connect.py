"""Opens the index on a Qdrant server: the way there, the collection, and the alias that stands for it."""

from __future__ import annotations

import logging
import re
import ssl
import uuid
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import grpc
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import ModelPack, collection_name
from app.index.embedded.alias import mismatch
from app.index.embedded.options import kilobytes
from app.index.server.client import ServerIndex
from app.index.server.retry import TRY_SECONDS, is_missing, retry_server, text_of

_log = logging.getLogger(__name__)

_HTTP_PORT: Final = 6333
_OLDEST: Final = (1, 17)
# Below so many faces in a segment, all of it or what a filter admits is scanned.
_FULL_SCAN_POINTS: Final = 50_000
# A node whose connection is dead without a word is noticed within a try.
_KEEPALIVE: Final = {
    "grpc.keepalive_time_ms": 5000,
    "grpc.keepalive_timeout_ms": 3000,
    "grpc.http2.ping_timeout_ms": 3000,  # any other ping goes unanswered; alone, it waits a minute
}
_KEYWORD: Final = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, on_disk=True)
_TIME: Final = models.DatetimeIndexParams(type=models.DatetimeIndexType.DATETIME, on_disk=True)
_NUMBER: Final = models.FloatIndexParams(type=models.FloatIndexType.FLOAT, on_disk=True)
_INDEXES: Final[dict[str, Any]] = {
    "image_id": _KEYWORD,
    "folder": _KEYWORD,
    "person": models.PayloadSchemaType.KEYWORD,
    "flaws": models.PayloadSchemaType.KEYWORD,
    "taken_at": _TIME,
    "ingested_at": _TIME,
    "det_score": _NUMBER,
    "quality": _NUMBER,
}


def open_server(
    settings: Settings, pack: ModelPack, *, create: bool = True, client: QdrantClient | None = None, streams: int = 4
) -> ServerIndex:
    """The index of these settings for this model on the server at QDRANT_URL, or behind `client`.

    Raises OceanoError as `app.index.open_index` does.
    """
    client = client or connect(settings)
    return _taken_over(client, settings, pack, partial(_choose, client, settings, pack, create=create), streams)


def open_server_beside(settings: Settings, pack: ModelPack) -> ServerIndex:
    """This model's collection, whatever the alias stands for; made if it is not there."""
    client = connect(settings)

    def own() -> str:
        name = collection_name(settings.qdrant_collection, pack)
        make_collection(client, settings, pack, name)
        return name

    return _taken_over(client, settings, pack, own)


def _taken_over(
    client: QdrantClient, settings: Settings, pack: ModelPack, choose: Callable[[], str], streams: int = 4
) -> ServerIndex:
    """The index on the collection that `choose` gives; if there is none, the client is closed."""
    try:
        size = pack.embedding_size
        return ServerIndex(client, collection=choose(), embedding_size=size, hnsw_ef=settings.hnsw_ef, streams=streams)
    except BaseException:
        client.close()
        raise


def switch_server(settings: Settings, pack: ModelPack) -> None:
    """From here on the alias stands for this model's collection."""
    client = connect(settings)
    try:
        point_alias(client, settings.qdrant_collection, collection_name(settings.qdrant_collection, pack))
    finally:
        client.close()


def connect(settings: Settings) -> QdrantClient:
    """Over gRPC, or over HTTP where gRPC does not come through.

    Raises OceanoError `index_unavailable`, `invalid_setting`.
    """
    client = _reached(settings)
    try:
        _require_version(retry_server(client.info).version)
    except BaseException:
        client.close()
        raise
    return client


def _require_version(version: str) -> None:
    """An older server would take `update_mode` for nothing, and lose names whenever a picture is ingested again."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        message = f"QDRANT_URL: the server is Qdrant {version}; Oceano needs {oldest} or newer"
        raise OceanoError("invalid_setting", message, details={"settings": ["QDRANT_URL"]})


def _reached(settings: Settings) -> QdrantClient:
    client = _client(settings, grpc=True)
    try:
        client.get_collections()
    except grpc.RpcError as failure:
        client.close()
        http = _client(settings, grpc=False)
        try:
            retry_server(partial(_greet, http))
        except OceanoError as failed:
            http.close()
            message = f"{settings.qdrant_url}: {failed.message}"
            raise OceanoError(failed.code, message, details=failed.details, retry_after=failed.retry_after) from failure
        client = _client(settings, grpc=True)
        try:
            client.get_collections()  # a server that was just starting takes it by now
        except grpc.RpcError:
            client.close()
            _log.warning("the Qdrant server answers over HTTP only, which is slower: %s", text_of(failure))
            return http
        http.close()
    return client


def _greet(client: QdrantClient) -> None:
    try:
        client.get_collections()
    except (UnexpectedResponse, ValueError, AssertionError) as failure:  # the last two: no JSON, or none of Qdrant's
        if isinstance(failure, UnexpectedResponse) and failure.status_code not in (404, 405):
            raise
        message = "what answers there is not a Qdrant server"
        raise OceanoError("invalid_setting", message, details={"settings": ["QDRANT_URL"]}) from failure


def _client(settings: Settings, *, grpc: bool) -> QdrantClient:
    url = urlsplit(settings.qdrant_url)
    port = url.port or _HTTP_PORT
    options: dict[str, Any] = dict(_KEEPALIVE)
    verify: ssl.SSLContext | bool = True
    if settings.qdrant_ca_file:
        options["root_certificates"], verify = _authority(settings.qdrant_ca_file)
    elif url.scheme == "http":
        verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; all authorities would take 0.1 s to load
    with warnings.catch_warnings():  # of a key without TLS, which within a network of containers is as it should be
        warnings.simplefilter("ignore")
        return QdrantClient(
            url=settings.qdrant_url,
            port=port,
            grpc_port=settings.qdrant_grpc_port or port + 1,
            prefer_grpc=grpc,
            https=url.scheme == "https",
            api_key=settings.qdrant_api_key or None,
            timeout=TRY_SECONDS,
            check_compatibility=False,
            grpc_options=options,
            verify=verify,
        )


def _authority(file: str) -> tuple[bytes, ssl.SSLContext]:
    """QDRANT_CA_FILE, for gRPC and for HTTP."""
    try:
        return Path(file).read_bytes(), ssl.create_default_context(cafile=file)
    except OSError as failure:  # ssl.SSLError is one
        message = f"QDRANT_CA_FILE: {file} cannot be read as certificates: {failure.strerror or failure}"
        raise OceanoError("invalid_setting", message, details={"settings": ["QDRANT_CA_FILE"]}) from failure


def _choose(client: QdrantClient, settings: Settings, pack: ModelPack, *, create: bool) -> str:
    """The collection behind the alias; for a new index, and for one that held nothing, this model's."""
    alias = settings.qdrant_collection
    target = collection_of(client, alias)
    if target is None and not create:
        raise OceanoError("not_found", f"There is no index {alias!r} on the Qdrant server yet; ingest pictures first.")
    if target is not None:
        found = _look(client, target)
        model = _model_of(found, target)
        if model["digest"] in (pack.digest, pack.short_digest):
            _complete(client, target, found, pack)
            _say_other_shape(found, settings)
            return target
        if points := retry_server(lambda: client.count(target, exact=True)).count:
            raise mismatch(alias, model, _size_of(found) or 0, pack, points)
    wanted = collection_name(alias, pack)
    make_collection(client, settings, pack, wanted)
    point_alias(client, alias, wanted)
    return wanted


def _look(client: QdrantClient, collection: str) -> models.CollectionInfo:
    return retry_server(lambda: client.get_collection(collection))


def _say_other_shape(found: models.CollectionInfo, settings: Settings) -> None:
    """What counts when a collection is made may have been changed since, to no effect."""
    params = found.config.params
    for name, there, wanted in (
        ("SHARD_NUMBER", params.shard_number, settings.shard_number),
        ("REPLICATION_FACTOR", params.replication_factor, settings.replication_factor),
        ("WRITE_CONSISTENCY_FACTOR", params.write_consistency_factor, settings.write_consistency_factor),
    ):
        if (there or 1) != wanted:
            _log.warning(
                "%s=%s has no effect: the index was made with %s; see INSTALL.md, A Qdrant server, a cluster",
                name,
                wanted,
                there or 1,
            )


def collection_of(client: QdrantClient, alias: str) -> str | None:
    """Which collection an alias stands for."""
    found = retry_server(client.get_aliases).aliases
    return next((str(one.collection_name) for one in found if one.alias_name == alias), None)


def point_alias(client: QdrantClient, alias: str, collection: str) -> None:
    """From here on the alias stands for `collection`; there is no moment in which it stands for none."""
    operations: list[Any] = []
    if collection_of(client, alias) is not None:
        operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
    create = models.CreateAlias(collection_name=collection, alias_name=alias)
    operations.append(models.CreateAliasOperation(create_alias=create))
    _once(
        lambda: client.update_collection_aliases(change_aliases_operations=operations),
        lambda: collection_of(client, alias) == collection,
    )


def make_collection(client: QdrantClient, settings: Settings, pack: ModelPack, name: str) -> None:
    """A collection for a model's embeddings, if it is not there: originals on disk, int8 copies in memory."""
    _once(lambda: client.create_collection(name, **_shape(settings, pack)), lambda: client.collection_exists(name))
    _complete(client, name, _look(client, name), pack)


def _shape(settings: Settings, pack: ModelPack) -> dict[str, Any]:
    scanned = kilobytes(_FULL_SCAN_POINTS, pack.embedding_size)
    return {
        "vectors_config": models.VectorParams(size=pack.embedding_size, distance=models.Distance.COSINE, on_disk=True),
        "on_disk_payload": True,
        "hnsw_config": models.HnswConfigDiff(
            m=settings.hnsw_m, ef_construct=settings.hnsw_ef_construct, full_scan_threshold=scanned
        ),
        "quantization_config": models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        ),
        "shard_number": settings.shard_number,
        "replication_factor": settings.replication_factor,
        "write_consistency_factor": settings.write_consistency_factor,
        "metadata": {
            "model": pack.name,
            "digest": pack.digest,
            "id": uuid.uuid4().hex,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def _complete(client: QdrantClient, collection: str, found: models.CollectionInfo, pack: ModelPack) -> None:
    """Payload indexes that are missing: whoever made the collection may have been killed between them."""
    _require_shape(found, collection, pack)
    for key in _INDEXES.keys() - found.payload_schema.keys():
        retry_server(partial(client.create_payload_index, collection, key, _INDEXES[key], wait=True))


def _require_shape(found: models.CollectionInfo, collection: str, pack: ModelPack) -> None:
    vectors = found.config.params.vectors
    size, distance = getattr(vectors, "size", "unknown"), getattr(vectors, "distance", None)
    if (size, distance) != (pack.embedding_size, models.Distance.COSINE):
        message = (
            f"The collection {collection} on the Qdrant server was not made by Oceano for this model: the size of its "
            f"vectors is {size}, the model's {pack.embedding_size}, and the distance must be cosine; set another "
            "QDRANT_COLLECTION"
        )
        raise OceanoError("invalid_setting", message, details={"settings": ["QDRANT_COLLECTION"]})


def _size_of(found: models.CollectionInfo) -> int | None:
    """The embedding size of a collection; None where it is none of ours."""
    vectors = found.config.params.vectors
    return vectors.size if isinstance(vectors, models.VectorParams) else None


def _model_of(found: models.CollectionInfo, collection: str) -> dict[str, str]:
    """Name and digest of the model that made a collection; without metadata, as far as its name tells."""
    said = found.config.metadata or {}
    *_, name, digest = ("unknown", "unknown", *collection.split("__"))
    return {"model": str(said.get("model", name)), "digest": str(said.get("digest", digest))}


def _once(work: Callable[[], Any], is_done: Callable[[], bool]) -> None:
    """Do what fails when it is done already, by another process or by a try whose answer was lost."""

    def attempt() -> None:
        if is_done():
            return
        try:
            work()
        except Exception as failure:
            if is_missing(failure) or not is_done():
                raise

    retry_server(attempt)
