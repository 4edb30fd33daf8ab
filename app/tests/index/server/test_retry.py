"""Errors of a Qdrant server: refused and lost connections, slow, overloaded, full or stopped servers, wrong keys."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import pytest
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.index import open_index
from app.index.server.retry import retry_server, to_error
from tests.index.conftest import PACK, everything, ids_of, points, unit_vectors
from tests.support.fake_server import Proxy, app_of, serving

KEY = "a key of sixteen or more"


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with serving(app_of(QdrantClient(":memory:"), KEY)) as port:
        yield port


@pytest.fixture
def proxy(server: int) -> Iterator[Proxy]:
    opened = Proxy(server)
    opened.slow_seconds = 1.3
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.index.server.retry.RETRY_SECONDS", 0.6)
    monkeypatch.setattr("app.index.server.client._WRITE_SECONDS", 1.0)
    monkeypatch.setattr("app.index.server.connect.TRY_SECONDS", 1)


def settings_of(port: int, name: str = "faults", key: str = KEY) -> Settings:
    url = f"http://127.0.0.1:{port}"
    return Settings(_env_file=None, qdrant_url=url, qdrant_api_key=key, qdrant_collection=name)  # type: ignore[call-arg]


@pytest.fixture
def index(proxy: Proxy) -> Iterator[FaceIndex]:
    """An index over HTTP: nothing listens on the gRPC port."""
    opened = open_index(settings_of(proxy.port), PACK)
    yield opened
    opened.close()


TEMPORARY = ["refuse", "lose", "half", "slow", "busy", "down"]


@pytest.mark.parametrize("fault", TEMPORARY)
def test_a_temporary_fault_is_retried(
    index: FaceIndex, proxy: Proxy, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("app.index.server.retry.RETRY_SECONDS", "app.index.server.client._WRITE_SECONDS"):
        monkeypatch.setattr(limit, 3.0)  # a slow response takes a whole attempt, and a busy machine some time
    faces = points(600, seed=TEMPORARY.index(fault))
    proxy.faults.extend([fault, fault])
    index.upsert(faces)
    index.flush()
    assert set(ids_of(faces)) <= everything(index)
    proxy.faults.append(fault)
    assert index.search(faces[5].embedding, limit=1)[0].face_id == faces[5].face_id
    proxy.faults.append(fault)
    index.set_payload(ids_of(faces[:2]), person="Ana")
    proxy.faults.append(fault)
    index.delete(ids_of(faces[2:]))
    assert set(ids_of(faces)) & everything(index) == set(ids_of(faces[:2]))
    assert not proxy.faults


def test_a_write_repeated_after_a_lost_response_changes_nothing(index: FaceIndex, proxy: Proxy) -> None:
    (face,) = points(1, seed=30)
    index.upsert([face])
    index.set_payload([face.face_id], person="Ana")
    proxy.faults.append("lose")
    index.upsert([face])
    assert index.retrieve([face.face_id])[0].payload.person == "Ana"


@pytest.mark.parametrize("fault", ["refuse", "half", "slow", "busy", "down"])
def test_a_server_that_stays_down_is_unavailable_with_retry_after(index: FaceIndex, proxy: Proxy, fault: str) -> None:
    proxy.always = fault
    began = time.monotonic()
    with pytest.raises(OceanoError) as caught:
        index.search(unit_vectors(1, seed=1)[0], limit=1)
    assert caught.value.code == "index_unavailable"
    assert caught.value.retry_after
    assert 0.5 < time.monotonic() - began < 8
    proxy.always = ""
    assert index.search(unit_vectors(1, seed=1)[0], limit=1) is not None


def test_a_full_server_is_disk_full_without_a_retry(index: FaceIndex, proxy: Proxy) -> None:
    proxy.always = "full"
    before = proxy.seen
    with pytest.raises(OceanoError) as caught:
        index.upsert(points(1, seed=31))
    assert caught.value.code == "disk_full"
    assert proxy.seen == before + 1


def test_a_read_only_server_rejects_writes_and_serves_reads(index: FaceIndex, proxy: Proxy) -> None:
    proxy.faults.append("read-only")
    with pytest.raises(OceanoError, match="Write access is forbidden") as caught:
        index.upsert(points(1, seed=33))
    assert caught.value.code == "invalid_setting"
    assert index.count() >= 0


@pytest.mark.parametrize("key", ["", "another key, long enough"])
def test_a_rejected_key_is_named(proxy: Proxy, key: str) -> None:
    with pytest.raises(OceanoError, match="QDRANT_API_KEY") as caught:
        open_index(settings_of(proxy.port, key=key), PACK)
    assert caught.value.code == "invalid_setting"
    assert key == "" or key not in caught.value.message


def test_a_server_that_does_not_exist_is_unavailable(proxy: Proxy) -> None:
    proxy.always = "refuse"
    with pytest.raises(OceanoError) as caught:
        open_index(settings_of(proxy.port), PACK)
    assert caught.value.code == "index_unavailable"


def test_lost_responses_while_the_index_is_created_leave_a_complete_one(proxy: Proxy) -> None:
    proxy.faults.extend(["", "", "", "lose", "", "lose", "lose"])
    opened = open_index(settings_of(proxy.port, "lost"), PACK)
    opened.upsert(points(3, seed=32))
    opened.close()
    again = open_index(settings_of(proxy.port, "lost"), PACK, create=False)
    assert again.count() == 3
    again.close()


class _Grpc(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str = "as it is") -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize(
    ("failure", "code", "attempts"),
    [
        (_Grpc(grpc.StatusCode.UNAVAILABLE), "index_unavailable", 2),
        (_Grpc(grpc.StatusCode.DEADLINE_EXCEEDED), "index_unavailable", 2),
        (_Grpc(grpc.StatusCode.RESOURCE_EXHAUSTED), "index_unavailable", 2),
        (_Grpc(grpc.StatusCode.INTERNAL, "No space left on device"), "disk_full", 1),
        (_Grpc(grpc.StatusCode.UNAUTHENTICATED), "invalid_setting", 1),
        (_Grpc(grpc.StatusCode.INVALID_ARGUMENT), "invalid_setting", 1),
        (_Grpc(grpc.StatusCode.ALREADY_EXISTS), "invalid_setting", 1),
        (ConnectionResetError("reset by peer"), "index_unavailable", 2),
        (ValueError("Collection x not found"), "index_unavailable", 1),
    ],
    ids=lambda value: value._code.name if isinstance(value, _Grpc) else None,
)
def test_temporary_errors_are_retried_and_every_error_is_converted(
    failure: Exception, code: str, attempts: int
) -> None:
    done = []

    def fail() -> None:
        done.append(1)
        raise failure

    with pytest.raises(OceanoError) as caught:
        retry_server(fail, seconds=0.2)
    assert caught.value.code == code
    assert min(len(done), 2) == attempts


def test_an_overloaded_server_sets_retry_after() -> None:
    assert to_error(ResourceExhaustedResponse("too much", 7)).retry_after == 7


def test_an_oceano_error_is_not_converted() -> None:
    error = OceanoError("invalid_request", "no")

    def fail() -> None:
        raise error

    with pytest.raises(OceanoError) as caught:
        retry_server(fail)
    assert caught.value is error
