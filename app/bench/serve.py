"""How long one search takes, stage by stage, and how that grows from 1 to 64 clients at once.

    REAL_PACK_DIR=... REAL_FACES_DIR=... .venv/bin/python app/bench/serve.py

A real service with an index of `--faces` faces is asked over HTTP with photographs of 1.9 megapixels. Each number of
clients has its turn in each round, and each client asks at least four times, one search after the other. The last line
is one JSON object: for each number of clients the median milliseconds of each stage as the service tells them, `total`
as the client sees it with its 99th percentile, searches per second, and the time that `/health` took meanwhile;
`growth` is the total's median at 64 clients over 64 times that at 1 (1: perfectly fair queueing, less: the cores are
used better).

With `--building` there is one client, while the graph of `--faces` is built: how late are searches and `/health` then?
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx
import numpy as np

from app.core.config import load_settings
from app.index import open_index
from app.packs.store import find_pack
from bench.faces import People, points
from bench.pictures import folder_of, write_pictures
from tests.support.running import environment, service

CLIENTS = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=20_000, help="faces in the index")
    parser.add_argument("--searches", type=int, default=64, help="searches of each number of clients, a round, or more")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--building", action="store_true", help="one client instead, while the graph is being built")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        pictures = [path.read_bytes() for path in write_pictures(folder / "pictures", folder_of("REAL_FACES_DIR"), 24)]
        pack_folder = folder_of("REAL_PACK_DIR")
        env = environment(folder / "data", MODEL_NAME=pack_folder)
        _fill(folder / "data", pack_folder, asked.faces, graph=not asked.building)
        if asked.building:
            print(json.dumps(_while_building(env, pictures) | {"faces": asked.faces, "cores": os.cpu_count()}))
            return
        seen: dict[int, list[dict[str, float]]] = {clients: [] for clients in CLIENTS}
        rates: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
        health: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
        with service(env) as started, _asking(started) as client:
            _search(client, pictures, 8, 2)
            for number in range(asked.rounds):
                for clients in CLIENTS:
                    searches = max(asked.searches, 4 * clients)
                    with _watching_health(client, health[clients]):
                        start = time.perf_counter()
                        seen[clients] += _search(client, pictures, searches, clients)
                        rates[clients].append(searches / (time.perf_counter() - start))
                print(number, {key: round(values[-1], 1) for key, values in rates.items()}, file=sys.stderr)
    table = {
        str(clients): _summary(seen[clients])
        | {"per_s": round(statistics.median(rates[clients]), 1), "health_max_ms": round(max(health[clients]), 1)}
        for clients in CLIENTS
    }
    growth = table["64"]["total"] / (64 * table["1"]["total"])
    print(json.dumps({"growth": round(growth, 3), "clients": table, "faces": asked.faces, "cores": os.cpu_count()}))


def _while_building(env: dict[str, str], pictures: list[bytes]) -> dict[str, float]:
    """The service begins to build as it starts, and is asked until it has done so."""
    seen: list[dict[str, float]] = []
    health: list[float] = []
    start = time.perf_counter()
    with service(env) as started, _asking(started) as client:
        while not client.get("/status").json()["index"].get("maintaining"):
            time.sleep(0.05)
        with _watching_health(client, health):
            while client.get("/status").json()["index"]["maintaining"]:
                seen += _search(client, pictures, 8, 1)
        build_s = time.perf_counter() - start
    said = {"build_s": build_s, "searches": len(seen), "health_p99_ms": _p99(health), "health_max_ms": max(health)}
    for stage in ("search", "total"):
        took = [one[stage] for one in seen]
        said |= {f"{stage}_p50_ms": statistics.median(took), f"{stage}_p99_ms": _p99(took)}
    return {key: round(value, 1) for key, value in said.items()}


def _fill(data: Path, pack_folder: Path, count: int, *, graph: bool) -> None:
    """Faces of nobody in particular, in the graph or still waiting for it."""
    settings = load_settings(None, device="cpu", data_dir=data)
    pack = find_pack(str(pack_folder), settings.models_dir)
    people = People(pack.embedding_size)
    with closing(open_index(settings, pack)) as index:
        for first in range(0, count, 8000):
            embeddings = people.faces(people.identities(1000), 8)[: count - first]
            index.upsert(list(points(embeddings, pack.digest, first)))
        if graph:
            index.maintain(wait=True)
    time.sleep(3)  # the owner leaves


def _p99(took: list[float]) -> float:
    return float(np.percentile(took, 99))


def _asking(started: httpx.Client) -> httpx.Client:
    """For many threads, which each have a connection; what TLS would trust takes longer to load than a search."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.Client(base_url=started.base_url, timeout=60, limits=limits, verify=False)


def _search(client: httpx.Client, pictures: list[bytes], searches: int, clients: int) -> list[dict[str, float]]:
    """Milliseconds per stage of every search, `total` as the client sees it."""
    took: list[dict[str, float]] = []
    left = iter(range(searches))
    lock = threading.Lock()

    def ask() -> None:
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            start = time.perf_counter()
            answer = client.post("/search", files={"image": pictures[number % len(pictures)]})
            total = (time.perf_counter() - start) * 1000
            answer.raise_for_status()
            with lock:
                took.append(answer.json()["took_ms"] | {"total": total})

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


@contextmanager
def _watching_health(client: httpx.Client, into: list[float]) -> Iterator[None]:
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            start = time.perf_counter()
            client.get("/health").raise_for_status()
            into.append((time.perf_counter() - start) * 1000)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    done.set()
    thread.join()


def _summary(took: list[dict[str, float]]) -> dict[str, float]:
    medians = {stage: round(statistics.median(one[stage] for one in took), 1) for stage in took[0]}
    return medians | {"total_p99": round(_p99([one["total"] for one in took]), 1)}


if __name__ == "__main__":
    main()
