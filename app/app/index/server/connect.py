"""The index on a Qdrant server: the connection, the collection, and the alias that names it."""

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
from app.index.capacity import kilobytes
from app.index.errors import model_mismatch
from app.index.server.client import ServerIndex
from app.index.server.retry import TRY_SECONDS, is_missing, retry_server, text_of

_log = logging.getLogger(__name__)

_HTTP_PORT: Final = 6333
_OLDEST_VERSION: Final = (1, 17)
# With fewer faces in a segment, or fewer that match a filter, a search scans them instead of using the graph.
_FULL_SCAN_POINTS: Final = 50_000
# Detects a silently broken connection within one attempt.
_KEEPALIVE: Final = {
    "grpc.keepalive_time_ms": 5000,
    "grpc.keepalive_timeout_ms": 3000,
    "grpc.http2.ping_timeout_ms": 3000,  # its default is a minute
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
    """Open the index that the settings name on a Qdrant server, for embeddings of a model.

    Args:
        settings: address, key and alias; for a new collection also HNSW parameters, shards and replicas.
        pack: the model.
        create: create the index if there is none.
        client: a connected client to use instead of connecting to QDRANT_URL.
        streams: see `ServerIndex`.

    Raises:
        OceanoError: see `app.index.open_index`.
    """
    client = client or connect(settings)
    return _open_index(client, settings, pack, partial(_choose, client, settings, pack, create=create), streams)


def open_server_collection(settings: Settings, pack: ModelPack) -> ServerIndex:
    """Open a model's collection, whichever collection the alias names; create it if there is none.

    Args:
        settings: as for `open_server`.
        pack: the model.

    Raises:
        OceanoError: see `app.index.open_model_collection`.
    """
    client = connect(settings)

    def choose() -> str:
        name = collection_name(settings.qdrant_collection, pack)
        make_collection(client, settings, pack, name)
        return name

    return _open_index(client, settings, pack, choose)


def _open_index(
    client: QdrantClient, settings: Settings, pack: ModelPack, choose: Callable[[], str], streams: int = 4
) -> ServerIndex:
    """Return the index on the collection that `choose` returns; close the client if it raises."""
    try:
        size = pack.embedding_size
        return ServerIndex(client, collection=choose(), embedding_size=size, hnsw_ef=settings.hnsw_ef, streams=streams)
    except BaseException:
        client.close()
        raise


def activate_server(settings: Settings, pack: ModelPack) -> None:
    """Point the alias to a model's collection.

    Raises:
        OceanoError: `index_unavailable`, `invalid_setting`.
    """
    client = connect(settings)
    try:
        point_alias(client, settings.qdrant_collection, collection_name(settings.qdrant_collection, pack))
    finally:
        client.close()


def connect(settings: Settings) -> QdrantClient:
    """Connect to QDRANT_URL: with gRPC, or with HTTP if gRPC does not work.

    Raises:
        OceanoError: `index_unavailable`; `invalid_setting` if the address, the key or the certificates are wrong, or
            the server is older than 1.17.
    """
    client = _connected_client(settings)
    try:
        _require_version(retry_server(client.info).version)
    except BaseException:
        client.close()
        raise
    return client


def _require_version(version: str) -> None:
    """Refuse servers that ignore `update_mode`: on them, ingesting a picture again would remove its names."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST_VERSION:
        oldest = ".".join(map(str, _OLDEST_VERSION))
        message = f"QDRANT_URL: the server is Qdrant {version}; Oceano needs {oldest} or newer"
        raise OceanoError("invalid_setting", message, details={"settings": ["QDRANT_URL"]})


def _connected_client(settings: Settings) -> QdrantClient:
    client = _client(settings, grpc=True)
    try:
        client.get_collections()
    except grpc.RpcError as failure:
        client.close()
        http = _client(settings, grpc=False)
        try:
            retry_server(partial(_require_qdrant, http))
        except OceanoError as failed:
            http.close()
            message = f"{settings.qdrant_url}: {failed.message}"
            raise OceanoError(failed.code, message, details=failed.details, retry_after=failed.retry_after) from failure
        client = _client(settings, grpc=True)
        try:
            client.get_collections()  # gRPC works by now if the server was starting
        except grpc.RpcError:
            client.close()
            _log.warning("the Qdrant server responds over HTTP only, which is slower: %s", text_of(failure))
            return http
        http.close()
    return client


def _require_qdrant(client: QdrantClient) -> None:
    try:
        client.get_collections()
    except (UnexpectedResponse, ValueError, AssertionError) as failure:  # the last two: no JSON, or not Qdrant's
        if isinstance(failure, UnexpectedResponse) and failure.status_code not in (404, 405):
            raise
        message = "the server at this address is not a Qdrant server"
        raise OceanoError("invalid_setting", message, details={"settings": ["QDRANT_URL"]}) from failure


def _client(settings: Settings, *, grpc: bool) -> QdrantClient:
    url = urlsplit(settings.qdrant_url)
    port = url.port or _HTTP_PORT
    options: dict[str, Any] = dict(_KEEPALIVE)
    verify: ssl.SSLContext | bool = True
    if settings.qdrant_ca_file:
        options["root_certificates"], verify = _read_certificates(settings.qdrant_ca_file)
    elif url.scheme == "http":
        verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # unused; loading all authorities would take 0.1 s
    with warnings.catch_warnings():  # about a key without TLS, which is common in a network of containers
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


def _read_certificates(file: str) -> tuple[bytes, ssl.SSLContext]:
    """Read QDRANT_CA_FILE for gRPC and for HTTP."""
    try:
        return Path(file).read_bytes(), ssl.create_default_context(cafile=file)
    except OSError as failure:  # includes ssl.SSLError
        message = f"QDRANT_CA_FILE: {file} cannot be read as certificates: {failure.strerror or failure}"
        raise OceanoError("invalid_setting", message, details={"settings": ["QDRANT_CA_FILE"]}) from failure


def _choose(client: QdrantClient, settings: Settings, pack: ModelPack, *, create: bool) -> str:
    """Return the alias's collection; create this model's if there is none, or if that of another model is empty."""
    alias = settings.qdrant_collection
    target = collection_of(client, alias)
    if target is None and not create:
        raise OceanoError("not_found", f"There is no index {alias!r} on the Qdrant server yet; ingest pictures first.")
    if target is not None:
        found = _collection_info(client, target)
        model = _model_of(found, target)
        if model["digest"] in (pack.digest, pack.short_digest):
            _complete(client, target, found, pack)
            _warn_of_ignored_settings(found, settings)
            return target
        if points := retry_server(lambda: client.count(target, exact=True)).count:
            raise model_mismatch(alias, model, _size_of(found) or 0, pack, points)
    wanted = collection_name(alias, pack)
    make_collection(client, settings, pack, wanted)
    point_alias(client, alias, wanted)
    return wanted


def _collection_info(client: QdrantClient, collection: str) -> models.CollectionInfo:
    return retry_server(lambda: client.get_collection(collection))


def _warn_of_ignored_settings(found: models.CollectionInfo, settings: Settings) -> None:
    """Log settings that apply only to new collections and differ from those of this one."""
    params = found.config.params
    for name, actual, configured in (
        ("SHARD_NUMBER", params.shard_number, settings.shard_number),
        ("REPLICATION_FACTOR", params.replication_factor, settings.replication_factor),
        ("WRITE_CONSISTENCY_FACTOR", params.write_consistency_factor, settings.write_consistency_factor),
    ):
        if (actual or 1) != configured:
            _log.warning(
                "%s=%s has no effect: the index was created with %s; see docs/cluster.md",
                name,
                configured,
                actual or 1,
            )


def collection_of(client: QdrantClient, alias: str) -> str | None:
    """Return the name of an alias's collection; None if there is no such alias."""
    found = retry_server(client.get_aliases).aliases
    return next((str(entry.collection_name) for entry in found if entry.alias_name == alias), None)


def point_alias(client: QdrantClient, alias: str, collection: str) -> None:
    """Point an alias to a collection, atomically: the alias always names a collection."""
    operations: list[Any] = []
    if collection_of(client, alias) is not None:
        operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
    create = models.CreateAlias(collection_name=collection, alias_name=alias)
    operations.append(models.CreateAliasOperation(create_alias=create))
    _ensure(
        lambda: client.update_collection_aliases(change_aliases_operations=operations),
        lambda: collection_of(client, alias) == collection,
    )


def make_collection(client: QdrantClient, settings: Settings, pack: ModelPack, name: str) -> None:
    """Create a collection for a model's embeddings, unless it exists.

    Vectors and payloads are on disk, int8 copies of the vectors in memory.

    Args:
        client: a connected client.
        settings: HNSW parameters, shards and replicas.
        pack: the model.
        name: the full name of the collection.

    Raises:
        OceanoError: `invalid_setting` if a collection of this name has other vectors, `index_unavailable`,
            `disk_full`.
    """
    _ensure(
        lambda: client.create_collection(name, **_parameters(settings, pack)), lambda: client.collection_exists(name)
    )
    _complete(client, name, _collection_info(client, name), pack)


def _parameters(settings: Settings, pack: ModelPack) -> dict[str, Any]:
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
    """Create missing payload indexes: a process may have been killed after it created the collection."""
    _require_vectors(found, collection, pack)
    for key in _INDEXES.keys() - found.payload_schema.keys():
        retry_server(partial(client.create_payload_index, collection, key, _INDEXES[key], wait=True))


def _require_vectors(found: models.CollectionInfo, collection: str, pack: ModelPack) -> None:
    vectors = found.config.params.vectors
    size, distance = getattr(vectors, "size", "unknown"), getattr(vectors, "distance", None)
    if (size, distance) != (pack.embedding_size, models.Distance.COSINE):
        message = (
            f"The collection {collection} on the Qdrant server was not created by Oceano for this model: the size of "
            f"its vectors is {size}, the model's {pack.embedding_size}, and the distance must be cosine. Set another "
            "QDRANT_COLLECTION"
        )
        raise OceanoError("invalid_setting", message, details={"settings": ["QDRANT_COLLECTION"]})


def _size_of(found: models.CollectionInfo) -> int | None:
    """Return the embedding size of a collection; None if Oceano did not create it."""
    vectors = found.config.params.vectors
    return vectors.size if isinstance(vectors, models.VectorParams) else None


def _model_of(found: models.CollectionInfo, collection: str) -> dict[str, str]:
    """Return name and digest of a collection's model, from the metadata or else from the collection's name."""
    metadata = found.config.metadata or {}
    *_, name, digest = ("unknown", "unknown", *collection.split("__"))
    return {"model": str(metadata.get("model", name)), "digest": str(metadata.get("digest", digest))}


def _ensure(work: Callable[[], Any], is_done: Callable[[], bool]) -> None:
    """Run `work` unless it is done; another process, or an attempt whose response was lost, may have done it."""

    def attempt() -> None:
        if is_done():
            return
        try:
            work()
        except Exception as failure:
            if is_missing(failure) or not is_done():
                raise

    retry_server(attempt)
