"""How long it takes to name many faces in one change, and to undo it.

    .venv/bin/python app/bench/naming.py --n 100000 --faces 10000

N faces are in an embedded index with a SQLite catalog. `--faces` of them get a name by `app.people.Naming` and lose it
by an undo, `--rounds` times. The last line is one JSON object: the median seconds of each, until the index has it, too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from app.catalog import CATALOG_FILE, PeopleStore, open_sqlite
from app.core.config import load_settings
from app.core.memory import collect_rarely
from app.core.types import FaceFilter, Floats
from app.index import open_index
from app.people import Author, NamesCopy, Naming, Profile
from bench.exact import DIGEST, id_of, pack_of
from bench.faces import SIZE, points

BY = Author("bench")
PART = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    collect_rarely()  # as the service does
    with tempfile.TemporaryDirectory(prefix="oceano-bench-") as name:
        settings = load_settings(None, data_dir=Path(name))
        with (
            closing(open_index(settings, pack_of(SIZE))) as index,
            closing(open_sqlite(settings.state_dir / CATALOG_FILE)) as database,
        ):
            rng = np.random.default_rng(1)
            for first in range(0, asked.n, PART):
                rows = unit(rng.standard_normal((min(PART, asked.n - first), SIZE)).astype(np.float32))
                index.upsert(list(points(rows, DIGEST, first)))
            index.flush()
            naming = Naming(database, index, NamesCopy(database, index, "faces__bench__ffffffff"))
            chosen = [id_of(number) for number in rng.choice(asked.n, asked.faces, replace=False).tolist()]
            person = naming.create(Profile(name="bench"), [], BY).person
            assert person is not None
            where = FaceFilter(person=person.id)
            took: dict[str, list[float]] = {"name": [], "undo": []}
            for _ in range(asked.rounds):
                start = time.perf_counter()
                named = naming.assign(person.id, person.version, chosen, BY)
                took["name"].append(time.perf_counter() - start)
                assert named.change is not None
                assert index.count(where) == asked.faces
                start = time.perf_counter()
                naming.undo(named.change.number, BY)
                took["undo"].append(time.perf_counter() - start)
                assert index.count(where) == 0
                found = PeopleStore(database).person(person.id)
                assert found is not None
                person = found
    medians = {f"{name}_seconds": round(median(values), 2) for name, values in took.items()}
    print(json.dumps({"n": asked.n, "faces": asked.faces, **medians}))


def unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
