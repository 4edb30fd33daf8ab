"""The worker, reader and builder processes: `python -m app.index.embedded.worker serve|read|build`.

`serve` opens the shard, handles requests from an inherited socket one at a time, and exits when the owner closes the
connection. `read` does the same with a copy of the shard that nobody opens again. `build` builds the graph of a copy
that no other process has open, and exits; it is killed when the owner exits.
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
from app.core.memory import collect_rarely
from app.index.embedded.options import EXIT_BUILT, EXIT_NOTHING_TO_BUILD, OwnerOptions
from app.index.embedded.protocol import Op, Request, error_reply, unpack, value_reply
from app.index.embedded.shard import Shard
from app.index.errors import unavailable

log = logging.getLogger("app.index.embedded.worker")

# Lower priority than searches, but high enough to finish during an ingest on the same cores.
BUILD_NICENESS: Final = 5
# When to run Edge's own flush (see handler.py). The next start replays what is not flushed, 15,000 points/s.
FLUSH_POINTS: Final = 20_000
FLUSH_SECONDS: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> int:
    """Run a worker or a builder.

    Args:
        arguments: as `app.index.embedded.supervisor.command` passes them.

    Returns:
        The exit code.
    """
    task, options, folder, number = arguments
    # Only the owner stops a worker: a signal to the process group must not interrupt a write.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    collect_rarely()
    if task == "build":
        return build(Path(folder), OwnerOptions.from_json(options), owner=int(number))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(EOFError, ConnectionError):  # the owner closed the connection
        serve(Path(folder), OwnerOptions.from_json(options), Connection(int(number)), disposable=task == "read")
    return 0


def serve(folder: Path, options: OwnerOptions, connection: Connection, *, disposable: bool = False) -> None:
    """Open the shard, report the result, then handle requests until CLOSE.

    Args:
        folder: the shard.
        options: the owner's options.
        connection: to the owner; the first message is the reply to opening the shard.
        disposable: the shard is a copy that need not be flushed for durability, or closed.

    Raises:
        EOFError: the owner closed the connection.
        ConnectionError: the connection failed.
    """
    try:
        shard = Shard.open(folder, options, copy=disposable)
        connection.send_bytes(value_reply(None))
    except OceanoError as failure:
        connection.send_bytes(error_reply(failure))
        return
    with contextlib.nullcontext() if disposable else _closing(shard):
        while True:
            if shard.unflushed > FLUSH_POINTS or not (disposable or connection.poll(FLUSH_SECONDS)):
                shard.flush()
            request = unpack(connection.recv_bytes())
            if request.op is Op.CLOSE:
                shard.flush()
                connection.send_bytes(value_reply(None))
                return
            connection.send_bytes(_handle(shard, request))


def build(folder: Path, options: OwnerOptions, *, owner: int) -> int:
    """Build the graph of a copy, flush and close it.

    Args:
        folder: the copy of the shard.
        options: the owner's options.
        owner: the owner's process id.

    Returns:
        The exit code: EXIT_BUILT or EXIT_NOTHING_TO_BUILD; 1 if the owner has already exited.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:
        return 1
    os.nice(BUILD_NICENESS)
    with contextlib.suppress(OSError):  # if memory runs out, kill the build first
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


def _handle(shard: Shard, request: Request) -> bytes:
    try:
        return value_reply(_perform(shard, request))
    except OceanoError as failure:
        return error_reply(failure)
    except Exception as failure:  # reported to the client; the worker continues for other clients
        log.exception("%s failed", request.op.name)
        return error_reply(unavailable(f"The index failed: {type(failure).__name__}: {failure}"))


def _perform(shard: Shard, request: Request) -> Any:  # noqa: PLR0911, PLR0912 - one line per operation
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
        case Op.SEARCH_SCORES:
            return shard.search_scores(*body)
        case Op.SEARCH_EXACT:
            return shard.search_exact(*body)
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
    raise OceanoError("invalid_request", f"The index worker does not support the operation {request.op.name}.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
