"""Which faces are in a picture with another face of the same person, as only collages and mirrors have them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from app.catalog import Place, is_same_face


def beside(places: Sequence[Place], own: Mapping[str, Sequence[Place]]) -> list[Place]:
    """Return the faces whose pictures would then have several faces of one person.

    Args:
        places: of the faces that are to get the person's name.
        own: of the person's faces now, by image.
    """
    by_picture: dict[tuple[str, int], list[Place]] = defaultdict(list)
    for place in places:
        by_picture[place.image_id, place.page].append(place)
    found: list[Place] = []
    for (image_id, page), some in by_picture.items():
        now = [one for one in own.get(image_id, ()) if one.page == page]
        new = [one for one in some if not _has(now, one)]
        others = sum(1 for one in now if not _has(some, one))
        if new and len(some) + others > 1:
            found += new
    return found


def _has(places: Sequence[Place], place: Place) -> bool:
    return any(is_same_face(one, place) for one in places)
