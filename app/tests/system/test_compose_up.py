"""The containers on a real engine: up, an ingest, a search, a Qdrant that dies, monitoring, the cluster.

They take ports 9100 to 9102, so they run only where DOCKER_TEST=1; the images must be there or to be had.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest

from app.demo import draw_portrait

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.environ.get("DOCKER_TEST") != "1", reason="DOCKER_TEST=1 is not set: no engine is asked"),
]
TOP = Path(__file__).parents[3]
KEY = "a key of sixteen letters or more"
FILES = "docker-compose.yml:docker-compose.cpu.yml"
PICTURES = 12


@pytest.fixture(scope="module")
def tree(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the repository with the demo's model, brought up by quick-start.sh; taken down in the end."""
    tree = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / name, tree / name)
    shutil.copytree(demo_models / "demo", tree / "models" / "demo")
    (tree / "pictures").mkdir(exist_ok=True)
    for number in range(PICTURES):
        cv2.imwrite(str(tree / "pictures" / f"{number:03}.jpg"), draw_portrait(number, 1, (200, 200)))
    settings = {
        "API_KEYS": KEY, "MONITORING_API_KEY": KEY, "QDRANT_API_KEY": "a key of the server's own",
        "POSTGRES_PASSWORD": "a pass/word@of PostgreSQL",
        "MODEL_NAME": "demo", "DET_SIZE": "256,256", "PICTURES": "",
    }  # fmt: skip
    (tree / ".env").write_text("".join(f'{name}="{value}"\n' for name, value in settings.items()))
    try:
        done = run("./quick-start.sh", "docker", tree=tree, OCEANO_VARIANT="cpu")
        assert done.returncode == 0, done.stderr
        yield tree
    finally:
        for service in ("oceano", "ingest", "ingest-worker", "qdrant", "postgres", "prometheus", "balancer"):
            print(compose("logs", "--tail", "20", service, tree=tree).stdout)
        compose("down", "--volumes", "--remove-orphans", tree=tree)


def run(*words: str, tree: Path, **more: str) -> subprocess.CompletedProcess[str]:
    own = ("COMPOSE_", "QDRANT_", "API_KEYS", "MODEL_NAME", "DET_SIZE", "CUDA_VERSION")
    env = {name: value for name, value in os.environ.items() if not name.startswith(own)} | more
    return subprocess.run(words, cwd=tree, env=env, capture_output=True, text=True, check=False, timeout=1200)


def compose(*words: str, tree: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return run("docker", "compose", *words, tree=tree, **more)


def inspect(service: str, tree: Path) -> Any:
    name = compose("ps", "--all", "--quiet", service, tree=tree).stdout.split()[0]
    return json.loads(run("docker", "inspect", name, tree=tree).stdout)[0]


@pytest.fixture(scope="module")
def client(tree: Path) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url="http://127.0.0.1:9100", headers=headers, timeout=60) as client:
        yield client


def search(client: httpx.Client, number: int) -> httpx.Response:
    photo = cv2.imencode(".png", draw_portrait(number, 101, (200, 200)))[1].tobytes()
    return client.post("/search", files={"image": ("query.png", photo)})


def found(client: httpx.Client, number: int) -> list[str]:
    answer = search(client, number)
    assert answer.status_code == 200, answer.text
    return [Path(match["path"]).name for match in answer.json()["faces"][0]["matches"]]


def wait_for(what: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if what():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s")


def test_it_is_up_healthy_and_asks_for_a_key(tree: Path, client: httpx.Client) -> None:
    assert inspect("oceano", tree)["State"]["Health"]["Status"] == "healthy"
    assert inspect("qdrant", tree)["State"]["Health"]["Status"] == "healthy"
    assert client.get("/health").status_code == 200
    assert client.get("/status").json()["index"]["kind"] == "server"
    assert httpx.get("http://127.0.0.1:9100/status").status_code == 401
    assert httpx.get("http://127.0.0.1:9101/collections").status_code == 401


def test_it_is_locked_down(tree: Path) -> None:
    found = inspect("oceano", tree)
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
    kept = compose("exec", "oceano", "touch", "/opt/oceano/mine", tree=tree)
    assert "Read-only file system" in kept.stderr
    tools = compose("exec", "oceano", "bash", "-c", "command -v gcc cc make pip uv", tree=tree)
    assert tools.stdout == ""


def test_pictures_are_taken_up_and_found(tree: Path, client: httpx.Client) -> None:
    done = compose("run", "--rm", "ingest", tree=tree)
    assert done.returncode == 0, done.stderr
    assert f"{PICTURES} faces" in done.stdout
    wait_for(lambda: client.get("/status").json()["index"]["points"] == PICTURES)
    assert found(client, 3)[0] == "003.jpg"
    face = search(client, 3).json()["faces"][0]["matches"][0]
    assert client.get(face["thumb_url"]).headers["content-type"] == "image/jpeg"
    assert face["path"] == "/data/pictures/003.jpg"


def test_pictures_elsewhere_keep_their_name(tree: Path, client: httpx.Client, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "more.jpg"), draw_portrait(PICTURES, 1, (200, 200)))
    done = compose("run", "--rm", "ingest", tree=tree, PICTURES=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (match, *_) = search(client, PICTURES).json()["faces"][0]["matches"]
    assert match["path"] == str(tmp_path / "more.jpg")


def test_pictures_that_are_not_there_are_an_error_and_not_made(tree: Path, tmp_path: Path) -> None:
    done = compose("run", "--rm", "ingest", tree=tree, PICTURES=str(tmp_path / "away"))
    assert done.returncode != 0
    assert "does not exist" in done.stderr
    assert not (tmp_path / "away").exists()


def test_a_dead_server_is_said_and_waited_for(tree: Path, client: httpx.Client) -> None:
    assert compose("kill", "qdrant", tree=tree).returncode == 0
    refused = search(client, 3)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "index_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get("/health").status_code in (200, 503)
    assert compose("up", "--detach", "--wait", tree=tree).returncode == 0
    wait_for(lambda: search(client, 3).status_code == 200)
    assert found(client, 3)[0] == "003.jpg"


def test_all_is_there_after_everything_was_taken_down(tree: Path, client: httpx.Client) -> None:
    assert compose("down", tree=tree).returncode == 0
    done = compose("up", "--detach", "--wait", tree=tree)
    assert done.returncode == 0, done.stderr
    assert found(client, 5)[0] == "005.jpg"
    assert "skipped" in compose("run", "--rm", "ingest", tree=tree).stdout


def test_a_backup_is_made_and_restored(tree: Path, client: httpx.Client, tmp_path: Path) -> None:
    place = ("run", "--rm", "-v", f"{tmp_path}:/backups")
    done = compose(*place, "oceano", "backup", "/backups/monday", tree=tree)
    assert done.returncode == 0, done.stderr
    assert compose("down", tree=tree).returncode == 0
    for name in ("state", "thumbs", "qdrant_storage"):
        run("sh", "-c", f"rm -rf {name}/*", tree=tree)
    (tree / "qdrant_storage" / "server").mkdir()
    assert compose("up", "--detach", "--wait", "qdrant", tree=tree).returncode == 0
    done = compose(*place, "oceano", "restore", "/backups/monday", tree=tree)
    assert done.returncode == 0, done.stderr
    assert compose("up", "--detach", "--wait", tree=tree).returncode == 0
    assert found(client, 7)[0] == "007.jpg"


def test_prometheus_reads_both(tree: Path) -> None:
    done = compose("--profile", "monitoring", "up", "--detach", "prometheus", tree=tree)
    assert done.returncode == 0, done.stderr

    def up() -> bool:
        answer = httpx.get("http://127.0.0.1:9190/api/v1/query", params={"query": "up"}).json()
        return sorted((one["metric"]["job"], one["value"][1]) for one in answer["data"]["result"]) == [
            ("oceano", "1"),
            ("qdrant", "1"),
        ]

    wait_for(up)


def test_an_image_of_a_gpu_is_not_started_without_one(tree: Path) -> None:
    done = compose("up", "--detach", "--no-build", tree=tree, COMPOSE_FILE="docker-compose.yml", CUDA_VERSION="cpu")
    assert done.returncode != 0
    assert "could not select device driver" in done.stderr


def test_in_a_cluster_any_node_may_be_lost(tree: Path, client: httpx.Client) -> None:
    assert compose("--profile", "monitoring", "down", tree=tree).returncode == 0
    three = {"COMPOSE_FILE": f"{FILES}:docker-compose.cluster.yml"}
    done = compose("up", "--detach", "--wait", tree=tree, **three)
    assert done.returncode == 0, done.stderr
    assert len(compose("ps", "--quiet", "oceano", tree=tree, **three).stdout.split()) == 2
    assert len(compose("ps", "--quiet", "ingest-worker", tree=tree, **three).stdout.split()) == 2
    oceano = ("exec", "--index", "1", "oceano", "oceano")
    queued = compose(*oceano, "ingest", "/data/pictures", "--queue", tree=tree, **three)
    assert queued.returncode == 0, queued.stderr
    wait_for(lambda: '"done"' in compose(*oceano, "jobs", "list", "--json", tree=tree, **three).stdout)
    assert found(client, 3)[0] == "003.jpg"
    shown = run("docker", "top", "oceano-ingest-worker-1", tree=tree).stdout
    assert "worker" in shown
    assert "PostgreSQL" not in shown
    for node in ("qdrant-2", "qdrant", "qdrant-3"):
        assert compose("kill", node, tree=tree, **three).returncode == 0
        wait_for(lambda: search(client, 3).status_code == 200, 60)
        assert [found(client, number)[0] for number in range(PICTURES)] == [f"{n:03}.jpg" for n in range(PICTURES)]
        assert compose("up", "--detach", "--wait", tree=tree, **three).returncode == 0
        wait_for(lambda: client.get("/status").json()["index"]["copies_missing"] == 0)
    for number in (1, 2):
        time.sleep(4)  # the balancer looks names up every second, and knows both again
        assert run("docker", "kill", f"oceano-oceano-{number}", tree=tree).returncode == 0
        answers = [search(client, 3) for _ in range(4)]
        took = [(answer.status_code, answer.elapsed.total_seconds()) for answer in answers]
        assert {status for status, _ in took} == {200}, took
        assert max(seconds for _, seconds in took) < 20, took
        assert compose("up", "--detach", "--wait", tree=tree, **three).returncode == 0
    again = run("./quick-start.sh", "docker", tree=tree, **three)  # the cluster stays one
    assert again.returncode == 0, again.stderr
    assert len(compose("ps", "--quiet", "oceano", tree=tree, **three).stdout.split()) == 2
    assert found(client, 3)[0] == "003.jpg"
    assert compose("kill", "oceano", tree=tree, **three).returncode == 0
    nobody = client.get("/health")
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (503, "overloaded")
    assert compose("down", "--remove-orphans", tree=tree, **three).returncode == 0
