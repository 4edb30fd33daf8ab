"""Building the graph on a copy. (being built)"""

from __future__ import annotations

import threading
from pathlib import Path

from app.index.desk import Desk
from app.index.options import OwnerOptions


class Maintenance:
    def __init__(self, options: OwnerOptions, desk: Desk, writing: threading.Lock) -> None:
        self.running = False

    def consider(self) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def note(self, ids: bytes) -> None: ...

    def backup(self, target: Path, collection: str, alias: tuple[str, str]) -> None: ...
