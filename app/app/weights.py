"""Model packs: find, download, verify, unpack."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import lzma
import os
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn
from urllib.parse import urlsplit

import requests
import tenacity
from requests.exceptions import ChunkedEncodingError

from app.errors import OceanoError
from app.types import EMBEDDING_SIZE, ModelPack

PREPROCESSING_VERSION: Final = "1"
LICENSE_NOTE: Final = (
    "InsightFace's published weights are for non-commercial research only; any other use needs its makers' licence."
)

Role = Literal["detector", "recogniser"]
Progress = Callable[[int, int | None], None]

_ROLES: Final[tuple[Role, Role]] = ("detector", "recogniser")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_BYTES: Final = 4 * 2**30  # of a zip that is not known, and of what is unpacked from any
_CHUNK: Final = 128 * 1024
_TIMEOUT: Final = (10.0, 60.0)  # seconds to connect, seconds between two chunks
_ATTEMPTS: Final = 5
_WAIT: Final = tenacity.wait_exponential_jitter(initial=1, max=20)
_SETTLED_NS: Final = 2 * 10**9
# RuntimeError: encrypted, or a compression that zipfile does not know.
_ZIP_ERRORS: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)

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


def list_packs(models_dir: Path) -> list[PackStatus]:
    """What lies under `models_dir`, and the known packs that do not yet; writes and pins nothing."""
    folders = [path for path in models_dir.iterdir() if path.is_dir()] if models_dir.is_dir() else []
    names = {path.name for path in folders if _NAME.fullmatch(path.name) and _onnx_files(_nested(path))}
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
        with _locked(models_dir / ".install.lock"), _room(models_dir, lambda: 0):
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


@dataclass(frozen=True, slots=True)
class _Pin:
    """A file as hashed; `stamp` is its size (bytes), mtime (ns) and inode, None where that proves nothing."""

    file: str
    sha256: str
    stamp: tuple[int, ...] | None


_Pins = dict[Role, _Pin]


def _place(name_or_folder: str, models_dir: Path, known: KnownPack | None = None) -> _Place:
    if _NAME.fullmatch(name_or_folder):
        name, folder = name_or_folder, _nested(models_dir / name_or_folder)
        return _Place(name, name, folder, models_dir, known or KNOWN_PACKS.get(name))
    outer = Path(os.path.normpath(Path(name_or_folder).expanduser().absolute()))
    name, folder = re.sub(r"[^A-Za-z0-9._-]", "_", outer.name) or "pack", _nested(outer)
    known = KNOWN_PACKS.get(name)
    if known and not all(_is_there(folder / file) for file, _ in known.files.values()):
        known = None  # somebody's own models in a folder that happens to have the name
    return _Place(name, str(folder), folder, models_dir, known)


def _nested(folder: Path) -> Path:
    """Unzipping a published pack by hand gives `NAME/NAME/*.onnx`."""
    inner = folder / folder.name
    return inner if _onnx_files(inner) and not _onnx_files(folder) else folder


def _onnx_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.glob("*.onnx") if path.is_file() and not path.name.startswith("."))
    except OSError:  # it may not be entered
        return []


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # its folder may not be entered
        return False


def _status(place: _Place) -> PackStatus:
    try:
        pins = _read_pins(place.models_dir).get(place.key, {})
        pack, _ = _compare(place, pins)
    except OceanoError as failure:
        corrupt = failure.code == "model_corrupt"
        return PackStatus(place.name, place.folder, corrupt, False if corrupt else None, None, failure.message)
    if place.known or pins:
        return PackStatus(place.name, place.folder, True, True, pack.digest, "verified")
    return PackStatus(place.name, place.folder, True, None, pack.digest, "not used yet: pinned at its first use")


def _checked(place: _Place, *, rehash: bool) -> ModelPack:
    pins = _read_pins(place.models_dir).get(place.key, {})
    pack, found = _compare(place, pins, rehash=rehash)
    if found != pins:
        _remember(place, found)
    return pack


def _compare(place: _Place, pins: _Pins, *, rehash: bool = False) -> tuple[ModelPack, _Pins]:
    files = _files(place, pins)
    found = {role: _hashed(path, None if rehash else pins.get(role)) for role, path in files.items()}
    for role, pin in found.items():
        if pin.sha256 != _expected(place, pins, role, pin.sha256):
            _raise_altered(place, files[role], _expected(place, pins, role, ""), pin.sha256)
    text = f"{found['detector'].sha256}\n{found['recogniser'].sha256}\n{PREPROCESSING_VERSION}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return ModelPack(place.name, place.folder, files["detector"], files["recogniser"], digest), found


def _expected(place: _Place, pins: _Pins, role: Role, otherwise: str) -> str:
    if place.known:
        return place.known.files[role][1]
    return pins[role].sha256 if pins else otherwise


def _files(place: _Place, pins: _Pins) -> dict[Role, Path]:
    """By the published names, by the pinned ones, or by a look into each file."""
    if place.known:
        files = {role: place.folder / name for role, (name, _) in place.known.files.items()}
    else:
        files = {role: place.folder / pin.file for role, pin in pins.items()}
    missing = [path.name for path in files.values() if not _is_there(path)]
    if files and not missing:
        return files
    if place.known:
        _raise_not_found(place, f"{' and '.join(missing)} missing or out of reach")
    return _identified(place)


def _hashed(path: Path, pin: _Pin | None) -> _Pin:
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            stamp = (info.st_size, info.st_mtime_ns, info.st_ino)
            if pin and (pin.file, pin.stamp) == (path.name, stamp):
                return pin
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as failure:
        raise OceanoError(
            "model_corrupt", f"{path} cannot be read: {failure}", details={"file": str(path)}
        ) from failure
    # Two writes within one tick of the file system's clock leave the same mtime: not to be told apart by it.
    settled = time.time_ns() - info.st_mtime_ns > _SETTLED_NS
    return _Pin(path.name, sha256, stamp if settled else None)


def _raise_altered(place: _Place, path: Path, expected: str, found: str) -> NoReturn:
    if not place.known:
        pins = place.models_dir / "pins.json"
        remedy = f"put the file of its first use back or, if the change is meant, delete {place.key!r} from {pins}"
    elif place.key == place.name:
        remedy = f"`oceano models install {place.name}` sets it aside and fetches it again"
    else:
        remedy = "put the published file in its place"
    raise OceanoError(
        "model_corrupt",
        f"{path} was altered: its SHA-256 is {found}, expected {expected}; {remedy}",
        details={"pack": place.name, "file": str(path), "expected": expected, "found": found},
    )


def _raise_not_found(place: _Place, why: str) -> NoReturn:
    raise OceanoError(
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


def _read_pins(models_dir: Path) -> dict[str, _Pins]:
    path = models_dir / "pins.json"
    try:
        packs = json.loads(path.read_bytes())
        return {key: {role: _pin(**pins[role]) for role in _ROLES} for key, pins in packs.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as failure:
        message = (
            f"{path} cannot be read ({failure!r}): repair it, or delete it to trust the model files as they are now"
        )
        raise OceanoError("model_corrupt", message, details={"file": str(path)}) from failure


def _pin(*, file: str, sha256: str, stamp: list[int] | None) -> _Pin:
    return _Pin(file, sha256, tuple(stamp) if stamp else None)


def _remember(place: _Place, found: _Pins) -> None:
    try:
        place.models_dir.mkdir(parents=True, exist_ok=True)
        with _locked(place.models_dir / ".pins.lock"):
            packs = {**_read_pins(place.models_dir), place.key: found}
            raw = {key: {role: asdict(pin) for role, pin in pins.items()} for key, pins in packs.items()}
            _write_json(place.models_dir / "pins.json", raw)
    except OSError as failure:
        log.warning("the digest of %s cannot be pinned under %s: %s", place.key, place.models_dir, failure)


# --- what an ONNX file is, told from its graph as InsightFace's own router tells it


def _identified(place: _Place) -> dict[Role, Path]:
    looks = {path: _look(path) for path in _onnx_files(place.folder)}
    found: dict[Role, Path] = {}
    for role in _ROLES:
        candidates = [path for path, look in looks.items() if look == role]
        if len(candidates) != 1:
            seen = "; ".join(f"{path.name}: {look}" for path, look in looks.items()) or "no .onnx files"
            _raise_not_found(place, f"exactly one {role} needed, {len(candidates)} found: {seen}")
        found[role] = candidates[0]
    return found


def _look(path: Path) -> str:
    """A role, or in words why it is none."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError:
        return "not a readable ONNX file"
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        return "its weights lie in another file, where no digest covers them"
    weights = {tensor.name for tensor in graph.initializer}  # old files list them among the inputs
    inputs = [_shape(value) for value in graph.input if value.name not in weights]
    outputs = [_shape(value) for value in graph.output]
    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][1] not in (0, 3):
        return "another model"
    return _recogniser_or_not(inputs[0], outputs[0]) if len(outputs) == 1 else _detector_or_not(outputs)


def _recogniser_or_not(taken: list[int], given: list[int]) -> str:
    height, width = taken[2:]
    if height != width or height < 112 or height % 16 or height == 192:  # 192: InsightFace's landmark models
        return f"another model, input {width}x{height}"
    if given[-1:] not in ([], [0], [EMBEDDING_SIZE]):
        return f"embeddings of {given[-1]} values, not {EMBEDDING_SIZE}"
    return "recogniser"


def _detector_or_not(outputs: list[list[int]]) -> str:
    """SCRFD and RetinaFace give scores, boxes and landmarks, 1, 4 and 10 values wide, for each of 3 or 5 strides."""
    strides = 3 if len(outputs) in (6, 9) else 5
    if len(outputs) not in (2 * strides, 3 * strides):
        return "another model"
    widths = [(1, 4, 10)[number // strides] for number in range(len(outputs))]
    if any(shape[-1:] not in ([], [0], [width]) for shape, width in zip(outputs, widths, strict=True)):
        return "another model"
    return "detector" if len(outputs) == 3 * strides else "a detector without landmarks"


def _shape(value: Any) -> list[int]:
    """0 where a dimension is free."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


# --- install


def _install(place: _Place, url: str | None, archive: Path | None, progress: Progress | None) -> ModelPack:
    url = url or (place.known.url if place.known else None)
    try:
        return _checked(place, rehash=True)
    except OceanoError as failure:
        if not url and not archive:
            raise
        if archive and not archive.is_file():
            raise OceanoError("model_not_found", f"no such zip: {archive}", details={"file": str(archive)}) from None
        if failure.code == "model_corrupt":
            _set_aside_altered(place)
    log.info("%s: %s", place.name, LICENSE_NOTE)
    found = _unpack(place, archive) if archive else _download_and_unpack(place, url or "", progress)
    _remember(place, found)
    return _compare(place, found)[0]


def _set_aside_altered(place: _Place) -> None:
    pins = _read_pins(place.models_dir).get(place.key, {})
    for role, path in _files(place, pins).items():
        sha256 = _hashed(path, None).sha256
        if sha256 != _expected(place, pins, role, sha256):
            path.replace(path.with_name(f"{path.name}.corrupt"))


def _download_and_unpack(place: _Place, url: str, progress: Progress | None) -> _Pins:
    part = place.models_dir / f"{place.name}.zip.part"
    for last in (False, True):
        _download(url, part, place.known.size if place.known else None, progress, otherwise=_by_hand(place))
        try:
            found = _unpack(place, part)
            break
        except OceanoError as failure:
            if failure.code == "disk_full":
                raise
            part.replace(place.models_dir / f"{place.name}.zip.corrupt")
            if failure.code != "model_corrupt" or last:
                raise
            log.warning("%s; set aside, fetching it once more", failure.message)
    part.unlink()
    part.with_suffix(".json").unlink(missing_ok=True)
    return found


def _unpack(place: _Place, archive: Path) -> _Pins:
    """Put the two files that matter into their places, each checked before."""
    _check_zip(place, archive)
    aside = place.folder / ".unpack"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        try:
            with zipfile.ZipFile(archive) as opened:
                _extract(opened, place, aside)
        except _ZIP_ERRORS as failure:
            _raise_bad_zip(archive, f"it cannot be unpacked ({failure})")
        _, found = _compare(replace(place, folder=aside), {})
        for pin in found.values():
            (aside / pin.file).replace(place.folder / pin.file)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return found


def _check_zip(place: _Place, archive: Path) -> None:
    size = archive.stat().st_size
    if size > (place.known.size if place.known else _MAX_BYTES):
        _raise_bad_zip(archive, f"it is too large, {size} bytes")
    if place.known:
        with archive.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if (size, sha256) != (place.known.size, place.known.sha256):
            wanted = f"{place.known.size} bytes and SHA-256 {place.known.sha256}"
            _raise_bad_zip(archive, f"it has {size} bytes and SHA-256 {sha256}, the published one {wanted}")


def _raise_bad_zip(archive: Path, why: str) -> NoReturn:
    raise OceanoError("model_corrupt", f"{archive} is not the pack: {why}", details={"file": str(archive)})


def _extract(opened: zipfile.ZipFile, place: _Place, aside: Path) -> None:
    """Write the members that may matter by their base names: packs are published with a folder inside."""
    wanted = {name for name, _ in place.known.files.values()} if place.known else None
    chosen: dict[str, zipfile.ZipInfo] = {}
    for member in opened.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        regular = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG) and not member.is_dir()
        inside = not path.is_absolute() and ".." not in path.parts
        if regular and inside and path.suffix == ".onnx" and path.name in (wanted or {path.name}):
            chosen.setdefault(path.name, member)
    total = sum(member.file_size for member in chosen.values())
    if total > _MAX_BYTES:
        _raise_bad_zip(aside, f"it unpacks to {total} bytes, {_MAX_BYTES} are allowed")
    with _room(aside, lambda: total):
        for name, member in chosen.items():
            with opened.open(member) as source, (aside / name).open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)  # ends at file_size, whatever the member really holds
                target.flush()
                os.fsync(target.fileno())


# --- files


def _write_json(path: Path, value: object) -> None:
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process (and thread) at a time; the kernel frees it when its holder dies."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting until another process is done with %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _room(folder: Path, needed: Callable[[], int]) -> Iterator[None]:
    """Turn a disk that is or becomes full into `disk_full`; `needed` tells the bytes still to be written."""
    try:
        if shutil.disk_usage(folder).free < needed():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except OSError as failure:
        if failure.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(folder).free
        raise OceanoError(
            "disk_full",
            f"{needed()} more bytes are needed in {folder}, {free} are free: make room and try again; "
            "what was downloaded is kept",
            details={"folder": str(folder), "needed_bytes": needed(), "free_bytes": free},
        ) from failure


# --- download, going on where the last try stopped


class _TransientError(Exception):
    """Worth another try."""


_RETRIED: Final = (_TransientError, requests.ConnectionError, requests.Timeout, ChunkedEncodingError)


def _download(url: str, part: Path, size: int | None, progress: Progress | None, *, otherwise: str) -> None:
    """Complete `part`; `size` in bytes where it is known, `otherwise` says what to do where that fails."""
    shown = f"{urlsplit(url).hostname}{urlsplit(url).path}"  # the rest may hold a password or a signature
    log.info("downloading %s", shown)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_RETRIED),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=_WAIT,
        before_sleep=lambda state: log.warning("%s: try %d of %d failed", shown, state.attempt_number, _ATTEMPTS),
        reraise=True,
    )
    try:
        retrying(_fetch, url, part, size, progress)
    except (_TransientError, requests.RequestException) as failure:
        raise OceanoError(
            "model_download_failed",
            f"{shown} cannot be downloaded ({_why(failure)}): try again, it goes on where it stopped, {otherwise}",
            details={"url": shown},
        ) from failure


def _why(failure: Exception) -> str:
    if isinstance(failure, _TransientError | requests.HTTPError):
        return str(failure)
    # What requests says holds the whole URL; the reason inside it does not.
    return f"{type(failure).__name__} {getattr(next(iter(failure.args), None), 'reason', '')}".strip()


def _fetch(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    """Ask once for what `part` still lacks."""
    key = hashlib.sha256(url.encode()).hexdigest()
    have, validator, total = _there_already(part, key)
    if have and have == total:
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        start, total = _span(response)
        if start is None and have and have == total:
            return
        if start not in (0, have):
            part.unlink(missing_ok=True)
            raise _TransientError(f"the server would not go on at byte {have}")
        if not start:
            part.unlink(missing_ok=True)
            etag = response.headers.get("ETag", "W/")  # a weak one does not vouch for every byte
            validator = response.headers.get("Last-Modified", "") if etag.startswith("W/") else etag
            _write_json(part.with_suffix(".json"), {"url": key, "validator": validator, "total": total})
        _append(response, part, total or size, size or _MAX_BYTES, progress)


def _there_already(part: Path, key: str) -> tuple[int, str, int | None]:
    """Bytes that can be gone on from, what the server called that version of the file, and its size if told."""
    try:
        side = json.loads(part.with_suffix(".json").read_bytes())
        if side["url"] == key and side["validator"]:
            return part.stat().st_size, str(side["validator"]), side["total"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        pass
    return 0, "", None


def _span(response: requests.Response) -> tuple[int | None, int | None]:
    """The first byte this answer brings, None for none of use, and the size of the whole file, None if not told."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    if response.status_code in (206, 416):
        told = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", response.headers.get("Content-Range", ""))
        first, total = told.groups() if told else (None, None)
        return int(first) if first else None, int(total) if total else None
    answer = f"the server answered {response.status_code} {response.reason}"
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        raise _TransientError(answer)
    raise requests.HTTPError(answer)


def _append(response: requests.Response, part: Path, total: int | None, most: int, progress: Progress | None) -> None:
    done = part.stat().st_size if part.exists() else 0
    with _room(part.parent, lambda: (total or done) - done), part.open("ab") as file:
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
            if done > most:
                return  # not what was asked for: its size tells
    if total and done < total:
        raise _TransientError(f"the connection ended after {done} of {total} bytes")
