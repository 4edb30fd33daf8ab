"""Real Qdrant servers: kills, keys, TLS, and a cluster that loses a node. Needs QDRANT_TEST_BINARY."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter
from app.index import open_index
from tests.index.conftest import PACK, everything, ids_of, points, unit_vectors, wait_until
from tests.support.qdrant_nodes import BINARY, Node
from tests.support.running import free_port

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not BINARY, reason="QDRANT_TEST_BINARY names no Qdrant server program to start and kill"),
]


def settings_of(url: str, **changed: object) -> Settings:
    return Settings(_env_file=None, qdrant_url=url, **changed)  # type: ignore[arg-type, call-arg]


class Writing(threading.Thread):
    """A thread that inserts faces in batches and records which were acknowledged."""

    def __init__(self, index: FaceIndex, seed: int, batches: int = 60) -> None:
        super().__init__()
        self._index = index
        self._faces = points(batches * 20, seed=seed)
        self.acknowledged: list[str] = []
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            for first in range(0, len(self._faces), 20):
                batch = self._faces[first : first + 20]
                self._index.upsert(batch)
                self.acknowledged += ids_of(batch)
                time.sleep(0.02)
        except BaseException as failure:
            self.failure = failure
            raise

    def finished(self) -> set[str]:
        self.join(120)
        assert self.failure is None
        assert len(self.acknowledged) == len(self._faces)
        return set(self.acknowledged)


def test_a_killed_server_loses_nothing_and_writes_continue_after_its_restart(tmp_path: Path) -> None:
    picked = random.Random(5)
    with Node(tmp_path / "node") as node, closing(open_index(settings_of(node.url), PACK)) as index:
        writing = Writing(index, seed=1)
        for _ in range(3):
            time.sleep(picked.uniform(0.2, 0.8))
            node.kill()
            before = set(writing.acknowledged)
            node.start()
            assert before <= everything(index)
        assert writing.finished() == everything(index)


def test_an_acknowledged_name_survives_a_kill(tmp_path: Path) -> None:
    with Node(tmp_path / "node") as node, closing(open_index(settings_of(node.url), PACK)) as index:
        faces = points(50, seed=2)
        index.upsert(faces)
        index.set_payload(ids_of(faces[:10]), person="Ana")
        index.delete(ids_of(faces[40:]))
        node.kill()
        node.start()
        assert index.facet("person") == {"Ana": 10}
        assert index.count() == 40


def test_the_key_is_required_over_grpc_and_over_http(tmp_path: Path) -> None:
    with Node(tmp_path / "node", service__api_key="a key of sixteen or more") as node:
        for grpc_port in (node.grpc, free_port()):
            right = settings_of(node.url, qdrant_api_key="a key of sixteen or more", qdrant_grpc_port=grpc_port)
            with closing(open_index(right, PACK)) as index:
                assert index.count() == 0
            for wrong in ("", "another key, long enough"):
                with pytest.raises(OceanoError, match="QDRANT_API_KEY") as caught:
                    open_index(settings_of(node.url, qdrant_api_key=wrong, qdrant_grpc_port=grpc_port), PACK)
                assert caught.value.code == "invalid_setting"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for localhost; its key is in the same folder."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run([*words.split(), *files], check=True, capture_output=True)
    return tmp_path / "cert.pem"


def test_tls_works_and_an_unknown_certificate_is_rejected(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = {"service__enable_tls": "true", "tls__cert": certificate, "tls__key": certificate.with_name("key.pem")}
    with Node(tmp_path / "node", **tls) as node:
        settings = settings_of(f"https://localhost:{node.http}")
        monkeypatch.setattr("app.index.server.retry.RETRY_SECONDS", 0.5)
        with pytest.raises(OceanoError, match="certificate") as caught:
            open_index(settings, PACK)
        assert caught.value.code == "index_unavailable"
        trusting = settings.model_copy(update={"qdrant_ca_file": str(certificate)})
        for over_http in (False, True):
            changed = trusting.model_copy(update={"qdrant_grpc_port": free_port()} if over_http else {})
            with closing(open_index(changed, PACK)) as index:
                index.upsert(points(3, seed=3))
                assert index.count() == 3


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """A cluster of three nodes, each of which may fail."""
    with ExitStack() as stack:
        first = stack.enter_context(Node(tmp_path / "1", cluster=True))
        rest = [stack.enter_context(Node(tmp_path / str(number), first=first)) for number in (2, 3)]
        yield [first, *rest]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_killed_node_loses_nothing_and_catches_up_after_its_restart(nodes: list[Node], lost: int) -> None:
    node = nodes[1] if lost == 0 else nodes[0]
    settings = settings_of(node.url, shard_number=6, replication_factor=2)
    with closing(open_index(settings, PACK)) as index:
        writing = Writing(index, seed=4)
        time.sleep(0.5)
        nodes[lost].kill()
        before = set(writing.acknowledged)
        assert before <= everything(index)
        written = writing.finished()
        assert written == everything(index)
        (face,) = points(1, seed=4)
        assert index.search(face.embedding, limit=1)[0].face_id == face.face_id
        assert index.count() == index.count(FaceFilter(min_det_score=0.1)) == len(written)
        index.set_payload([face.face_id], person="Ana")
        assert index.info().copies_missing > 0
        nodes[lost].start()
        restarted = settings.model_copy(update={"qdrant_url": nodes[lost].url})
        with closing(open_index(restarted, PACK)) as back:
            deadline = time.monotonic() + 60
            while (everything(back), back.count(FaceFilter(person="Ana"))) != (written, 1):
                assert time.monotonic() < deadline
                time.sleep(0.5)
            wait_until(lambda: index.info().copies_missing == 0, 60)
            nodes[2 if lost != 2 else 1].kill()  # its faces are on the restarted node
            assert everything(index) == written
            assert len(back.search_batch(list(unit_vectors(20, seed=5)), limit=5)) == 20
