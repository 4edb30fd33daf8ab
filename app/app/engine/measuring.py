"""Measures what runs a network fastest, in a process of its own (`engine/trial`), and keeps the figures in a file."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from app.core.errors import OceanoError
from app.core.files import write_atomic
from app.core.locks import try_lock
from app.core.types import Precision, Runtime, RuntimeTrial
from app.engine.prepared import Cache

_log = logging.getLogger(__name__)

Way = tuple[Runtime, Precision]

_SECONDS: Final = 180.0  # for a measurement to end, and for another process that measures; with less priority ten times
_MEASURED_SECONDS: Final = 1.0  # CPU time of the runs of a runtime and of the one that it is compared with
_KEPT: Final = 50  # results in the file
_CRASHES: Final = (signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure.

    Attributes:
        model: the ONNX file.
        ways: runtimes and precisions; the others are compared with the first.
        free_batch: make the batch dimension dynamic, as the engine does, so that a kept graph is used.
        cache: where prepared graphs are kept; None: nowhere.
        niceness: added to that of this process.
    """

    model: Path
    ways: tuple[Way, ...]
    free_batch: bool
    cache: Cache | None
    niceness: int = 0


def kept_trials(file: Path) -> dict[str, tuple[RuntimeTrial, ...]]:
    """Read the results; an unreadable file has none, since they can be measured again."""
    try:
        stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {key: tuple(RuntimeTrial(**one) for one in trials) for key, trials in stored.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as failure:
        _log.warning("%s is not readable, so the runtimes are measured again: %s", file, failure)
        return {}


def measured_trials(file: Path, key: str, job: Job) -> tuple[RuntimeTrial, ...]:
    """Measure unless there is a result in the file, and keep the new one; only one process measures at a time.

    Args:
        file: of the results; its folder may be missing.
        key: names what the result is valid for.
        job: what to measure.

    Returns:
        The result for each of the job's ways; empty if there is none, so that it is measured another time.
    """
    with _alone(file.with_suffix(".lock")) as alone:
        known = kept_trials(file)
        if key in known or not alone:
            return known.get(key, ())
        _log.info("measuring which runtime is the fastest for %s", job.model.name)
        trials = _measured(job)
        for one in trials:
            _log.info("%s, cosine %s", described(one), one.cosine)
        if trials and trials[0].milliseconds is not None:  # without the first one, nothing can be compared
            _write(file, {**known, key: trials})
        return trials


def described(trial: RuntimeTrial) -> str:
    """Return the figure of one runtime, or why it has none."""
    name = f"{trial.runtime} {trial.precision}"
    return f"{name} {trial.milliseconds:.1f} ms" if trial.milliseconds is not None else f"{name}: {trial.problem}"


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Wait until no other process measures; yield False if that takes too long."""
    handle, end = None, time.monotonic() + _SECONDS
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while (handle := try_lock(path)) is None and time.monotonic() < end:
            time.sleep(0.2)
        alone = handle is not None
    except (OSError, OceanoError) as failure:
        _log.info("runtimes are measured without a lock: %s", failure)
        alone = True
    try:
        yield alone
    finally:
        if handle is not None:
            os.close(handle)


def _measured(job: Job) -> tuple[RuntimeTrial, ...]:
    """Run the process; what it printed before it crashed counts."""
    said = json.dumps({**asdict(job), "seconds": _MEASURED_SECONDS}, default=str)
    command = [sys.executable, "-P", "-m", "app.engine.trial", said, str(os.getpid())]
    seconds = _SECONDS * (10 if job.niceness else 1)
    try:
        ended = subprocess.run(command, capture_output=True, timeout=seconds, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as failure:
        _log.warning("the runtimes were not measured (if this repeats, set RUNTIME=onnxruntime): %s", failure)
        return ()
    trials = [RuntimeTrial(**one) for one in _last_list(ended.stdout)]
    if len(trials) == len(job.ways) or (trials and trials[0].milliseconds is None):
        return tuple(trials)
    if -ended.returncode in _CRASHES:
        problem = f"crashed with {signal.Signals(-ended.returncode).name}"
    elif ended.returncode < 0:  # stopped from outside, or for want of memory: says nothing about the runtime
        _log.warning("the measurement of the runtimes was stopped with %s", signal.Signals(-ended.returncode).name)
        return ()
    else:
        lines = ended.stderr.decode(errors="replace").strip().splitlines()
        problem = lines[-1] if lines else f"exit code {ended.returncode}"
    crashed, *others = job.ways[len(trials) :]
    trials.append(RuntimeTrial(*crashed, None, None, problem))
    return (*trials, *(RuntimeTrial(*way, None, None, f"not tried after {' '.join(crashed)}") for way in others))


def _last_list(output: bytes) -> list[dict[str, Any]]:
    """Return the last complete line that is a list; libraries may print others."""
    for line in reversed(output.splitlines(keepends=True)):
        if line.startswith(b"[{") and line.endswith(b"\n"):
            found: list[dict[str, Any]] = json.loads(line)
            return found
    return []


def _write(file: Path, results: dict[str, tuple[RuntimeTrial, ...]]) -> None:
    newest = dict(list(results.items())[-_KEPT:])
    try:
        text = json.dumps({key: [asdict(one) for one in trials] for key, trials in newest.items()}, indent=1)
        write_atomic(file, text + "\n")
    except OSError as failure:
        _log.warning("%s cannot be written, so the runtimes are measured again next time: %s", file, failure)
