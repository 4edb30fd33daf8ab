"""Builds a damaged shard again from the faces that can be read: `python -m app.index.embedded.rebuild OPTIONS OLD NEW`.

Only vectors and payloads are read from the old shard. Everything else (payload indexes, deleted masks, quantized
vectors, the graph) is made anew. The work is done in a process of its own, because Edge may crash on damaged files.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np

from app.core.errors import OceanoError
from app.core.locks import try_lock
from app.index.embedded.options import OwnerOptions
from app.index.embedded.protocol import join_ids
from app.index.embedded.shard import Shard
from app.index.embedded.storage import LOCK, current_shard, new_name, set_current, wait_until_left
from app.index.errors import unavailable
from app.index.payload import is_intact

_log = logging.getLogger(__name__)

_PAGE_POINTS: Final = 500


def rebuild(options: OwnerOptions) -> int:
    """Replace the current shard by one with all faces that can be read; with none, if Edge cannot open it at all.

    Args:
        options: of the collection; no process may use it.

    Returns:
        The number of faces in the new shard.

    Raises:
        OceanoError: `index_in_use`, `index_unavailable`.
    """
    wait_until_left(options.folder)
    lock = try_lock(options.folder / LOCK)
    if lock is None:
        raise OceanoError("index_in_use", f"A process uses the index in {options.folder}; stop Oceano.")
    try:
        old = current_shard(options.folder)
        new = options.folder / new_name("shard")
        for source in (old, None):
            if (faces := _run(options, source, new)) is not None:
                set_current(new)
                if old is not None:
                    shutil.rmtree(old)
                return faces
            shutil.rmtree(new, ignore_errors=True)
        raise unavailable(f"The index in {options.folder} could not be built again; see the log.")
    finally:
        os.close(lock)


def _run(options: OwnerOptions, source: Path | None, target: Path) -> int | None:
    """Fill a new shard in another process; None if that fails."""
    arguments = [options.to_json(), "" if source is None else str(source), str(target)]
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-P", "-m", __name__, *arguments], stdout=subprocess.PIPE, check=False
    )
    if done.returncode != 0:
        _log.error("reading %s failed with exit code %d", source, done.returncode)
        return None
    faces: int = json.loads(done.stdout)
    return faces


def main(arguments: list[str]) -> None:
    """Copy the faces that can be read to a new shard, and print their number."""
    options = OwnerOptions.from_json(arguments[0])
    target = Shard.open(Path(arguments[2]), options)
    faces = _copy(Shard.open(Path(arguments[1]), options, checked=False), target) if arguments[1] else 0
    target.close()
    print(faces, flush=True)  # noqa: T201
    os._exit(0)  # without closing the old shard, which stays as it is


def _copy(source: Shard, target: Shard) -> int:
    offset, faces = None, 0
    while True:
        page, offset = source.scroll(_PAGE_POINTS, offset, {}, True)
        good = [
            (face_id, payload, vector)
            for face_id, payload, vector in page
            if vector is not None and is_intact(payload, np.frombuffer(vector, dtype=np.float32))
        ]
        if good:
            vectors = b"".join(vector for _, _, vector in good)
            ids = join_ids(face_id for face_id, _, _ in good)
            target.upsert(ids, vectors, [payload for _, payload, _ in good], overwrite=False)
            faces += len(good)
        if offset is None:
            return faces


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    main(sys.argv[1:])
