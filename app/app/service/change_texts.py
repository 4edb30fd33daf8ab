"""Changes of people in words, for pages and commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.core.texts import Translator


def change_words(
    kind: str, details: Mapping[str, Any], faces: int, t: Translator, shown: Callable[[object], str]
) -> str:
    """Say in a sentence what a change did.

    Args:
        kind: as in `Change`.
        details: as in `Change`.
        faces: number of faces that it was about.
        t: the language.
        shown: returns a name of the details for display, also an empty or missing one.
    """
    name, new = shown(details.get("name")), shown(details.get("new"))
    key = f"change.{kind}"
    if kind == "undo":
        return _undone(details, faces, t, shown)
    if kind == "edit":
        return t("change.rename", name=name, new=new) if "new" in details else t(_edited(details), name=name)
    if kind == "dismiss":
        key = f"change.dismiss_{details.get('to') or 'back'}"
    if kind == "merge":
        return t("change.merge", name=name, others=", ".join(shown(one) for one in details.get("merged") or []))
    if f"{key}.one" in t.texts:
        return t.count(key, faces, name=name, new=new)
    return t(key, name=name) if key in t.texts else t.count("change.other", faces, kind=shown(kind), name=name)


def _undone(details: Mapping[str, Any], faces: int, t: Translator, shown: Callable[[object], str]) -> str:
    """Say what was undone, or done again."""
    kind = str(details.get("undone"))
    if kind == "undo":  # of an earlier version, which did not record what is done again
        return t("change.redo_any")
    key = "change.redo" if details.get("again") else "change.undo"
    return t(key, what=change_words(kind, details, faces, t, shown))


def _edited(details: Mapping[str, Any]) -> str:
    """Return the key of what was changed about a person besides the name: the one thing, or that something was."""
    if (hidden := details.get("hidden")) is not None:
        return "change.hide" if hidden else "change.show"
    return "change.cover" if details.get("changed") == ["cover"] else "change.edit"
