"""Names of files and persons as a page shows them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

# Control characters, marks and overrides of the direction of text, line breaks, invisible characters.
_HIDDEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def printable(text: str) -> str:
    """Return a name for display: invisible characters are escaped, such as a line break as \\n.

    Among them are those that change the direction of text, which can make a name look like another one. Joiners stay:
    scripts and emoji need them.
    """
    return _HIDDEN.sub(lambda sign: sign[0].encode("unicode_escape").decode("ascii"), encodable(text))


def encodable(text: str) -> str:
    """Replace lone surrogates, which stand for bytes of a file name that are not UTF-8 and cannot be encoded."""
    return text.encode("utf-8", "replace").decode()


def short_names(folders: Iterable[str]) -> dict[str, str]:
    """Name folders for display: each by its own name, with parents in front where two would have the same name.

    Args:
        folders: absolute paths.
    """
    parts = {path: PurePosixPath(printable(path)).parts[1:] for path in folders}
    lengths = dict.fromkeys(parts, 1)
    while True:
        names = {path: "/".join(parts[path][-length:]) or "/" for path, length in lengths.items()}
        times = Counter(names.values())
        longer = [path for path, name in names.items() if times[name] > 1 and lengths[path] < len(parts[path])]
        if not longer:
            return names
        for path in longer:
            lengths[path] += 1
