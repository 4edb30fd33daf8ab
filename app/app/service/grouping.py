"""Groups the unnamed faces of an index: for `oceano group`, and by itself after an ingest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

from app.catalog import FaceTable, Ledger, PeopleStore, only_grouping
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import ModelPack
from app.people import GroupCounts, GroupRun, NamesCopy, cut_of, group_cut_of
from app.people import Settings as GroupSettings
from app.service.factory import open_without_engine
from app.service.strangers import LEAST_FACES, sampled_strangers

_log = logging.getLogger(__name__)


class Grouping:
    """Groups the faces of one index.

    Args:
        pack: the model of the index.
        index: the faces.
        ledger: the images, in the catalog that has the names and keeps the groups.
        stop: once set, what is not recorded yet is given up.
    """

    def __init__(self, pack: ModelPack, index: FaceIndex, ledger: Ledger, stop: Event) -> None:
        self._pack, self._index, self._ledger, self._stop = pack, index, ledger, stop

    def run(
        self, *, again: bool = False, on_progress: Callable[[int, int], None] = lambda faces, total: None
    ) -> GroupCounts:
        """Group the faces that are new, and those that names have moved.

        Args:
            again: look at all faces again.
            on_progress: called after each batch with the faces so far, and about how many there are.

        Raises:
            OceanoError: `ingest_in_progress` if another process groups them, `index_unavailable`,
                `ledger_unavailable`, `disk_full`. What was recorded before stays.
        """
        database, collection = self._ledger.database, self._ledger.collection
        table = FaceTable(database, collection)
        with only_grouping(database, collection) as require:
            NamesCopy(database, self._index, collection).catch_up()
            if again:
                table.forget_all_groups()
            return GroupRun(
                self._index,
                table,
                PeopleStore(database),
                digest=self._pack.digest,
                settings=self._settings,
                stop=self._stop,
                require=require,
                on_progress=on_progress,
            ).run()

    def after_ingest(self) -> str:
        """Group new faces; return a line for the user if some were not grouped, else nothing. Raises no OceanoError."""
        try:
            counts = self.run()
        except OceanoError as failure:
            _log.warning("the faces were not grouped: %s", failure)
            return f"The new faces were not grouped: {failure.message} ({failure.code}). `oceano group` does it."
        if counts.left:
            return f"{counts.left} faces are not grouped yet; `oceano group` goes on."
        _log.info("%d new faces were grouped", counts.faces)
        return ""

    def _settings(self) -> GroupSettings:
        faces = self._index.info().points
        sampled = sampled_strangers(self._index, self._pack) if faces >= LEAST_FACES else None
        strangers = sampled or self._pack.strangers
        cut = cut_of(strangers, faces)
        return GroupSettings(cut, group_cut_of(strangers, faces, cut))


@contextmanager
def open_grouping(settings: Settings, stop: Event) -> Iterator[Grouping]:
    """Open index and catalog until the context ends.

    Raises:
        OceanoError: as `open_without_engine` does.
    """
    with open_without_engine(settings) as (pack, index, ledger):
        ledger.database.retries.enable(stop)
        yield Grouping(pack, index, ledger, stop)
