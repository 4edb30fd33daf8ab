"""What an entry of the audit log costs, and how long it takes to check the log.

    .venv/bin/python app/bench/audit.py --postgresql postgresql+psycopg://USER@HOST/EMPTY_DATABASE

On SQLite, and on PostgreSQL if a URL of an empty database is given (its tables stay): one caller after another, and
`--callers` at once, who share transactions; alone, and while another process records results in the catalog as a fast
ingest does, 16 files in a transaction ten times a second. Then the check of a
log with `--entries` entries. The last line is one JSON object: median and 95th percentile of the milliseconds of an
entry, milliseconds of the processor for each (of this process), entries per second, and seconds and peak of the memory
(MB of Python) of the check.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.catalog import Database, FileRecord, Ledger, open_postgresql, open_sqlite
from app.security import Audit, new_entry

DETAILS = {"images": ["0" * 64], "faces": 1, "matches": 20, "threshold": 0.4, "folders": ["/photos/2019"]}
PAUSE = 0.1  # seconds between the transactions of the ingest
WRITTEN = 1000  # entries in a transaction, to fill the log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000, help="entries of the log that is checked")
    parser.add_argument("--each", type=int, default=300, help="entries of each measurement")
    parser.add_argument("--callers", type=int, default=16, help="callers at once")
    parser.add_argument("--folder", type=Path, help="for SQLite's file; its disk is what is measured")
    parser.add_argument("--postgresql", help="URL of an empty database")
    parser.add_argument("--ingest", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ingest:
        _ingest(args.ingest)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        places = {"sqlite": str(Path(folder) / "catalog.sqlite3")}
        if args.postgresql:
            places["postgresql"] = args.postgresql
        found = {name: _measured(place, Path(folder) / name, args) for name, place in places.items()}
    print(json.dumps({"entries": args.entries, "each": args.each, "callers": args.callers, **found}))


def _open(place: str) -> Database:
    return open_postgresql(place) if place.startswith("postgresql") else open_sqlite(Path(place))


def _measured(place: str, state: Path, args: argparse.Namespace) -> dict[str, object]:
    with closing(_open(place)) as database, closing(Audit(database, state, days=365)) as audit:
        _entries(audit, args.each // 10, 1)  # everything is imported and prepared
        found: dict[str, object] = {
            "one": _entries(audit, args.each, 1),
            "many": _entries(audit, args.each, args.callers),
        }
        with _beside_an_ingest(place):
            found["one_beside_ingest"] = _entries(audit, args.each, 1)
            found["many_beside_ingest"] = _entries(audit, args.each, args.callers)
        newest = audit.log.newest_number() or 0
        for start in range(newest, args.entries, WRITTEN):
            count = min(WRITTEN, args.entries - start)
            audit.log.append([new_entry("search", "key nightly", DETAILS, address="10.0.0.7") for _ in range(count)])
        return found | {"check": _check(audit)}


def _entries(audit: Audit, count: int, callers: int) -> dict[str, float]:
    def write(_: int) -> float:
        start = time.perf_counter()
        audit.record(new_entry("search", "key nightly", DETAILS, address="10.0.0.7", purpose="case 7"))
        return (time.perf_counter() - start) * 1000

    start, before = time.perf_counter(), _processor()
    with ThreadPoolExecutor(callers) as pool:
        took = sorted(pool.map(write, range(count)))
    return {
        "ms": round(statistics.median(took), 2),
        "ms_p95": round(took[int(len(took) * 0.95)], 2),
        "cpu_ms": round((_processor() - before) / count * 1000, 3),
        "per_second": round(count / (time.perf_counter() - start)),
    }


def _check(audit: Audit) -> dict[str, object]:
    walls, processors = [], []
    for _ in range(3):
        start, before = time.perf_counter(), _processor()
        report = audit.verify()
        walls.append(time.perf_counter() - start)
        processors.append(_processor() - before)
        assert report.is_well, report
    tracemalloc.start()
    audit.verify()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return {
        "entries": report.entries,
        "seconds": round(statistics.median(walls), 2),
        "cpu_seconds": round(statistics.median(processors), 2),
        "mb": round(peak, 1),
    }


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def _beside_an_ingest(place: str) -> Iterator[None]:
    command = [sys.executable, __file__, "--ingest", place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        yield
        process.terminate()


def _ingest(place: str) -> None:
    """Record results until the process is ended."""
    with closing(_open(place)) as database:
        ledger = Ledger(database, "faces__bench__00000000")
        number = 0
        while True:
            files = range(number, number + 16)
            ledger.record([FileRecord(f"/photos/{n}.jpg", n, n, f"{n:064x}", "done", 2) for n in files])
            time.sleep(PAUSE)
            number += 16
            if number == 16:
                print("begun", flush=True)


if __name__ == "__main__":
    main()
