"""Names faces as the service does, for tests of what keeps the names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from app.catalog import PeopleStore
from app.core.config import Settings
from app.core.protocols import FaceIndex
from app.people import Author, NamesCopy, Naming, Profile
from app.service.factory import find_model, open_ledger


def name_faces(settings: Settings, index: FaceIndex, names: Mapping[str, str]) -> None:
    """Give faces names by face_id, each as a new person."""
    with closing(open_ledger(settings, find_model(settings))) as ledger:
        naming = Naming(ledger.database, index, NamesCopy(ledger.database, index, ledger.collection))
        for face_id, name in names.items():
            naming.create(Profile(name=name), [face_id], Author("test"))


def names_by_id(settings: Settings) -> dict[str, str]:
    """Return the names of all people by id."""
    with closing(open_ledger(settings, find_model(settings))) as ledger:
        return {one.id: one.name for one in PeopleStore(ledger.database).find(hidden=None, limit=1000)}


def unname_all(settings: Settings, index: FaceIndex) -> None:
    """Delete all people."""
    with closing(open_ledger(settings, find_model(settings))) as ledger:
        naming = Naming(ledger.database, index, NamesCopy(ledger.database, index, ledger.collection))
        for one in PeopleStore(ledger.database).find(hidden=None, limit=1000):
            naming.delete(one.id, one.version, Author("test"))
