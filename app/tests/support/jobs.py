"""Jobs as the catalog returns them."""

from __future__ import annotations

import uuid
from typing import Any

from app.catalog import Job
from app.service.monitor import Snapshot


def job(**values: Any) -> Job:
    """Return a queued job, with other values if they are given."""
    defaults: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "collection": "faces__fake__ffffffff",
        "kind": "ingest",
        "folder": "/photos",
        "options": {},
        "state": "queued",
        "shared": True,
        "phase": "scan",
        "counts": {},
        "workers": 0,
        "problems": 0,
        "started_by": "ann@one",
        "created_at": "2026-05-01T09:00:00+00:00",
        "started_at": None,
        "ended_at": None,
        "error": None,
        "message": None,
    }
    return Job(**defaults | values)


class FixedSnapshot(Snapshot):
    """A snapshot whose given fields the running monitor does not replace."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._given = frozenset(given)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in getattr(self, "_given", ()):
            super().__setattr__(name, value)
