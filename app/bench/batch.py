"""How much faster a batch is than as many requests.

    REAL_PACK_DIR=... .venv/bin/python app/bench/batch.py

A real service with an index of `--faces` drawn faces (see bench/faces.py) is asked for the matches of 100 stored faces:
with 100 requests one after the other, with 100 requests of 8 clients at once, and with one `POST /search/batch`. The
three take turns. The last line is one JSON object: median milliseconds for all 100, and whether all had equal answers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx

from app.core.config import load_settings
from app.index import open_index
from app.packs.store import find_pack
from bench.faces import People, points
from bench.pictures import folder_of
from tests.support.running import environment, service

QUERIES = 100
CLIENTS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=100_000, help="faces in the index")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        data, pack_folder = Path(name) / "data", folder_of("REAL_PACK_DIR")
        face_ids = _fill(data, pack_folder, asked.faces)
        with (
            service(environment(data, MODEL_NAME=pack_folder)) as started,
            httpx.Client(base_url=started.base_url, timeout=120) as client,
            ThreadPoolExecutor(CLIENTS) as threads,
        ):
            ways: dict[str, Callable[[], list[Any]]] = {
                "one_by_one_ms": lambda: [_search(client, face_id) for face_id in face_ids],
                "eight_clients_ms": lambda: list(threads.map(lambda face_id: _search(client, face_id), face_ids)),
                "batch_ms": lambda: _batch(client, face_ids),
            }
            took: dict[str, list[float]] = {way: [] for way in ways}
            answers = [work() for work in ways.values()]  # what every search needs is in memory then
            for _ in range(asked.rounds):
                for way, work in ways.items():
                    start = time.perf_counter()
                    work()
                    took[way].append((time.perf_counter() - start) * 1000)
    said = {way: round(statistics.median(one), 1) for way, one in took.items()}
    equal = all(answer == answers[0] for answer in answers)
    print(json.dumps(said | {"equal": equal, "queries": QUERIES, "faces": asked.faces, "cores": os.cpu_count()}))


def _fill(data: Path, pack_folder: Path, count: int) -> list[str]:
    """Store drawn faces, with a graph; returns the ids of some."""
    settings = load_settings(None, device="cpu", data_dir=data)
    pack = find_pack(str(pack_folder), settings.models_dir)
    people = People(pack.embedding_size)
    face_ids: list[str] = []
    with closing(open_index(settings, pack)) as index:
        for first in range(0, count, 8000):
            embeddings = people.faces(people.identities(1000), 8)[: count - first]
            stored = list(points(embeddings, pack.digest, first))
            face_ids += [one.face_id for one in stored]
            index.upsert(stored)
        index.maintain(wait=True)
    time.sleep(3)  # the owner leaves
    return face_ids[:: max(1, count // QUERIES)][:QUERIES]


def _search(client: httpx.Client, face_id: str) -> Any:
    answer = client.post(f"/faces/{face_id}/search")
    answer.raise_for_status()
    return [(match["face_id"], match["similarity"]) for match in answer.json()["combined"]["matches"]]


def _batch(client: httpx.Client, face_ids: list[str]) -> list[Any]:
    answer = client.post("/search/batch", json={"queries": [{"face_id": face_id} for face_id in face_ids]})
    answer.raise_for_status()
    return [
        [(match["face_id"], match["similarity"]) for match in result["combined"]["matches"]]
        for result in answer.json()["results"]
    ]


if __name__ == "__main__":
    main()
