"""A Qdrant server that refuses, resets, is slow, busy, full or gone; and the way to it."""

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
from app.index.server.retry import retry_server, told
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
    """Over HTTP: nothing listens on the port where gRPC would be."""
    opened = open_index(settings_of(proxy.port), PACK)
    yield opened
    opened.close()


PASSING = ["refuse", "lose", "half", "slow", "busy", "down"]


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_not_noticed(
    index: FaceIndex, proxy: Proxy, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "slow":  # each takes a whole try
        for limit in ("app.index.server.retry.RETRY_SECONDS", "app.index.server.client._WRITE_SECONDS"):
            monkeypatch.setattr(limit, 3.0)
    faces = points(600, seed=PASSING.index(fault))
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


def test_a_write_whose_answer_was_lost_changes_nothing_when_it_is_done_again(index: FaceIndex, proxy: Proxy) -> None:
    (face,) = points(1, seed=30)
    index.upsert([face])
    index.set_payload([face.face_id], person="Ana")
    proxy.faults.append("lose")
    index.upsert([face])
    assert index.retrieve([face.face_id])[0].payload.person == "Ana"


@pytest.mark.parametrize("fault", ["refuse", "half", "slow", "busy", "down"])
def test_a_server_that_stays_away_is_unavailable_and_says_when_to_come_again(
    index: FaceIndex, proxy: Proxy, fault: str
) -> None:
    proxy.always = fault
    began = time.monotonic()
    with pytest.raises(OceanoError) as caught:
        index.search(unit_vectors(1, seed=1)[0], limit=1)
    assert caught.value.code == "index_unavailable"
    assert caught.value.retry_after
    assert 0.5 < time.monotonic() - began < 8
    proxy.always = ""
    assert index.search(unit_vectors(1, seed=1)[0], limit=1) is not None


def test_a_full_server_is_a_full_disk_at_once_and_not_asked_again(index: FaceIndex, proxy: Proxy) -> None:
    proxy.always = "full"
    before = proxy.seen
    with pytest.raises(OceanoError) as caught:
        index.upsert(points(1, seed=31))
    assert caught.value.code == "disk_full"
    assert proxy.seen == before + 1


def test_a_server_that_takes_no_writes_says_so_and_goes_on_answering(index: FaceIndex, proxy: Proxy) -> None:
    proxy.faults.append("read-only")
    with pytest.raises(OceanoError, match="Write access is forbidden") as caught:
        index.upsert(points(1, seed=33))
    assert caught.value.code == "invalid_setting"
    assert index.count() >= 0


@pytest.mark.parametrize("key", ["", "another key, long enough"])
def test_a_key_that_is_not_accepted_is_named(proxy: Proxy, key: str) -> None:
    with pytest.raises(OceanoError, match="QDRANT_API_KEY") as caught:
        open_index(settings_of(proxy.port, key=key), PACK)
    assert caught.value.code == "invalid_setting"
    assert key == "" or key not in caught.value.message


def test_a_server_that_is_not_there_is_unavailable(proxy: Proxy) -> None:
    proxy.always = "refuse"
    with pytest.raises(OceanoError) as caught:
        open_index(settings_of(proxy.port), PACK)
    assert caught.value.code == "index_unavailable"


def test_a_lost_answer_while_the_index_is_made_leaves_a_whole_one(proxy: Proxy) -> None:
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
    ("failure", "code", "tries"),
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
def test_what_may_pass_is_tried_again_and_everything_is_said_in_our_words(
    failure: Exception, code: str, tries: int
) -> None:
    done = []

    def fail() -> None:
        done.append(1)
        raise failure

    with pytest.raises(OceanoError) as caught:
        retry_server(fail, seconds=0.2)
    assert caught.value.code == code
    assert min(len(done), 2) == tries


def test_a_busy_server_says_itself_when_to_come_again() -> None:
    assert told(ResourceExhaustedResponse("too much", 7)).retry_after == 7


def test_an_error_of_ours_stays_what_it_is() -> None:
    ours = OceanoError("invalid_request", "no")

    def fail() -> None:
        raise ours

    with pytest.raises(OceanoError) as caught:
        retry_server(fail)
    assert caught.value is ours
