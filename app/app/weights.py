"""Model packs: find, pin, verify, install, list."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from app.downloads import Progress, download, room, unzip, verify, write_json
from app.errors import OceanoError
from app.graphs import ROLES, Fingerprint, Role, find_roles, fingerprint, is_there, onnx_files
from app.locks import locked
from app.types import ModelPack

PREPROCESSING_VERSION: Final = "1"
LICENSE_NOTE: Final = (
    "InsightFace's published weights are for non-commercial research only; any other use needs its makers' licence."
)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownPack:
    """A published zip of `size` bytes, and the base name and SHA-256 of the two members that matter (hex)."""

    url: str
    size: int
    sha256: str
    detector: tuple[str, str]
    recogniser: tuple[str, str]

    @property
    def files(self) -> Mapping[Role, tuple[str, str]]:
        return {"detector": self.detector, "recogniser": self.recogniser}


@dataclass(frozen=True, slots=True)
class PackStatus:
    """A pack as `list_packs` sees it; `verified` is None where there is nothing to compare with yet."""

    name: str
    folder: Path
    installed: bool
    verified: bool | None
    digest: str | None
    message: str


KNOWN_PACKS: Final[Mapping[str, KnownPack]] = MappingProxyType(
    {
        "antelopev2": KnownPack(
            url="https://github.com/deepinsight/insightface/releases/download/v0.7/antelopev2.zip",
            size=360_662_982,
            sha256="8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
            detector=("scrfd_10g_bnkps.onnx", "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"),
            recogniser=("glintr100.onnx", "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf"),
        )
    }
)


def find_pack(name_or_folder: str, models_dir: Path) -> ModelPack:
    """The pack of that name under `models_dir`, or in that folder, its two files verified.

    A known pack is compared with its published SHA-256, any other with those of its first use.
    Raises OceanoError `model_not_found`, `model_corrupt`.
    """
    return _checked(_place(name_or_folder, models_dir), rehash=False)


def verify_pack(name_or_folder: str, models_dir: Path) -> ModelPack:
    """Like `find_pack`, but reads and hashes both files even where they look untouched."""
    return _checked(_place(name_or_folder, models_dir), rehash=True)


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
    place = _place(name, models_dir)
    if _pins_of(place):
        _remember(place, {})


def list_packs(models_dir: Path) -> list[PackStatus]:
    """What lies under `models_dir`, and the known packs that do not yet; writes and pins nothing."""
    folders = [path for path in models_dir.iterdir() if path.is_dir()] if models_dir.is_dir() else []
    names = {path.name for path in folders if _NAME.fullmatch(path.name) and onnx_files(_nested(path))}
    return [_status(_place(name, models_dir)) for name in sorted(names | set(KNOWN_PACKS))]


def install_pack(
    name: str,
    models_dir: Path,
    *,
    url: str | None = None,
    archive: Path | None = None,
    progress: Progress | None = None,
    known: KnownPack | None = None,
) -> ModelPack:
    """Put the pack `name` under `models_dir`, from the zip `archive` if given, else from `url`.

    `progress` gets the bytes there so far and in total (None: not told). A good pack stays as it is, altered
    files are set aside as `*.corrupt`, and what was downloaded waits for the next try. Raises OceanoError
    `model_download_failed`, `model_corrupt`, `model_not_found` (no such source, or no such models in it),
    `disk_full`, `invalid_request` (the name).
    """
    if not _NAME.fullmatch(name):
        raise OceanoError("invalid_request", f"a pack's name has letters, digits, '.', '_' and '-', not {name!r}")
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with locked(models_dir / ".install.lock"), room(models_dir, lambda: 0):
            return _install(_place(name, models_dir, known), url, archive, progress)
    except OSError as failure:
        message = f"the pack {name} cannot be written under {models_dir}: {failure}"
        raise OceanoError("model_download_failed", message, details={"pack": name}) from failure


# --- where a pack lies, and whether it is what it was


@dataclass(frozen=True, slots=True)
class _Place:
    """A pack's folder; `key` names it in `pins.json`: its name under `models_dir`, else the folder's path."""

    name: str
    key: str
    folder: Path
    models_dir: Path
    known: KnownPack | None


_Pins = dict[Role, Fingerprint]


def _place(name_or_folder: str, models_dir: Path, known: KnownPack | None = None) -> _Place:
    if _NAME.fullmatch(name_or_folder):
        name, folder = name_or_folder, _nested(models_dir / name_or_folder)
        return _Place(name, name, folder, models_dir, known or KNOWN_PACKS.get(name))
    outer = Path(os.path.normpath(Path(name_or_folder).expanduser().absolute()))
    name, folder = re.sub(r"[^A-Za-z0-9._-]", "_", outer.name) or "pack", _nested(outer)
    known = KNOWN_PACKS.get(name)
    if known and not all(is_there(folder / file) for file, _ in known.files.values()):
        known = None  # somebody's own models in a folder that happens to have the name
    return _Place(name, str(folder), folder, models_dir, known)


def _nested(folder: Path) -> Path:
    """Unzipping a published pack by hand gives `NAME/NAME/*.onnx`."""
    inner = folder / folder.name
    return inner if onnx_files(inner) and not onnx_files(folder) else folder


def _status(place: _Place) -> PackStatus:
    try:
        pins = _pins_of(place)
        pack, _ = _compare(place, pins)
    except OceanoError as failure:
        corrupt = failure.code == "model_corrupt"
        return PackStatus(place.name, place.folder, corrupt, False if corrupt else None, None, failure.message)
    if place.known or pins:
        return PackStatus(place.name, place.folder, True, True, pack.digest, "verified")
    return PackStatus(place.name, place.folder, True, None, pack.digest, "not used yet: pinned at its first use")


def _checked(place: _Place, *, rehash: bool) -> ModelPack:
    pins = _pins_of(place)
    pack, found = _compare(place, pins, rehash=rehash)
    if found != pins:
        _remember(place, found)
    return pack


def _compare(place: _Place, pins: _Pins, *, rehash: bool = False) -> tuple[ModelPack, _Pins]:
    wanted = _wanted(place, pins)
    files = _files(place, wanted)
    found = {role: fingerprint(path, None if rehash else pins.get(role)) for role, path in files.items()}
    for role, (_, sha256) in wanted.items():
        if found[role].sha256 != sha256:
            raise _altered(place, files[role], sha256, found[role].sha256)
    text = f"{found['detector'].sha256}\n{found['recogniser'].sha256}\n{PREPROCESSING_VERSION}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return ModelPack(place.name, place.folder, files["detector"], files["recogniser"], digest), found


def _wanted(place: _Place, pins: _Pins) -> Mapping[Role, tuple[str, str]]:
    """Each file's name and SHA-256, as published or as at the first use; none before that."""
    return place.known.files if place.known else {role: (pin.file, pin.sha256) for role, pin in pins.items()}


def _files(place: _Place, wanted: Mapping[Role, tuple[str, str]]) -> dict[Role, Path]:
    """By their names, or else, where the names were not published, by a look into each file."""
    files = {role: place.folder / name for role, (name, _) in wanted.items()}
    missing = [path.name for path in files.values() if not is_there(path)]
    if files and not missing:
        return files
    if place.known:
        raise _not_found(place, f"{' and '.join(missing)} missing or out of reach")
    try:
        return find_roles(place.folder)
    except OceanoError as failure:
        raise _not_found(place, failure.message) from failure


def _altered(place: _Place, path: Path, expected: str, found: str) -> OceanoError:
    if not place.known:
        pins = place.models_dir / "pins.json"
        remedy = f"put the file of its first use back or, if the change is meant, delete {place.key!r} from {pins}"
    elif place.key == place.name:
        remedy = f"`oceano models install {place.name}` sets it aside and fetches it again"
    else:
        remedy = "put the published file in its place"
    return OceanoError(
        "model_corrupt",
        f"{path} was altered: its SHA-256 is {found}, expected {expected}; {remedy}",
        details={"pack": place.name, "file": str(path), "expected": expected, "found": found},
    )


def _not_found(place: _Place, why: str) -> OceanoError:
    return OceanoError(
        "model_not_found",
        f"no model pack in {place.folder} ({why}): `oceano models install {place.name}`, {_by_hand(place)}, "
        "or set MODEL_NAME to a folder that holds a pack",
        details={"pack": place.name, "folder": str(place.folder)},
    )


def _by_hand(place: _Place) -> str:
    files = " and ".join(name for name, _ in place.known.files.values()) if place.known else "its two .onnx files"
    return (
        f"or fetch its zip elsewhere and `oceano models install {place.name} --archive FILE.zip`, "
        f"or put {files} into {place.models_dir / place.name}"
    )


# --- pins.json: what packs were at their first use, and how their files looked when they were hashed


def _pins_of(place: _Place) -> _Pins:
    return _read_pins(place.models_dir).get(place.key, {})


def _read_pins(models_dir: Path) -> dict[str, _Pins]:
    path = models_dir / "pins.json"
    try:
        packs = json.loads(path.read_bytes())
        return {key: {role: _pin(**pins[role]) for role in ROLES} for key, pins in packs.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as failure:
        why = f"{path} cannot be read ({failure!r}): repair it, or delete it to trust the model files as they are now"
        raise OceanoError("model_corrupt", why, details={"file": str(path)}) from failure


def _pin(*, file: str, sha256: str, stamp: list[int] | None) -> Fingerprint:
    return Fingerprint(file, sha256, tuple(stamp) if stamp else None)


def _remember(place: _Place, found: _Pins) -> None:
    try:
        place.models_dir.mkdir(parents=True, exist_ok=True)
        with locked(place.models_dir / ".pins.lock"):
            packs = {**_read_pins(place.models_dir), place.key: found}
            raw = {key: {role: asdict(pin) for role, pin in pins.items()} for key, pins in packs.items() if pins}
            write_json(place.models_dir / "pins.json", raw)
    except OSError as failure:
        log.warning("the digest of %s cannot be pinned under %s: %s", place.key, place.models_dir, failure)


# --- install


def _install(place: _Place, url: str | None, archive: Path | None, progress: Progress | None) -> ModelPack:
    source = archive or url or (place.known.url if place.known else None)
    try:
        return _checked(place, rehash=True)
    except OceanoError as failure:
        if not source:
            raise
        if archive and not archive.is_file():
            raise OceanoError("model_not_found", f"no such zip: {archive}", details={"file": str(archive)}) from None
        if failure.code == "model_corrupt":
            _set_aside_altered(place)
    log.info("%s: %s", place.name, LICENSE_NOTE)
    found = _unpack(place, source) if isinstance(source, Path) else _fetched(place, source, progress)
    _remember(place, found)
    return _compare(place, found)[0]


def _set_aside_altered(place: _Place) -> None:
    wanted = _wanted(place, _pins_of(place))
    files = _files(place, wanted)
    for role, (_, sha256) in wanted.items():
        path = files[role]
        if fingerprint(path).sha256 != sha256:
            path.replace(path.with_name(f"{path.name}.corrupt"))


def _fetched(place: _Place, url: str, progress: Progress | None) -> _Pins:
    part, size = place.models_dir / f"{place.name}.zip.part", place.known.size if place.known else None
    return download(
        url, part, lambda file: _unpack(place, file), size=size, progress=progress, otherwise=_by_hand(place)
    )


def _unpack(place: _Place, archive: Path) -> _Pins:
    """Put the two files that matter into their places, each checked before."""
    if place.known:
        verify(archive, place.known.size, place.known.sha256)
    aside = place.folder / ".unpack"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        unzip(archive, aside, [name for name, _ in place.known.files.values()] if place.known else ["*.onnx"])
        _, found = _compare(replace(place, folder=aside), {})
        for pin in found.values():
            (aside / pin.file).replace(place.folder / pin.file)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return found
