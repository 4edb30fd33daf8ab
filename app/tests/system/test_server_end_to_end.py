"""The service and an ingest on a real Qdrant server that dies under them and comes back. Needs QDRANT_TEST_BINARY."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import pytest

from app.demo import draw_portrait
from tests.support.balancing import balancer
from tests.support.qdrant_nodes import BINARY, Node
from tests.support.running import environment, ingest, service

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not BINARY, reason="QDRANT_TEST_BINARY names no Qdrant server program to start and kill"),
]
PICTURES = 150


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path / "node") as started:
        yield started


@pytest.fixture
def env(node: Node, demo_models: Path, tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "data", MODEL_NAME=demo_models / "demo", QDRANT_URL=node.url, DET_SIZE="256,256")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(PICTURES):
        cv2.imwrite(str(folder / f"{number:03}.jpg"), draw_portrait(number % 30, number // 30, (200, 200)))
    return folder


def test_an_ingest_waits_for_a_server_that_is_gone_and_ends_with_every_face_once(
    node: Node, env: dict[str, str], pictures: Path
) -> None:
    command = [sys.executable, "-P", "-m", "app.cli", "ingest", str(pictures), "--json"]
    running = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed = 0
    while running.poll() is None and killed < 3:
        time.sleep(1.5)
        node.kill()
        killed += 1
        time.sleep(1.5)
        node.start()
    _, wrong = running.communicate(timeout=120)
    assert running.returncode == 0, wrong
    assert killed >= 2
    with service(env) as client:
        assert client.get("/status").json()["index"]["points"] >= PICTURES - 5
        before = client.get("/status").json()["index"]["points"]
    again = ingest(pictures, env, "--retry")
    assert (again["exit_code"], again["done"], again["failed"]) == (0, 0, 0)
    with service(env) as client:
        assert client.get("/status").json()["index"]["points"] == before


def test_a_service_says_when_to_come_again_and_goes_on_when_its_server_is_back(
    node: Node, env: dict[str, str], pictures: Path
) -> None:
    assert ingest(pictures, env)["exit_code"] == 0
    photo = {"image": ("query.png", cv2.imencode(".png", draw_portrait(3, 101, (200, 200)))[1].tobytes())}
    with service(env) as client:
        assert client.post("/search", files=photo).json()["faces"][0]["matches"]
        node.kill()
        slowest_health = 0.0
        answer = None

        def search() -> None:
            nonlocal answer
            answer = client.post("/search", files=photo)

        searching = threading.Thread(target=search)
        searching.start()
        while searching.is_alive():
            began = time.monotonic()
            client.get("/health")
            slowest_health = max(slowest_health, time.monotonic() - began)
            time.sleep(0.1)
        assert answer is not None
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "index_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert slowest_health < 5
        assert client.get("/health").status_code == 503
        node.start()
        until = time.monotonic() + 30
        while client.get("/health").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.2)
        assert client.post("/search", files=photo).json()["faces"][0]["matches"]


def test_a_server_that_answers_nothing_holds_up_nobody_for_good(
    node: Node, env: dict[str, str], pictures: Path
) -> None:
    assert ingest(pictures, env, "--limit", "20")["exit_code"] == 0
    photo = {"image": ("query.png", cv2.imencode(".png", draw_portrait(3, 101, (200, 200)))[1].tobytes())}
    with service(env) as client:
        node.pause()
        began = time.monotonic()
        answer = client.post("/search", files=photo)
        assert answer.status_code in (503, 504)
        assert time.monotonic() - began < 32
        node.resume()
        assert client.post("/search", files=photo).status_code == 200


def test_two_services_behind_a_balancer_on_three_nodes_go_on_whatever_one_of_them_is_lost(
    demo_models: Path, pictures: Path, tmp_path: Path
) -> None:
    """What docker-compose.cluster.yml puts together, without containers."""
    with ExitStack() as stack:
        first = stack.enter_context(Node(tmp_path / "1", cluster=True))
        second, third = (stack.enter_context(Node(tmp_path / name, first=first)) for name in ("2", "3"))
        env = environment(
            tmp_path / "data",
            MODEL_NAME=demo_models / "demo",
            QDRANT_URL=second.url,
            DET_SIZE="256,256",
            SHARD_NUMBER=6,
            REPLICATION_FACTOR=2,
        )
        assert ingest(pictures, env, "--limit", "60")["exit_code"] == 0
        (tmp_path / "nginx").mkdir()
        one, other = (stack.enter_context(service(env)) for _ in range(2))
        ports = [client.base_url.port or 0 for client in (one, other)]
        client = stack.enter_context(balancer(tmp_path / "nginx", ports))

        def search(person: int) -> list[str]:
            photo = cv2.imencode(".png", draw_portrait(person, 101, (200, 200)))[1].tobytes()
            answer = client.post("/search", files={"image": ("query.png", photo)})
            assert answer.status_code == 200, answer.text
            matches = answer.json()["faces"][0]["matches"]
            assert client.get(matches[0]["thumb_url"]).status_code == 200
            return [match["face_id"] for match in matches]

        before = [search(person) for person in range(5)]
        assert all(before)
        third.kill()
        assert [search(person) for person in range(5)] == before
        assert ingest(pictures, env)["exit_code"] == 0
        after = [search(person) for person in range(5)]
        assert all(len(now) >= len(then) for now, then in zip(after, before, strict=True))
        third.start()
        second.wait_until_complete()
        first.kill()
        assert [search(person) for person in range(5)] == after
