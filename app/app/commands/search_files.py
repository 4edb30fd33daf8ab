"""Puts the originals of matches into a folder, as copies or as symbolic links."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Event
from typing import Final

from app.core.errors import OceanoError, is_full
from app.core.files import for_user
from app.images import image_id_of
from app.library import OpenedFile, Pictures
from app.service import ListedMatch, images_of

_MAX_NAME_BYTES: Final = 255


@dataclass(slots=True)
class Placed:
    """What was put into a folder.

    Attributes:
        files: number of photographs that are in the folder now.
        kept: how many of them were there before.
        failures: a line for each photograph that is not.
    """

    files: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)


def copy_originals(matches: Iterable[ListedMatch], pictures: Pictures, folder: Path, stop: Event) -> Placed:
    """Copy the photograph of each match to a folder, each once. Existing files are never overwritten.

    A file that has the photograph already counts as done, so the command can be repeated. Arguments, result and errors
    are also those of `link_originals`.

    Args:
        matches: the matches.
        pictures: opens the originals.
        folder: is created if it is missing.
        stop: once set, it ends after the current file.

    Raises:
        OceanoError: `invalid_request` if the folder cannot be written, `disk_full`.
    """
    return _placed(matches, pictures, folder, stop, _copied)


def link_originals(matches: Iterable[ListedMatch], pictures: Pictures, folder: Path, stop: Event) -> Placed:
    """Make a symbolic link to the photograph of each match in a folder; otherwise as `copy_originals`."""
    return _placed(matches, pictures, folder, stop, _linked)


def _placed(
    matches: Iterable[ListedMatch],
    pictures: Pictures,
    folder: Path,
    stop: Event,
    put: Callable[[OpenedFile, Path, str], bool],
) -> Placed:
    """Put each photograph into the folder; `put` returns False if it is there already."""
    with _told(folder):
        _make(folder)
    placed = Placed()
    for payload in images_of(matches):
        if stop.is_set():
            break
        try:
            opened = pictures.open_original(payload.image_id, pictures.files(payload.image_id, payload.path))
        except OceanoError as failure:
            placed.failures.append(f"{payload.path}: {failure.message}")
            continue
        try:
            with _told(folder):
                placed.kept += not put(opened, folder, payload.image_id)
        finally:
            opened.close()
        placed.files += 1
    return placed


def _make(folder: Path) -> None:
    """Create a folder and those above it, with the permissions that the user's own umask leaves."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        for_user(one, 0o777)


def _copied(opened: OpenedFile, folder: Path, image_id: str) -> bool:
    """Copy a file; False if a copy is there already."""
    names = _names(Path(opened.path).name)
    target = _free(folder, names, image_id, opened.status.st_size, links=False)
    if target is None:
        return False
    handle, temporary = tempfile.mkstemp(prefix=".oceano-", suffix=".tmp", dir=folder)  # short: names may be long
    try:
        for_user(handle)
        with os.fdopen(handle, "wb") as copy, open(opened.handle, "rb", closefd=False) as original:
            shutil.copyfileobj(original, copy, 1 << 20)
        os.utime(temporary, ns=(opened.status.st_atime_ns, opened.status.st_mtime_ns))
        while not publish(temporary, target):
            target = folder / next(names)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
    return True


def _linked(opened: OpenedFile, folder: Path, image_id: str) -> bool:
    """Make a symbolic link to a file; False if there is one already."""
    names = _names(Path(opened.path).name)
    target = _free(folder, names, image_id, opened.status.st_size, links=True)
    if target is None:
        return False
    while True:
        try:
            target.symlink_to(opened.path)
        except FileExistsError:
            target = folder / next(names)
        else:
            return True


def publish(temporary: str, target: Path) -> bool:
    """Give a complete file its name; False if another file has it, which `rename` would replace.

    The temporary name may be left; whoever made it removes it.

    Args:
        temporary: the complete file.
        target: its name, in the same folder.
    """
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links, such as exFAT
        if os.path.lexists(target):
            return False
        Path(temporary).rename(target)
    return True


def _names(name: str) -> Iterator[str]:
    """Yield names for a file: its own, then numbered ones, each at most as long as file systems allow."""
    yield name
    stem, suffix = os.fsencode(Path(name).stem), Path(name).suffix
    for number in count(2):
        end = os.fsencode(f" ({number}){suffix}")
        yield os.fsdecode(stem[: max(1, _MAX_NAME_BYTES - len(end))] + end)


def _free(folder: Path, names: Iterator[str], image_id: str, size: int, *, links: bool) -> Path | None:
    """Return the first path that does not exist; None if one before has this image.

    Args:
        folder: of the path.
        names: to be tried.
        image_id: the image.
        size: of its file in bytes.
        links: symbolic links count too.
    """
    for path in (folder / name for name in names):
        if not os.path.lexists(path):
            return path
        if (links or not path.is_symlink()) and _has_image(path, image_id, size):
            return None
    raise AssertionError  # there are names without end


def _has_image(path: Path, image_id: str, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size and image_id_of(path.read_bytes()) == image_id
    except OSError:
        return False


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn errors of the file system into those of the command."""
    try:
        yield
    except OSError as failure:
        if is_full(failure):
            raise OceanoError("disk_full", f"no space left in {folder}") from failure
        reason = os.strerror(failure.errno or errno.EIO)
        raise OceanoError("invalid_request", f"{folder} cannot be written: {reason}") from failure
