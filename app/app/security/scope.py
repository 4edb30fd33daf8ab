"""Scopes: the folders that someone may see, compared with the paths of files and applied to filters.

Everything here is about names. A path is in a folder if its text says so after `..` and double slashes are resolved;
symbolic links are not followed, as an ingest records files under the names that it found them by. Upper and lower case
differ. The Unicode forms NFC and NFD of a name are the same, as they are to the index: systems store either one.

The ledger has the exact bytes of a path (`os.fsdecode`), the index readable text (`core.paths.readable`).
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.core.paths import absolute, readable
from app.core.types import FaceFilter


@dataclass(frozen=True, slots=True)
class Scope:
    """Folders, with everything below them; `scope_of` makes one.

    Attributes:
        folders: absolute paths, normalized and sorted, none below another; none: nothing is seen.
        exact: beginnings of the paths of files in them, as the ledger has them.
        shown: the same as the index has them.
        is_exact: the index tells these folders from all others. It does not if a name has bytes that are not UTF-8:
            it has the escapes of these bytes, which are a possible name, too.
    """

    folders: tuple[str, ...]
    exact: tuple[str, ...] = field(compare=False)
    shown: tuple[str, ...] = field(compare=False)
    is_exact: bool = field(compare=False)

    @property
    def key(self) -> str:
        """Text that names the scope: 32 hexadecimal digits."""
        return hashlib.sha256(os.fsencode("\0".join(self.folders))).hexdigest()[:32]

    def has_file(self, path: str) -> bool:
        """Return whether a file of the ledger is in the scope."""
        return _form(path).startswith(self.exact)

    def has_folder(self, folder: str) -> bool:
        """Return whether a folder, as the ledger has it, is one of the scope or below it."""
        return _inside(_form(folder)).startswith(self.exact)

    def shows_file(self, path: str) -> bool:
        """Return whether a file of the index is in the scope."""
        return _form(path).startswith(self.shown)

    def shows_folder(self, folder: str) -> bool:
        """Return whether a folder of the index is one of the scope or below it."""
        return _inside(_form(folder)).startswith(self.shown)

    def contains(self, folders: Iterable[str]) -> bool:
        """Return whether all that is in other folders is in the scope, too."""
        return all(self.has_folder(absolute(Path(folder))) for folder in folders)

    def narrowed(self, where: FaceFilter | None) -> FaceFilter | None:
        """Restrict a filter to the scope.

        A folder of the filter that is in the scope stays. One that is above folders of the scope becomes these.

        Args:
            where: the filter; None for all faces.

        Returns:
            The filter to ask the index with; None if it can match nothing in the scope.
        """
        given = where or FaceFilter()
        scope = [readable(folder) for folder in self.folders]
        if given.folder is not None:
            scope = [*dict.fromkeys(one for wanted in _folders(given.folder) for one in self._common(wanted, scope))]
        return replace(given, folder=scope[0] if len(scope) == 1 else tuple(scope)) if scope else None

    def _common(self, wanted: str, scope: list[str]) -> list[str]:
        if self.shows_folder(wanted):
            return [wanted]
        return [folder for folder in scope if _form(folder).startswith(_inside(_form(wanted)))]


def scope_of(folders: Iterable[str]) -> Scope:
    """Return the scope of folders.

    Args:
        folders: absolute paths; others are left out, and show nothing.
    """
    given = {absolute(Path(folder)) for folder in folders if folder.startswith("/")}
    kept: dict[str, str] = {}
    for folder in sorted(given, key=lambda one: (len(_form(one)), one)):
        beginning = _inside(_form(folder))
        if not any(beginning.startswith(outer) for outer in kept):
            kept[beginning] = folder
    texts = {folder: readable(folder) for folder in kept.values()}
    return Scope(
        folders=tuple(sorted(texts)),
        exact=tuple(kept),
        shown=tuple(_inside(_form(text)) for text in texts.values()),
        is_exact=not any("\\x" in text for text in texts.values()),
    )


def _folders(given: str | tuple[str, ...]) -> list[str]:
    """Return the folders of a filter as the index understands them: without `..`, which could lead out of a scope."""
    return [absolute(Path(one)) for one in ((given,) if isinstance(given, str) else given)]


def _form(path: str) -> str:
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def _inside(folder: str) -> str:
    """Return what the paths of all files in a folder begin with."""
    return folder.rstrip("/") + "/"
