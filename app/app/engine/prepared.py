"""Graphs as ONNX Runtime has optimized them for this processor, kept from one start to the next.

Loading, rewriting and optimizing a recogniser of the size of ResNet-100 takes most of a start; for a small one,
importing InsightFace and onnx does. The optimized graph is used again if the model, the processor, the settings and
all versions are the same, and if its SHA-256 is unchanged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import onnxruntime

from app import __version__
from app.core.errors import OceanoError
from app.core.files import free_bytes, write_atomic
from app.core.onnx_graph import Graph, fingerprint

_log = logging.getLogger(__name__)

_KEPT: Final = 6  # graphs: detector and recogniser of three packs
_ABANDONED_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Cache:
    """Where graphs are kept.

    Attributes:
        folder: may be missing.
        identity: names the content of the models, the processor, and everything else that the graphs depend on.
    """

    folder: Path
    identity: str

    def entry(self, model: Path, variant: str) -> Entry:
        """Return where the optimized graph of a model is or would be.

        Args:
            model: the ONNX file.
            variant: names how the graph is changed before it is optimized.
        """
        about = "\n".join([self.identity, model.name, variant, onnxruntime.__version__, __version__])
        return Entry(self.folder, hashlib.sha256(about.encode()).hexdigest()[:32])


@dataclass(frozen=True, slots=True)
class Entry:
    """An optimized graph, which may not be there yet.

    Attributes:
        folder: where it is.
        key: names it.
    """

    folder: Path
    key: str

    @property
    def file(self) -> Path:
        """The optimized graph."""
        return self.folder / f"{self.key}.onnx"

    @property
    def _record(self) -> Path:
        return self.folder / f"{self.key}.json"

    def read(self) -> Graph | None:
        """Return the description of the graph; None if it is not there, or damaged."""
        try:
            record: dict[str, Any] = json.loads(self._record.read_bytes())
            graph = record["graph"]
            graph["input_size"] = tuple(graph["input_size"]) if graph["input_size"] else None
            if fingerprint(self.file).sha256 == record["sha256"]:
                return Graph(**graph)
            _log.warning("%s is damaged, so the model is prepared again", self.file)
        except FileNotFoundError:
            pass
        except (OSError, OceanoError, ValueError, KeyError, TypeError) as failure:
            _log.warning("%s is not readable, so the model is prepared again: %r", self._record, failure)
        return None

    def runs_batches(self) -> bool:
        """Whether `confirm_batches` was called for this graph, so that it need not be tried at each start."""
        try:
            return json.loads(self._record.read_bytes()).get("batches") is True
        except (OSError, ValueError, AttributeError):
            return False

    def confirm_batches(self) -> None:
        """Note that the graph returns the same for an image in a batch as alone."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            record = json.loads(self._record.read_bytes())
            write_atomic(self._record, json.dumps({**record, "batches": True}), durable=False)

    def new_file(self, size: int) -> Path | None:
        """Return a new empty file for ONNX Runtime to write to; None if the folder cannot be written.

        Args:
            size: bytes that must be free.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if free_bytes(self.folder) < size:
                return None
            for leftover in self.folder.glob(".new-*"):  # of processes that were killed
                if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                    leftover.unlink(missing_ok=True)
            handle, name = tempfile.mkstemp(prefix=".new-", suffix=".onnx", dir=self.folder)
            os.close(handle)
            return Path(name)
        except OSError as failure:
            _log.info("%s cannot be written, so the model is prepared at each start: %s", self.folder, failure)
            return None

    def keep(self, written: Path, graph: Graph) -> None:
        """Put a written file into use, and remove the oldest ones; a failure is logged.

        The files need not survive a power failure: then the hash differs.
        """
        try:
            sha256 = fingerprint(written).sha256
            written.replace(self.file)
            write_atomic(self._record, json.dumps({"sha256": sha256, "graph": asdict(graph)}), durable=False)
            records = sorted(self.folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
            for old in records[:-_KEPT]:
                old.unlink(missing_ok=True)
            used = {record.stem for record in records[-_KEPT:]}
            for file in self.folder.glob("*.onnx"):
                if file.stem not in used and not file.name.startswith(".new-"):
                    file.unlink(missing_ok=True)
        except (OSError, OceanoError) as failure:
            _log.warning("the prepared model cannot be kept in %s: %s", self.folder, failure)
