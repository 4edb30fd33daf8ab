"""Images that an ingest has still to settle: with new copies, replaced by other images, or raw files beside a JPEG."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import Connection, and_, bindparam, delete, exists, func, or_, select
from sqlalchemy.sql import ColumnElement

from app.catalog.database import Database, execute_many, insert_from, rows
from app.catalog.retry import retried
from app.catalog.tables import FILES, SUPERSEDED, UNSETTLED

_FILE: Final = FILES.c
AT_PATH: Final = and_(_FILE.collection == bindparam("at_collection"), _FILE.path == bindparam("at_path"))


class UnsettledImages:
    """The part of the ledger that lists what `library.settling` has to do.

    Args:
        database: several collections share it.
        collection: the full name, such as faces__antelopev2__4ab1d643.
    """

    def __init__(self, database: Database, collection: str) -> None:
        self.database = database
        self.collection = collection

    def unsettled(self, limit: int) -> list[str]:
        """Return at most `limit` ids of images whose faces in the index may lack paths of their files."""
        query = select(UNSETTLED.c.image_id).where(UNSETTLED.c.collection == self.collection)
        return [row.image_id for row in rows(self.database, query.order_by(UNSETTLED.c.image_id).limit(limit))]

    @retried
    def unsettle_copies(self) -> None:
        """Let `unsettled` list every image with several files."""
        with self.database.writing() as connection:
            unsettle_copies(connection)

    def replaced(self, folder: str = "/", *, by_image: bool = False) -> list[tuple[str, int]]:
        """Return the ids of replaced images, whose file became another image, with their numbers of faces.

        Args:
            folder: only images whose file was at or below this folder.
            by_image: only images whose file was read since then and has not failed.
        """
        one = SUPERSEDED.c
        query = select(one.image_id, one.faces).where(one.collection == self.collection, _at_or_below(one.path, folder))
        if by_image:
            read = exists().where(_FILE.collection == one.collection, _FILE.path == one.path, _FILE.status != "failed")
            query = query.where(read)
        return [(row.image_id, row.faces) for row in rows(self.database, query.order_by(one.image_id))]

    def replaced_faces(self, image_id: str) -> int | None:
        """Return the number of faces of a replaced image; None if it is not one."""
        found = rows(self.database, _FACES_OF_REPLACED, {"collection": self.collection, "image_id": image_id})
        return int(found[0].faces) if found else None

    @retried
    def delete_replaced(self, *image_ids: str) -> None:
        """Remove images from the list of replaced images."""
        with self.database.writing() as connection:
            execute_many(connection, _DELETE_SUPERSEDED, self.at_images(image_ids))

    @retried
    def replace_by_partners(self, partners: Mapping[str, str]) -> None:
        """Delete the results of files that another file takes the place of; `replaced` lists their images.

        Args:
            partners: path of the other file by path; it counts only if it has faces or is a copy of such an image.
        """
        values = [
            {"at_collection": self.collection, "at_path": os.fsencode(path), "partner": os.fsencode(partner)}
            for path, partner in partners.items()
        ]
        other = FILES.alias("other")
        ready = exists().where(
            other.c.collection == bindparam("at_collection"),
            other.c.path == bindparam("partner"),
            or_(other.c.status == "done", other.c.status == "duplicate"),  # IN cannot be used with several rows
        )
        partner = bindparam("partner", type_=_FILE.path.type).label("path")
        replaced = select(_FILE.collection, _FILE.image_id, partner, _FILE.faces).where(
            AT_PATH, _FILE.status == "done", ready
        )
        with self.database.writing() as connection:
            superseded = insert_from(SUPERSEDED, replaced, connection.dialect.name, replace=True)
            execute_many(connection, superseded, values)
            execute_many(connection, delete(FILES).where(AT_PATH, ready), values)

    def at_images(self, image_ids: Iterable[str]) -> list[dict[str, object]]:
        """Return the values of statements for these images."""
        return [{"at_collection": self.collection, "at_image": image_id} for image_id in image_ids]


def unsettle_copies(connection: Connection) -> None:
    """Let `Ledger.unsettled` list every image with several files, of all collections."""
    several = (
        select(_FILE.collection, _FILE.image_id)
        .where(_FILE.image_id.is_not(None))
        .group_by(_FILE.collection, _FILE.image_id)
        .having(func.count() > 1)
    )
    connection.execute(insert_from(UNSETTLED, several, connection.dialect.name, replace=False))


def _at_or_below(path: ColumnElement[bytes], folder: str) -> ColumnElement[bool]:
    below = os.fsencode(folder.rstrip("/"))
    return (path == below) | and_(path > below + b"/", path < below + b"0")  # "0" comes after "/"


_FACES_OF_REPLACED: Final = select(SUPERSEDED.c.faces).where(
    SUPERSEDED.c.collection == bindparam("collection"), SUPERSEDED.c.image_id == bindparam("image_id")
)
_DELETE_SUPERSEDED: Final = delete(SUPERSEDED).where(
    SUPERSEDED.c.collection == bindparam("at_collection"), SUPERSEDED.c.image_id == bindparam("at_image")
)
