"""How long pages of results take, and whether they are stable while an ingest runs.

    REAL_PACK_DIR=... .venv/bin/python app/bench/results.py --n 1000000 --keep FOLDER

The index has N faces of drawn people, two in each image. One person has 6,000 faces, and another one is on half of
these images. A tenth of the person's images are near-identical to the one before. `--keep FOLDER` keeps the index there
and takes up one that is there; `--no-graph` measures without its graph.

The last line is one JSON object with medians in milliseconds: `first` and `further` pages of 100 matches for each order
and condition, and `search`, the calls of the index that such a page cannot do without; `facets` is the counts of a
result with each filter; `http` is the time to the first byte of the page /face/ID, `http_beyond_search` the part of it
that is not the search; `paging` reads to match 5,000 while new faces, some of them of the same person, are written:
`doubles` and `missing` are the faults.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx
import numpy as np

from app.core.config import Settings, load_settings
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FacePoint, ModelPack, face_id_of
from app.index import open_index
from app.metrics import Metrics
from app.packs.store import find_pack
from app.service import Facets, Query, ResultPage, Results
from bench.faces import FACES_OF_ONE, Floats, People, stored_payload
from bench.pictures import folder_of
from tests.support.running import environment, service

SOME = 20_000
OFTEN = 6000  # faces of the first person
THRESHOLD = 0.4
LIMIT = 100
UNTIL = 5000
START = datetime(2000, 1, 1, tzinfo=UTC)


class World:
    """The faces of an index, made in parts so that they need little memory.

    Attributes:
        often: face numbers of the first person.
        beside: face numbers of the second person, each on an image of the first.
        persons: their identities, (2, D).
    """

    def __init__(self, pack: ModelPack, count: int) -> None:
        self._pack, self._count = pack, count
        self._people = People(pack.embedding_size)
        self.persons = self._people.identities(2)
        rng = np.random.default_rng(3)
        images = np.sort(rng.choice(count // 2, min(OFTEN, count // 8), replace=False))
        self.often = 2 * images
        self.beside = 2 * images[::2] + 1
        self._taken = rng.integers(0, 25 * 365 * 86_400, count // 2 + 1)
        self._hashes = rng.integers(0, 2**63, count // 2 + 1, dtype=np.int64)
        for place in range(9, len(images), 10):
            self._hashes[images[place]] = self._hashes[images[place - 1]] ^ 0b101

    def points(self) -> Iterator[list[FacePoint]]:
        """All faces, in parts."""
        owners = {int(one): 0 for one in self.often} | {int(one): 1 for one in self.beside}
        for first in range(0, self._count, SOME):
            size = min(SOME, self._count - first)
            faces = self._people.faces(self._people.identities(-(-size // FACES_OF_ONE)), FACES_OF_ONE)[:size]
            faces = faces[np.random.default_rng(first).permutation(size)]  # a person's faces are on different images
            for place in range(size):
                if (owner := owners.get(first + place)) is not None:
                    faces[place] = self.face(owner)
            yield [self.point(first + place, embedding) for place, embedding in enumerate(faces)]

    def face(self, owner: int) -> Floats:
        """A new face of one of the two persons, (D,)."""
        return np.asarray(self._people.faces(self.persons[owner : owner + 1], 1)[0])

    def point(self, number: int, embedding: Floats) -> FacePoint:
        """A face with its payload; numbers from the count of faces on are new images."""
        image = number // 2
        known = image < len(self._taken)
        folder = f"/photos/{image % 10}/{image // 500}"
        taken = START + timedelta(seconds=int(self._taken[image % len(self._taken)]))
        side = 20.0 + image * 7919 % 200
        payload = replace(
            stored_payload(f"{image:064x}", f"{folder}/{image}.jpg"),
            bbox=(100.0, 100.0, 100.0 + side, 100.0 + 1.3 * side),
            taken_at=None if image % 10 == 0 else taken.replace(tzinfo=None).isoformat(),
            phash=f"{int(self._hashes[image]):016x}" if known else None,
        )
        return FacePoint(self.id_of(number), embedding, payload)

    def id_of(self, number: int) -> str:
        """The face_id of a number."""
        return face_id_of(f"{number // 2:064x}", self._pack.digest, number % 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="faces, up to 1,000,000 and more")
    parser.add_argument("--keep", type=Path, help="a folder for the index, used again if it is there")
    parser.add_argument("--no-graph", action="store_true", help="measure without a graph")
    parser.add_argument("--repeats", type=int, default=7, help="of each measurement; medians are reported")
    parser.add_argument("--m", type=int, default=48, help="HNSW_M")
    parser.add_argument("--ef-construct", type=int, default=200, help="HNSW_EF_CONSTRUCT")
    parser.add_argument("--fill-only", action="store_true", help="only make the index")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        data = asked.keep or Path(name)
        pack_folder = folder_of("REAL_PACK_DIR")
        graph = {"hnsw_m": asked.m, "hnsw_ef_construct": asked.ef_construct}
        settings = load_settings(None, device="cpu", data_dir=data, model_name=str(pack_folder), **graph)
        pack = find_pack(str(pack_folder), settings.models_dir)
        world = World(pack, asked.n)
        said = _fill(settings, pack, world, asked.n, graph=not asked.no_graph)
        if asked.fill_only:
            print(json.dumps(said))
            return
        with closing(open_index(settings, pack)) as index:
            said |= {"graph": index.info().indexed} | _measured(index, pack, world, asked.repeats)
            said |= {"paging": _paging(index, pack, world, asked.n)}
        time.sleep(3)  # the owner leaves
        env = environment(data, MODEL_NAME=pack_folder, HNSW_M=asked.m, HNSW_EF_CONSTRUCT=asked.ef_construct)
        said |= _over_http(env, world, asked.repeats)
    print(json.dumps(said | {"n": asked.n, "size": pack.embedding_size, "cores": os.cpu_count()}))


def _fill(settings: Settings, pack: ModelPack, world: World, count: int, *, graph: bool) -> dict[str, Any]:
    with closing(open_index(settings, pack)) as index:
        start = time.perf_counter()
        if index.count() < count:
            for part in world.points():
                index.upsert(part)
                print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
            index.flush()
        if graph:
            index.maintain(wait=True)
        return {"made_s": round(time.perf_counter() - start)}


def _measured(index: FaceIndex, pack: ModelPack, world: World, repeats: int) -> dict[str, Any]:
    embedding = world.persons[0] / np.linalg.norm(world.persons[0])
    plain = Query(np.asarray(embedding, np.float32), THRESHOLD)
    other = np.asarray(world.persons[1] / np.linalg.norm(world.persons[1]), np.float32)
    queries = {
        "similarity": plain,
        "newest": replace(plain, sort="newest"),
        "image": replace(plain, group_by="image_id"),
        "day": replace(plain, group_by="day"),
        "alike": replace(plain, group_by="alike"),
        "min_face": replace(plain, min_face=100),
        "unlike": replace(plain, unlike=(other,)),
        "together": replace(plain, together=(other,)),
    }
    high = THRESHOLD + 0.3
    date, folder = FaceFilter(taken_from="2010", taken_to="2012"), FaceFilter(folder="/photos/3")
    counted = {
        "no filter": plain,
        "least": replace(plain, threshold=high),
        "date": replace(plain, where=date),
        "folder": replace(plain, where=folder),
        "all": replace(plain, threshold=high, where=replace(date, folder=folder.folder)),
    }
    said: dict[str, Any] = {"search": _calls(index, plain, repeats), "first": {}, "further": {}, "facets": {}}
    totals: dict[str, int | None] = {}
    for turn in range(repeats):
        for name, query in queries.items():
            results = Results(index, pack, Metrics())  # nothing is cached
            first_ms, page = _timed(_page, results, query, None)
            further_ms, further = _timed(_page, results, query, page.next)
            said["first"].setdefault(name, []).append(first_ms)
            said["further"].setdefault(name, []).append(further_ms)
            totals[name] = further.total
            results.close()
        for name, query in counted.items():
            results = Results(index, pack, Metrics())
            said["facets"].setdefault(name, []).append(_timed(_facets, results, query)[0])
            results.close()
        print(f"measured {turn + 1} of {repeats}", file=sys.stderr)
    return {
        "search": said["search"],
        "first": {name: _median(took) for name, took in said["first"].items()},
        "further": {name: _median(took) for name, took in said["further"].items()},
        "facets": {name: _median(took) for name, took in said["facets"].items()},
        "totals": totals,
    }


def _calls(index: FaceIndex, query: Query, repeats: int) -> dict[str, float]:
    """The searches alone: of a first page, of a further page, and of a list."""
    how: dict[str, Any] = {"threshold": query.threshold}
    return {
        "approximate": _repeated(lambda: index.search_batch([query.embedding], limit=LIMIT + 1, **how), repeats),
        "exact": _repeated(lambda: index.search_exact(query.embedding, limit=50_000, **how), repeats),
        "payloads": _repeated(lambda: index.search(query.embedding, limit=OFTEN, **how), repeats),
    }


def _paging(index: FaceIndex, pack: ModelPack, world: World, count: int) -> dict[str, Any]:
    """Read to match 5,000 while faces are written."""
    plain = Query(np.asarray(world.persons[0] / np.linalg.norm(world.persons[0]), np.float32), THRESHOLD)
    found: dict[str, Any] = {}
    written = count + 2  # numbers of new images
    for name, query in {"similarity": plain, "newest": replace(plain, sort="newest")}.items():
        results = Results(index, pack, Metrics())
        expected = [match.match.face_id for match in results.matches(query, limit=UNTIL)]
        results.close()
        results = Results(index, pack, Metrics())
        done, new = threading.Event(), [world.id_of(written)]
        writer = threading.Thread(target=_write, args=(index, world, written, done, new))
        writer.start()
        took: list[float] = []
        shown: list[str] = []
        after = None
        while len(shown) < UNTIL:
            milliseconds, page = _timed(_page, results, query, after)
            took.append(milliseconds)
            shown += [one.match.face_id for one in page.matches]
            after = page.next
        done.set()
        writer.join()
        written += 2 * len(new)
        results.close()
        fresh = set(new)
        old = [one for one in shown if one not in fresh]
        found[name] = {
            "median_ms": _median(took),
            "max_ms": round(max(took), 1),
            "doubles": len(shown) - len(set(shown)),
            "missing": len(set(expected[: len(old)]) - set(shown)),
            "written": len(new),
        }
        index.delete(new)
    return found


def _write(index: FaceIndex, world: World, first: int, done: threading.Event, new: list[str]) -> None:
    """Add images with a face of the person and one of the other, about 100 a second."""
    number = first
    while not done.wait(0.1):
        some = [world.point(number + place, world.face(place % 2)) for place in range(20)]
        index.upsert(some)
        index.flush()
        new += [one.face_id for one in some]
        number += len(some)


def _over_http(env: dict[str, str], world: World, repeats: int) -> dict[str, Any]:
    """The time to the first byte of the page of a face, and how much of it is not the search."""
    took: dict[str, list[float]] = {"similarity": [], "newest": []}
    beyond: dict[str, list[float]] = {name: [] for name in took}
    with service(env) as client:
        for turn in range(repeats + 1):
            face_id = world.id_of(int(world.often[turn * 11]))
            for name, values in took.items():
                before = _search_ms(client)
                start = time.perf_counter()
                with client.stream("GET", f"/face/{face_id}", params={"sort": name}, timeout=120) as answer:
                    milliseconds = (time.perf_counter() - start) * 1000
                    answer.read()
                answer.raise_for_status()
                if turn:  # the first one compiles templates
                    values.append(milliseconds)
                    beyond[name].append(milliseconds - (_search_ms(client) - before))
    return {
        "http": {name: _median(values) for name, values in took.items()},
        "http_beyond_search": {name: _median(values) for name, values in beyond.items()},
    }


def _search_ms(client: httpx.Client) -> float:
    """Milliseconds of all searches of the service so far."""
    for line in client.get("/metrics").text.splitlines():
        if line.startswith('oceano_stage_seconds_sum{stage="search"}'):
            return 1000 * float(line.split()[-1])
    return 0.0


def _page(results: Results, query: Query, after: str | None) -> ResultPage:
    return asyncio.run(results.page(query, limit=LIMIT, after=after))


def _facets(results: Results, query: Query) -> Facets:
    return asyncio.run(results.facets(query, least=THRESHOLD))


def _timed(work: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work(*args)
    return (time.perf_counter() - start) * 1000, result


def _repeated(work: Callable[[], object], repeats: int) -> float:
    return _median([_timed(work)[0] for _ in range(repeats)])


def _median(took: list[float]) -> float:
    return round(statistics.median(took), 1)


if __name__ == "__main__":
    main()
