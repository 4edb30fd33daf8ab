"""Which indexes have the faces of a catalog: a catalog that several machines share is used with no other index."""

from __future__ import annotations

from sqlalchemy import delete, select

from app.catalog.clock import timestamp
from app.catalog.database import Database, insert_or_ignore
from app.catalog.tables import INDEXES
from app.core.errors import OceanoError


def require_index(database: Database, collection: str, index_id: str, name: str) -> None:
    """Check that an index belongs to the catalog; the first one of a collection does from now on.

    Args:
        database: the catalog.
        collection: full name of the collection.
        index_id: what distinguishes the index from all others.
        name: how messages name it.

    Raises:
        OceanoError: `invalid_setting` if the catalog knows other indexes only, `ledger_unavailable`.
    """
    query = select(INDEXES.c.id, INDEXES.c.name).where(INDEXES.c.collection == collection)
    with database.reading() as connection:
        known = {row.id: row.name for row in connection.execute(query.order_by(INDEXES.c.added_at)).all()}
    if index_id in known:
        return
    if not known:
        add_index(database, collection, index_id, name)
        return
    raise OceanoError(
        "invalid_setting",
        f"The catalog {database.name} belongs to another index: {', '.join(known.values())}; this is {name}. Set "
        "QDRANT_URL (or DATA_DIR) to the index of the catalog, or CATALOG_URL to a database of its own.",
        details={"settings": ["QDRANT_URL", "CATALOG_URL"]},
    )


def add_index(database: Database, collection: str, index_id: str, name: str) -> None:
    """Record that an index has the faces of the catalog, such as one to which they were copied."""
    values = {"collection": collection, "id": index_id, "name": name, "added_at": timestamp()}
    with database.writing(urgent=True) as connection:
        connection.execute(insert_or_ignore(INDEXES, connection.dialect.name), values)


def replace_indexes(database: Database, collection: str, index_id: str, name: str) -> list[str]:
    """Record that an index alone has the faces of the catalog, such as one to which they were restored.

    Returns:
        The names of the indexes that no longer belong to the catalog.
    """
    values = {"collection": collection, "id": index_id, "name": name, "added_at": timestamp()}
    others = delete(INDEXES).where(INDEXES.c.collection == collection, INDEXES.c.id != index_id)
    with database.writing(urgent=True) as connection:
        removed = connection.execute(others.returning(INDEXES.c.name)).scalars().all()
        connection.execute(insert_or_ignore(INDEXES, connection.dialect.name), values)
    return sorted(removed)
