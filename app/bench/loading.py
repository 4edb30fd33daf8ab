"""How fast a Qdrant server takes faces in, and what searches wait for meanwhile.

    QDRANT_TEST_URL=http://127.0.0.1:6333 .venv/bin/python app/bench/loading.py --n 200000

N faces (see bench/faces.py) go into a new collection, a thousand at a time, once for each way:
`oceano`: as the service does it, several requests at once; `one_stream`: one request at a time; `one_segment`: a
single graph; `graph_afterwards`: indexing is off until all are in; `deferred`: with `prevent_unoptimized`, by which a
server answers a write when the graph holds it. Meanwhile five searches a second look for faces that were acknowledged;
`unseen` is the share of those that were not found.

The last line is one JSON object: for each way faces a second, milliseconds of the searches while faces come
(`filling`), until the server says that its graph is built (`settling`) and afterwards (`settled`, with recall against
an exact scan). `vs_one_stream` is the ratio of `oceano`'s rate to that of one stream.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from qdrant_client import QdrantClient, models

from app.core.config import Settings, load_settings
from app.core.protocols import FaceIndex
from app.core.types import ModelPack
from app.index.server.connect import collection_of, connect, open_server
from bench.exact import DIGEST, LIMIT, compared, filtered, id_of, milliseconds, ms, pack_of
from bench.faces import SIZE, Floats, points
from bench.gallery import Gallery, Truth

PAGE = 1000
QUIET_SECONDS = 5.0  # green for this long: there is nothing left to optimize
STREAMS = 4
WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "one_stream": (1, {}),
    "oceano": (STREAMS, {}),
    "one_segment": (STREAMS, {"default_segment_number": 1, "max_segment_size": 20_000_000}),
    "graph_afterwards": (STREAMS, {"indexing_threshold": 0}),
    "deferred": (STREAMS, {"prevent_unoptimized": True}),
}


class Searching:
    """Five searches a second for acknowledged faces, beside what the main thread does."""

    def __init__(self, index: FaceIndex, stored: Floats) -> None:
        self.known = 0
        self._index = index
        self._stored = stored
        self._took: list[float] = []
        self._unseen = 0
        self._done = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._running = self._pool.submit(self._search)

    def told(self) -> dict[str, float]:
        """Since the last call."""
        took, unseen = self._took, self._unseen
        self._took, self._unseen = [], 0
        if not took:
            return {"searches": 0}
        figures = milliseconds(took) | {"max_ms": round(max(took), 1), "searches": len(took)}
        return figures | {"unseen": round(unseen / len(took), 3)}

    def stop(self) -> None:
        self._done.set()
        self._pool.shutdown()
        self._running.result()  # raises what went wrong

    def _search(self) -> None:
        turn = 0
        while not self._done.wait(0.2):
            if self.known:
                turn += 1
                wanted = turn * 7919 % self.known if turn % 2 else self.known - 1  # any, and the newest
                start = time.perf_counter()
                found = self._index.search(self._stored[wanted], limit=LIMIT)
                self._took.append((time.perf_counter() - start) * 1000)
                self._unseen += id_of(wanted) not in {match.face_id for match in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="faces")
    parser.add_argument("--size", type=int, default=SIZE, help="dimensions of an embedding")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--ways", default=",".join(WAYS), help="which, and in which order")
    asked = parser.parse_args()
    url = os.environ.get("QDRANT_TEST_URL") or sys.exit("QDRANT_TEST_URL names no Qdrant server")
    pack = pack_of(asked.size)
    gallery = Gallery(asked.n, asked.size)
    stored = np.concatenate([block for _, block in gallery.blocks()])
    queries, owners = gallery.queries(asked.queries)
    truth = Truth.of(gallery, queries)
    said: dict[str, Any] = {}
    for way in asked.ways.split(","):
        streams, optimizers = WAYS[way]
        settings = load_settings(None, qdrant_url=url, qdrant_collection=f"bench-{way}")
        said[way] = _loaded(settings, pack, streams, optimizers, stored)
        with closing(open_server(settings, pack)) as index:
            settled = compared(index, queries, owners, truth) | filtered(index, queries, truth)
            said[way]["settled"] = {key: round(value, 4) for key, value in settled.items()}
        with closing(connect(settings)) as client:
            client.delete_collection(str(collection_of(client, settings.qdrant_collection)))
        print(way, said[way], file=sys.stderr)
    if {"oceano", "one_stream"} <= said.keys():
        said["vs_one_stream"] = round(said["oceano"]["per_s"] / said["one_stream"]["per_s"], 3)
    print(json.dumps(said | {"n": asked.n, "size": asked.size, "cores": os.cpu_count()}))


def _loaded(
    settings: Settings, pack: ModelPack, streams: int, optimizers: dict[str, Any], stored: Floats
) -> dict[str, Any]:
    """Take all faces in, and wait until the server has nothing left to do."""
    client = connect(settings)
    if (left := collection_of(client, settings.qdrant_collection)) is not None:  # by a run that was interrupted
        client.delete_collection(left)
    with closing(open_server(settings, pack, client=client, streams=streams)) as index:
        if optimizers:
            _configure(client, settings, **optimizers)
        searching = Searching(index, stored)
        try:
            start = time.perf_counter()
            writes = []
            for first in range(0, len(stored), PAGE):
                some = list(points(stored[first : first + PAGE], DIGEST, first))
                writes.append(ms(index.upsert, some))
                searching.known = first + len(some)
            said: dict[str, Any] = {"per_s": round(len(stored) / (time.perf_counter() - start))}
            said["write"] = milliseconds(writes) | {"max_ms": round(max(writes), 1)}
            said["filling"] = searching.told()
            start = time.perf_counter()
            if optimizers.get("indexing_threshold") == 0:
                _configure(client, settings, indexing_threshold=10_000)
            said["settling_s"] = round(_settle(index) - start, 1)
            said["settling"] = searching.told()
        finally:
            searching.stop()
        return said


def _configure(client: QdrantClient, settings: Settings, **optimizers: Any) -> None:
    name = str(collection_of(client, settings.qdrant_collection))
    client.update_collection(name, optimizers_config=models.OptimizersConfigDiff(**optimizers))


def _settle(index: FaceIndex) -> float:
    """When it became quiet, as time.perf_counter counts."""
    green = time.perf_counter()
    while time.perf_counter() - green < QUIET_SECONDS:
        time.sleep(0.2)
        if index.info().maintaining:
            green = time.perf_counter()
    return green


if __name__ == "__main__":
    main()
