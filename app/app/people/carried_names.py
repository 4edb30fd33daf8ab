"""Takes what is said about the faces of an image over to the image that its file became.

A program that writes a rating or a name into a photograph makes another image of it: the same pixels, another SHA-256.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from app.catalog import ASSIGNMENTS, DISMISSALS, REJECTIONS, Making, Place, Row, is_same_face, place_in
from app.images import EditedImage

_TABLES: Final = (ASSIGNMENTS, REJECTIONS, DISMISSALS)


def carry_names(making: Making, images: Sequence[EditedImage]) -> None:
    """Copy assignments, rejections and dismissals to new images; move them if the earlier image is gone.

    What is said about the new images stays.

    Args:
        making: the change.
        images: earlier and new images, with the faces that both have.
    """
    for table in _TABLES:
        rows = making.by_image(table, [one.before for one in images])
        new = making.by_image(table, [one.after for one in images])
        pairs: list[tuple[Row | None, Row]] = []
        for one in images:
            kept = {(page, box) for page, box in one.faces}
            for row in rows[one.before]:
                place = place_in(row)
                is_kept = any(is_same_face(place, Place(one.before, page, box)) for page, box in kept)
                if is_kept and not _has(new[one.after], row, one.after):
                    after = row | {"image_id": one.after} | ({} if one.is_gone else {"id": str(uuid.uuid4())})
                    pairs.append((row if one.is_gone else None, after))
        making.put(table, pairs)


def _has(rows: Sequence[Row], row: Row, image_id: str) -> bool:
    """Return whether something of the kind is said about a face of the new image."""
    place = place_in(row | {"image_id": image_id})
    of_person = [one for one in rows if "rejected_by" not in row or one["person_id"] == row["person_id"]]
    return any(is_same_face(place, place_in(one)) for one in of_person)
