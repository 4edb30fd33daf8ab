"""Bookkeeping of an ingest: rate and memory of the ledger, beside an earlier version of Oceano.

    git worktree add /tmp/earlier COMMIT
    .venv/bin/python app/bench/catalog.py --old /tmp/earlier --n 1000000 \
        --postgresql postgresql+psycopg://USER@HOST/EMPTY_DATABASE

Each side is a process of its own: `old` (the checkout, whose ledger is in app/library), `sqlite` and `postgresql` (the
database must be empty; its tables stay). Three passes over files as a scan yields them, in rounds of 2,048 files in
which the sides alternate: `record` looks the files up and records them, 16 in a transaction; `skip` looks them up
again, as a second run over unchanged files does; `claim`, which the old version lacks, is a queued ingest: the files
are added to a job, taken 32 at a time and recorded, with the counts of the job. Then the queries of the service on the
full ledger. Seconds are those of the processor, of the process alone (a PostgreSQL server is not in them); `wall` has
those that passed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
ROUND = 2048
BATCH = 16
AT_ONCE = 256  # looked up while files are unchanged, as app/ingest.py does
ADDED = 500  # claims in a transaction, as app/service/worker.py adds and takes them
TAKEN = 32
COLLECTION = "faces__bench__00000000"
FIELDS = ("cpu", "wall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="a folder with an earlier version of Oceano")
    parser.add_argument("--n", type=int, default=100_000, help="number of files")
    parser.add_argument("--claims", type=int, help="number of files of the third pass; default: all")
    parser.add_argument("--postgresql", help="URL of an empty database")
    parser.add_argument("--side", choices=("old", "sqlite", "postgresql"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        _serve(args.side, args.n, args.postgresql)
        return
    names = ["old"] * bool(args.old) + ["sqlite"] + ["postgresql"] * bool(args.postgresql)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        sides = {name: stack.enter_context(_Side(name, args, Path(folder) / name)) for name in names}
        results: dict[str, dict[str, Any]] = {name: {} for name in names}
        for work in ("record", "skip", "claim"):
            able = [name for name in names if (name, work) != ("old", "claim")]
            count = min(args.n, args.claims or args.n) if work == "claim" else args.n
            for turn, start in enumerate(range(0, count, ROUND)):
                for name in able[:: 1 if turn % 2 else -1]:
                    took = sides[name].ask(work, start)
                    total = results[name].setdefault(work, dict.fromkeys(FIELDS, 0.0))
                    for field in FIELDS:
                        total[field] += took[field]
                    if start < args.n // 10:
                        results[name][f"mb_early_in_{work}"] = took["mb"]
            for name in able:
                results[name][f"mb_after_{work}"] = sides[name].ask("nothing", 0)["mb"]
        for work in ("totals", "version", "paths", "names_in"):
            for name in names:
                results[name][work] = {field: sides[name].ask(work, 0)[field] for field in FIELDS}
    claims = min(args.n, args.claims or args.n)
    print(
        json.dumps({"files": args.n, "claims": claims, **_rounded(results, args.n, claims), "to_old": _ratios(results)})
    )


class _Side:
    """A child process with one ledger."""

    def __init__(self, name: str, args: argparse.Namespace, folder: Path) -> None:
        folder.mkdir()
        code = args.old / "app" if name == "old" else HERE
        command = [sys.executable, __file__, "--side", name, "--n", str(args.n)]
        command += ["--postgresql", args.postgresql] if name == "postgresql" else []
        environment = {**os.environ, "PYTHONPATH": str(code)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, cwd=folder, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> _Side:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, work: str, start: int) -> dict[str, float]:
        """Let it do one round; return what that took."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError
        stdin.write(f"{work} {start}\n")
        stdin.flush()
        answer: dict[str, float] = json.loads(stdout.readline())
        return answer


def _serve(side: str, n: int, url: str | None) -> None:
    """Do the rounds that the parent asks for, one a line."""
    ledger, unchanged = _open(side, url)
    record = import_module("app.library.records" if side == "old" else "app.catalog").FileRecord
    claimed: Any = None
    for line in sys.stdin:
        work, start = line.split()
        of_files = work in ("record", "skip", "claim")
        files = list(_files(record, int(start), min(int(start) + ROUND, n))) if of_files else []
        claimed = claimed or (_claimed(ledger) if work == "claim" else None)
        wall, cpu = time.perf_counter(), time.process_time()
        if work in ("record", "skip"):
            found = unchanged(files, BATCH if work == "record" else AT_ONCE)
            if found != (len(files) if work == "skip" else 0):
                raise AssertionError(found)
        if work == "record":
            for first in range(0, len(files), BATCH):
                ledger.record(files[first : first + BATCH])
        if work == "claim":
            _claim(claimed, files)
        _query(ledger, work, n)
        took = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        took["mb"] = _resident_mb()
        print(json.dumps(took), flush=True)


def _open(side: str, url: str | None) -> tuple[Any, Callable[[list[Any], int], int]]:
    """The ledger, and a function that returns how many files are unchanged, as the ingest of that version looks."""
    if side == "old":
        old = import_module("app.library.ledger").Ledger(Path("ledger.sqlite3"), COLLECTION)
        return old, lambda files, _: sum(old.file(one.path) == one for one in files)

    from app import catalog
    from app.library.reader import Reader

    path = Path("catalog.sqlite3").resolve()
    ledger = catalog.Ledger(catalog.open_postgresql(url), COLLECTION) if url else catalog.open_ledger(path, COLLECTION)
    reader = Reader(ledger, None, max_pixels=1, min_decoded_side=None, retry=False)  # type: ignore[arg-type]

    def unchanged(files: list[Any], at_once: int) -> int:
        found = 0
        for first in range(0, len(files), at_once):
            some = files[first : first + at_once]
            found += sum(one is not None for one in reader.unchanged(some))
        return found

    return ledger, unchanged


def _claimed(ledger: Any) -> Any:
    """The ledger of a worker that scans and has a job to itself."""
    from app.catalog import ClaimedLedger, Jobs, Worker

    worker = Worker(ledger.database, COLLECTION, "bench")
    worker.join()
    job_id = Jobs(ledger.database, COLLECTION).add("/photographs", {}, "bench")
    if worker.take_job() != job_id or not worker.hold("scan"):
        raise AssertionError
    return ClaimedLedger(worker, job_id)


def _claim(claimed: Any, files: list[Any]) -> None:

    records = {one.path: one for one in files}
    for first in range(0, len(files), ADDED):
        some = files[first : first + ADDED]
        claimed.add(some, first + len(some))
    finished = 0
    while taken := [records[one.path] for one in claimed.take(TAKEN)]:
        for first in range(0, len(taken), BATCH):
            batch = taken[first : first + BATCH]
            counts = claimed.record(batch, counts={"done": len(batch)})
            finished += counts["done"]
    if finished != len(files):
        raise AssertionError(finished)


def _files(record: Callable[..., Any], start: int, end: int) -> Iterator[Any]:
    """Results of files, 1,000 in a folder, in the order of a scan."""
    for number in range(start, end):
        path = f"/photographs/archive/{number // 1000:05}/a_photograph_{number:08}.jpg"
        image_id = hashlib.sha256(path.encode()).hexdigest()
        time_ns = 1_700_000_000_000_000_000 + number
        yield record(path, 1_000_000 + number, time_ns, image_id, "done", 1 + number % 3, None, None, time_ns)


def _query(ledger: Any, work: str, n: int) -> None:
    if work == "totals" and ledger.totals().done != n:
        raise AssertionError
    if work == "version":
        ledger.version()
    if work == "paths" and sum(map(len, ledger.paths("/"))) != n:
        raise AssertionError
    if work == "names_in" and not list(ledger.names_in(b"/photographs/archive/00000")):
        raise AssertionError


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


def _rounded(results: dict[str, dict[str, Any]], n: int, claims: int) -> dict[str, dict[str, Any]]:
    """Microseconds of a file for the passes, milliseconds for each query, megabytes."""
    scale = {"record": 1e6 / n, "skip": 1e6 / n, "claim": 1e6 / claims}
    return {
        name: {
            work: {field: round(took[field] * scale.get(work, 1e3), 2) for field in FIELDS}
            if isinstance(took, dict)
            else took
            for work, took in one.items()
        }
        for name, one in results.items()
    }


def _ratios(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """CPU seconds of each side by those of the old one."""
    old = results.get("old", {})
    return {
        name: {work: round(one[work]["cpu"] / took["cpu"], 3) for work, took in old.items() if isinstance(took, dict)}
        for name, one in results.items()
        if old and name != "old"
    }


if __name__ == "__main__":
    main()
