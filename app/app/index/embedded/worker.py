"""The process that holds the shard: `python -m app.index.embedded.worker serve|build`.

`serve` answers one request after the other on the socket it was given, and ends when the owner hangs up. `build`
makes the graph of a copy that nobody else has open, and ends; it dies with its owner.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from app.core.errors import OceanoError
from app.index.embedded.options import EXIT_BUILT, EXIT_NOTHING_TO_BUILD, OwnerOptions
from app.index.embedded.protocol import Op, Request, answer, refusal, unavailable, unpack
from app.index.embedded.shard import Shard

log = logging.getLogger("app.index.embedded.worker")

# Behind searches, but not so far behind an ingest on the same cores that a build never ends.
BUILD_NICENESS: Final = 5
# When Edge's own flush is due (see service.py): what is not flushed is replayed at the next start, 15,000 points/s.
FLUSH_POINTS: Final = 20_000
FLUSH_SECONDS: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> int:
    task, options, folder, number = arguments
    # Only the owner ends a worker, so that a signal to the whole group cannot cut a write short.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    if task == "build":
        return build(Path(folder), OwnerOptions.from_json(options), owner=int(number))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(EOFError, ConnectionError):  # the owner is gone
        serve(Path(folder), OwnerOptions.from_json(options), Connection(int(number)))
    return 0


def serve(folder: Path, options: OwnerOptions, connection: Connection) -> None:
    """Open the shard, say so (or why not), then answer until told to close or the owner hangs up."""
    try:
        shard = Shard.open(folder, options)
        connection.send_bytes(answer(None))
    except OceanoError as failure:
        connection.send_bytes(refusal(failure))
        return
    with _closing(shard):
        while True:
            if shard.unflushed > FLUSH_POINTS or not connection.poll(FLUSH_SECONDS):
                shard.flush()
            request = unpack(connection.recv_bytes())
            if request.op is Op.CLOSE:
                shard.flush()
                connection.send_bytes(answer(None))
                return
            connection.send_bytes(_answer(shard, request))


def build(folder: Path, options: OwnerOptions, *, owner: int) -> int:
    """Bring the points of this copy into one graph, then leave it closed and flushed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:
        return 1
    os.nice(BUILD_NICENESS)
    with contextlib.suppress(OSError):  # if memory runs out, rather the build than the search
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    shard = Shard.open(folder, options)
    built = shard.optimize()
    shard.close()
    return EXIT_BUILT if built else EXIT_NOTHING_TO_BUILD


@contextlib.contextmanager
def _closing(shard: Shard) -> Iterator[None]:
    try:
        yield
    finally:
        shard.close()


def _answer(shard: Shard, request: Request) -> bytes:
    try:
        return answer(_perform(shard, request))
    except OceanoError as failure:
        return refusal(failure)
    except Exception as failure:  # the worker serves others too; whoever asked gets the failure
        log.exception("%s failed", request.op.name)
        return refusal(unavailable(f"The index failed: {type(failure).__name__}: {failure}"))


def _perform(shard: Shard, request: Request) -> Any:  # noqa: PLR0911 - one line per operation
    body = request.load()
    match request.op:
        case Op.UPSERT:
            return shard.upsert(request.ids, *body, overwrite=False)
        case Op.PUT:
            return shard.upsert(request.ids, *body, overwrite=True)
        case Op.FLUSH:
            return shard.flush()
        case Op.SEARCH:
            return shard.search(*body)
        case Op.RETRIEVE:
            return shard.retrieve(request.ids, body)
        case Op.SCROLL:
            return shard.scroll(*body)
        case Op.SET_PAYLOAD:
            return shard.set_payload(request.ids, body)
        case Op.DELETE:
            return shard.delete(request.ids)
        case Op.COUNT:
            return shard.count(body)
        case Op.FACET:
            return shard.facet(*body)
        case Op.INFO:
            return shard.sizes()
    raise OceanoError("invalid_request", f"The index's worker does not know {request.op.name}.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
