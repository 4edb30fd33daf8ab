"""Run one fuzz target: `python -m tests.fuzz TARGET --seconds N`, in `app/`.

Coverage guides it if atheris is installed; otherwise it runs seeded random mutations of the seeds. It ends with code 0,
or at the first bug with 77; the input is then in the current folder as `crash-...`. `--reproduce FILE` runs it again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import itertools
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.fuzz import TARGETS

_MAX_BYTES: Final = 8192
_BUG_CODE: Final = 77  # as libFuzzer's


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="keeps inputs with new coverage; default: none")
    parser.add_argument("--keep-going", action="store_true", help="save the first input of each bug and continue")
    parser.add_argument("--reproduce", type=Path, metavar="FILE", help="run this input only")
    parser.add_argument("--without-atheris", action="store_true", help="run random mutations")
    options = parser.parse_args()
    atheris = None if options.without_atheris or options.reproduce else _atheris()
    if options.reproduce:
        importlib.import_module(f"tests.fuzz.{options.target}").fuzz_one(options.reproduce.read_bytes())
        return
    if options.corpus:
        options.corpus.mkdir(parents=True, exist_ok=True)
        _run(options, options.corpus, atheris)
    else:
        with tempfile.TemporaryDirectory(prefix="oceano-fuzz-") as folder:
            _run(options, Path(folder), atheris)


def _atheris() -> Any:
    try:
        import atheris
    except ImportError:
        return None
    return atheris


def _run(options: argparse.Namespace, corpus: Path, atheris: Any) -> None:
    if atheris is None:
        module = importlib.import_module(f"tests.fuzz.{options.target}")
        _mutate(_reporting(module.fuzz_one, options.keep_going), module.SEEDS, options.seconds, options.seed)
        return
    with atheris.instrument_imports(include=[*TARGETS[options.target]]):
        module = importlib.import_module(f"tests.fuzz.{options.target}")
    for seed in module.SEEDS:
        (corpus / f"seed-{hashlib.sha256(seed).hexdigest()[:16]}").write_bytes(seed)
    flags = {
        "max_total_time": options.seconds,
        "seed": options.seed,
        "max_len": max(_MAX_BYTES, *map(len, module.SEEDS)),
        "timeout": 30,  # seconds for one input; libFuzzer sets an alarm at half of it, which can end a threaded process
        "rss_limit_mb": 2048,
    }
    arguments = [sys.argv[0], str(corpus), *(f"-{name}={value}" for name, value in flags.items())]
    atheris.Setup(arguments, _reporting(module.fuzz_one, options.keep_going))
    atheris.Fuzz()


def _reporting(fuzz_one: Callable[[bytes], None], keep_going: bool) -> Callable[[bytes], None]:
    """With `keep_going`, print and save the first input of each bug instead of raising."""
    if not keep_going:
        return fuzz_one
    found: set[tuple[str, str, int | None]] = set()

    def fuzz_and_continue(data: bytes) -> None:
        try:
            fuzz_one(data)
        except Exception as failure:  # noqa: BLE001 - any exception is a bug
            last = traceback.extract_tb(failure.__traceback__)[-1]
            bug = (type(failure).__name__, last.filename, last.lineno)
            if bug not in found:
                found.add(bug)
                print(f"BUG {_saved(data)}", *traceback.format_exception(failure), flush=True)

    return fuzz_and_continue


def _saved(data: bytes) -> Path:
    path = Path(f"crash-{hashlib.sha256(data).hexdigest()[:16]}")
    path.write_bytes(data)
    return path


def _mutate(fuzz_one: Callable[[bytes], None], seeds: list[bytes], seconds: int, seed: int) -> None:
    """Run the seeds, then random mutations of them, for `seconds`."""
    end = time.monotonic() + seconds
    executions = 0
    for data in itertools.chain(seeds, _mutations(seeds, random.Random(seed))):
        try:
            fuzz_one(data)
        except Exception:  # noqa: BLE001 - any exception is a bug
            traceback.print_exc()
            print(f"a bug after {executions} runs; the input is in {_saved(data)}", file=sys.stderr)
            sys.exit(_BUG_CODE)
        executions += 1
        if executions > len(seeds) and time.monotonic() > end:
            break
    print(f"Done {executions} runs in {seconds} second(s)", file=sys.stderr)


def _mutations(seeds: list[bytes], dice: random.Random) -> Iterator[bytes]:
    while True:
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 8)):
            _change(data, dice)
        yield bytes(data)


def _change(data: bytearray, dice: random.Random) -> None:
    """Overwrite, insert, delete or repeat a few bytes."""
    start = dice.randint(0, len(data))
    size = min(dice.choice((1, 1, 2, 4, 16)), len(data) - start)
    match dice.randint(0, 3):
        case 0:
            data[start : start + size] = dice.randbytes(size)
        case 1:
            data[start:start] = dice.choice((b"\0", b"\xff", b"\n", b"\xff\xff\xff\xff", dice.randbytes(3)))
        case 2:
            del data[start : start + size]
        case _:
            data[start:start] = data[start : start + size]


if __name__ == "__main__":
    main()
