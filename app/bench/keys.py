"""What wrong keys cost others: a client's requests with and without a flood of wrong keys, by turns.

    .venv/bin/python app/bench/keys.py [--rate 167] [--addresses 1] [--seconds 20] [--rounds 3] [--pairs 1000]

Starts a service with the demo model. The flood sends `--rate` wrong keys per second (167: 10,000 a minute) from
`--addresses` addresses; with 16777216, no limit stops it. `other_ms` are another client's `GET /status` with a valid
key. `prefix` compares keys whose id exists with keys whose id does not, by turns: medians, and the share of pairs in
which the first took longer (0.5: they cannot be told apart). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx

from app.demo import write_demo_pack
from app.security.secrets import new_id, new_key
from tests.support.running import environment, oceano, service

_SENDERS = 8
_MANY = 1 << 24  # addresses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=167.0, help="wrong keys per second")
    parser.add_argument("--addresses", type=int, default=1, help="from which the wrong keys come")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=1000, help="of keys with a known and an unknown id")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_demo_pack(Path(folder) / "demo")
        env = environment(Path(folder) / "data", MODEL_NAME=Path(folder) / "demo", RATE_LIMIT_PER_MINUTE=0)
        key = oceano("keys", "add", "bench", "--role", "admin", env=env).stdout.strip()
        with service(env) as client:
            without, flooded, sent = _by_turns(client, key, asked)
            known, unknown = _prefixes(client, key.split("_")[1], asked.pairs)
    longer = sum(one > other for one, other in zip(known, unknown, strict=True)) / len(known)
    result = {
        "addresses": asked.addresses,
        "wrong_keys_per_minute": round(sent * 60),
        "other_ms": {"without": _summary(without), "flood": _summary(flooded)},
        "ratio_p50": round(statistics.median(flooded) / statistics.median(without), 3),
        "prefix": {
            "known_ms": round(statistics.median(known), 3),
            "unknown_ms": round(statistics.median(unknown), 3),
            "known_took_longer": round(longer, 3),
            "pairs": len(known),
        },
    }
    print(json.dumps(result))


def _by_turns(client: httpx.Client, key: str, asked: argparse.Namespace) -> tuple[list[float], list[float], float]:
    without: list[float] = []
    flooded: list[float] = []
    sent = 0
    for _ in range(asked.rounds):
        without += _times(client, key, asked.seconds)
        with ProcessPoolExecutor(1, get_context("forkserver")) as senders:
            flood = senders.submit(_flood, str(client.base_url), asked.rate, asked.seconds, asked.addresses)
            flooded += _times(client, key, asked.seconds)
            sent += flood.result()
    return without, flooded, sent / (asked.rounds * asked.seconds)


def _times(client: httpx.Client, key: str, seconds: float) -> list[float]:
    """The milliseconds of requests with a valid key."""
    end, times = time.monotonic() + seconds, []
    while time.monotonic() < end:
        start = time.perf_counter()
        client.get("/status", headers={"X-API-Key": key}).raise_for_status()
        times.append((time.perf_counter() - start) * 1000)
        time.sleep(0.02)
    return times


def _flood(address: str, rate: float, seconds: float, addresses: int) -> int:
    """Send wrong keys, in a process of its own: in this one, it would slow down the other client itself."""
    with ThreadPoolExecutor(_SENDERS) as senders:
        counts = [senders.submit(_send, address, rate / _SENDERS, seconds, addresses) for _ in range(_SENDERS)]
        return sum(count.result() for count in counts)


def _send(address: str, rate: float, seconds: float, addresses: int) -> int:
    rng, count, start = random.Random(), 0, time.monotonic()
    with httpx.Client(base_url=address, timeout=60) as client:
        while (now := time.monotonic() - start) < seconds:
            time.sleep(max(0.0, count / rate - now))
            _ask(client, new_key(new_id()), rng.randrange(addresses))
            count += 1
    return count


def _prefixes(client: httpx.Client, key_id: str, pairs: int) -> tuple[list[float], list[float]]:
    rng = random.Random(1)
    known: list[float] = []
    unknown: list[float] = []
    for _ in range(pairs):
        turns = [(known, key_id), (unknown, new_id())]
        rng.shuffle(turns)
        for times, prefix in turns:
            wrong = new_key(prefix)
            start = time.perf_counter()
            _ask(client, wrong, rng.randrange(_MANY))
            times.append((time.perf_counter() - start) * 1000)
    return known, unknown


def _ask(client: httpx.Client, key: str, number: int) -> None:
    from_there = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    answer = client.get("/status", headers={"X-API-Key": key, "X-Forwarded-For": from_there})
    assert answer.status_code in (401, 429), answer.text


def _summary(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50": round(statistics.median(ordered), 2),
        "p95": round(ordered[int(len(ordered) * 0.95)], 2),
        "n": len(ordered),
    }


if __name__ == "__main__":
    main()
