"""The quantized recogniser of a pack, in `models/NAME/int8`, and the digest of a pack in a precision.

The file is named by its SHA-256, and a JSON file, named by the digest of the pack that it was made from, refers to it.
The JSON file is written last and replaced at once, so after a kill, either the old file or the new one is in use.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from app.core.errors import ErrorCode, JsonValue, OceanoError, is_full
from app.core.files import sync, write_atomic
from app.core.locks import try_lock
from app.core.onnx_graph import fingerprint
from app.core.types import ModelPack

_LEFTOVERS: Final = (".quantize-*", ".new-*", ".*.tmp")


@dataclass(frozen=True, slots=True)
class QuantizationTarget:
    """The file that a recogniser is quantized to, while no other process can do the same.

    Attributes:
        pack: the pack in fp32.
        target: the file to write.
    """

    pack: ModelPack
    target: Path


def in_precision(pack: ModelPack, precision: str, models_dir: Path) -> ModelPack:
    """Return a pack as it is used in a precision. In fp16 and int8 the embeddings differ, and so does the digest.

    Args:
        pack: the pack as found, with the digest of fp32.
        precision: a value of PRECISION.
        models_dir: the folder of model packs, with the quantized files.

    Returns:
        The pack; in int8, its recogniser is the quantized file.

    Raises:
        OceanoError: `model_not_found` if it has not been quantized; `model_corrupt` if the quantized file was altered.
    """
    if precision == "int8":
        return _in_int8(pack, models_dir)
    return replace(pack, digest=_digest(pack, precision)) if precision == "fp16" else pack


@contextmanager
def quantizing(pack: ModelPack, models_dir: Path) -> Iterator[QuantizationTarget]:
    """Prepare the folder of a quantized file, and remove what a killed process left there.

    Args:
        pack: the pack in fp32.
        models_dir: the folder of model packs.

    Raises:
        OceanoError: `quantization_failed` if another process quantizes this pack, or the folder cannot be written;
            `disk_full`.
    """
    folder = _folder(pack, models_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = try_lock(folder / ".lock")
        if lock is None:
            message = f"another process is quantizing {pack.name}: wait until it has finished"
            raise OceanoError("quantization_failed", message, details={"pack": pack.name})
        try:
            _remove_leftovers(folder)
            yield QuantizationTarget(pack, folder / f".new-{pack.digest[:16]}.onnx")
        finally:
            _remove_leftovers(folder)
            os.close(lock)
    except OSError as failure:
        code: ErrorCode = "disk_full" if is_full(failure) else "quantization_failed"
        message = f"{pack.name} cannot be quantized in {folder}: {failure.strerror or failure}"
        raise OceanoError(code, message, details={"folder": str(folder)}) from failure


def keep_quantized(work: QuantizationTarget, about: Mapping[str, JsonValue]) -> ModelPack:
    """Put the written file into use, in place of an earlier one.

    Args:
        work: as `quantizing` yields it; the target has been written.
        about: how it was made, for people who read the file.

    Returns:
        The pack in int8.

    Raises:
        OSError: the disk is full or cannot be written; the earlier file stays in use.
    """
    folder = work.target.parent
    sha256 = fingerprint(work.target).sha256
    file = folder / f"{sha256[:16]}.onnx"
    sync(work.target)
    work.target.replace(file)
    sync(folder)
    record = {"file": file.name, "sha256": sha256, "pack": work.pack.digest, **about}
    write_atomic(_record_path(work.pack, folder), json.dumps(record, indent=1) + "\n")
    sync(folder.parent)
    used = {_read(path).get("file") for path in folder.glob("*.json")}
    for other in folder.glob("*.onnx"):
        if other.name not in used:
            other.unlink(missing_ok=True)
    return _in_int8(work.pack, folder.parent.parent)


def _in_int8(pack: ModelPack, models_dir: Path) -> ModelPack:
    folder = _folder(pack, models_dir)
    path = _record_path(pack, folder)
    record = _read(path)
    name, sha256 = record.get("file"), record.get("sha256")
    command = f"`oceano models quantize {pack.name} --photographs FOLDER`"
    if not isinstance(name, str) or not isinstance(sha256, str) or not (folder / name).is_file():
        raise OceanoError(
            "model_not_found",
            f"PRECISION=int8, but {pack.name} has not been quantized: run {command}, or set PRECISION=auto",
            details={"pack": pack.name, "folder": str(folder)},
        )
    found = fingerprint(folder / name)
    if found.sha256 != sha256:
        raise OceanoError(
            "model_corrupt",
            f"{folder / name} has been altered: its SHA-256 is {found.sha256}, expected {sha256}; run {command} again",
            details={"pack": pack.name, "file": str(folder / name), "expected": sha256, "found": found.sha256},
        )
    return replace(pack, recogniser=folder / name, digest=_digest(pack, f"int8\n{sha256}"))


def _digest(pack: ModelPack, precision: str) -> str:
    return hashlib.sha256(f"{pack.digest}\n{precision}".encode()).hexdigest()


def _folder(pack: ModelPack, models_dir: Path) -> Path:
    return models_dir / pack.name / "int8"


def _record_path(pack: ModelPack, folder: Path) -> Path:
    return folder / f"{pack.digest[:16]}.json"


def _read(path: Path) -> dict[str, Any]:
    """Read a record; one that is missing or unreadable is empty, since the file can be made again."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _remove_leftovers(folder: Path) -> None:
    for pattern in _LEFTOVERS:
        for path in folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
