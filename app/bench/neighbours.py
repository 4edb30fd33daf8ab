"""How long it takes to find the photographs before and after one in its folder.

    .venv/bin/python app/bench/neighbours.py

Makes a ledger of one folder with 1,000 files and one with 100,000, beside 10,000 folders of 10 files each. The last
line is one JSON object: for each folder the milliseconds of CPU of the first look, which reads and sorts the names, and
those of later ones, which find the order kept; the same of a folder that has only folders in it. All are medians.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.catalog import FileRecord, Ledger, open_ledger
from app.library.neighbours import FolderOrder

REPEATS = 15
SIZES = {"small": 1000, "large": 100_000}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(Path(folder) / "catalog.sqlite3", "faces__bench__00000000")
        paths = [f"/photos/{name}/IMG_{number}.jpg" for name, size in SIZES.items() for number in range(size)]
        paths += [f"/photos/days/{day}/DSC_{number:04}.JPG" for day in range(10_000) for number in range(10)]
        random.Random(1).shuffle(paths)
        for start in range(0, len(paths), 10_000):
            ledger.record([_record(path) for path in paths[start : start + 10_000]])
        said = {
            "files": len(paths),
            **{f"{name}_ms": _looks(ledger, f"/photos/{name}/IMG_{size // 2}.jpg") for name, size in SIZES.items()},
            "folders_only_ms": _looks(ledger, "/photos/days/x.jpg"),
        }
    print(json.dumps(said))


def _record(path: str) -> FileRecord:
    return FileRecord(path, 4_000_000, 1, f"{abs(hash(path)):064x}", "done", 2)


def _looks(ledger: Ledger, path: str) -> dict[str, float]:
    first = [_milliseconds(lambda: FolderOrder(ledger).beside(path)) for _ in range(REPEATS)]
    order = FolderOrder(ledger)
    order.beside(path)
    later = [_milliseconds(lambda: order.beside(path)) for _ in range(REPEATS)]
    return {"first": round(statistics.median(first), 2), "later": round(statistics.median(later), 2)}


def _milliseconds(look: Callable[[], object]) -> float:
    start = time.process_time()
    look()
    return (time.process_time() - start) * 1000


if __name__ == "__main__":
    main()
