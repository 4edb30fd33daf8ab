"""Makes the view models of a result: cards with headings, examples, the photograph, ticks and counts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final

from app.core.texts import Translator
from app.core.types import BBox, Picture
from app.images import preview_webp
from app.service import Bands, ListedMatch, ResultPage, two_decimals
from app.web.pages.asked import Asked, Example
from app.web.pages.names import encodable, printable, short_names
from app.web.pages.result_views import (
    CardView,
    CropView,
    HeadingView,
    OutlineView,
    PersonView,
    PhotographView,
    Place,
    day_text,
)

_PREVIEW_SIDE: Final = 1024
_LARGEST_BADGE: Final = 0.04
_YEAR, _MONTH, _DAY = 4, 7, 10  # characters of a time in ISO 8601
_PER_HEADING: Final = 3  # matches at least, on average
_HEADED: Final = ("image", "person", "day")  # groups with a heading
_SHOWN_FLAWS: Final = ("blurred", "extreme_pose", "face_too_small", "low_detection_score")  # the first is shown


def cards(
    found: Sequence[ListedMatch],
    bands: Bands,
    place: Place,
    t: Translator,
    same: str,
    *,
    same_person: float,
    names: Mapping[str, str],
) -> list[CardView]:
    """Make the cards of a page.

    Args:
        found: the matches.
        bands: say what a similarity means.
        place: the address and the filters; groups, and a list by time, get headings.
        t: the language.
        same: image_id of the face that the result starts from; empty for none.
        same_person: lowest similarity of the same person with this model.
        names: of the people whom the matches show, by id.
    """
    views = []
    events = short_names(str(PurePosixPath(one.match.payload.path).parent) for one in found)
    for listed, heading in zip(found, _headings(found, place, t, names), strict=True):
        match, payload = listed.match, listed.match.payload
        path = PurePosixPath(printable(payload.path))
        when = day_text(payload.taken_at, t)
        views.append(
            CardView(
                face_id=match.face_id,
                image_id=payload.image_id,
                event=events[str(PurePosixPath(payload.path).parent)],
                name=path.name,
                path=str(path),
                copied=encodable(payload.path),
                when=when,
                similarity=two_decimals(match.similarity),
                sureness=bands.of(match.similarity),
                person=names.get(payload.person or "", ""),
                person_id=(payload.person or "") if payload.person in names else "",
                more=0 if heading else listed.group_size - 1,
                flaw=next((flaw for flaw in _SHOWN_FLAWS if flaw in payload.flaws), ""),
                page=payload.page + 1 if payload.page else 0,
                is_same=payload.image_id == same,
                is_other=match.similarity < same_person,
                others=tuple(one.face_id for one in listed.together),
                heading=heading,
            )
        )
    return views


def _headings(
    found: Sequence[ListedMatch], place: Place, t: Translator, names: Mapping[str, str]
) -> list[HeadingView | None]:
    """Return the heading above each match: of its group, or where another time begins in a list by time."""
    if place.filters.group in _HEADED:
        return [_group(listed, place, t, names) for listed in found]
    if place.filters.sort == "similarity":
        return [None] * len(found)
    times = _times(found, t)
    return [None if at and times[at - 1] == time else HeadingView(time) for at, time in enumerate(times)]


def _group(listed: ListedMatch, place: Place, t: Translator, names: Mapping[str, str]) -> HeadingView:
    """Return the heading of a group, with a link to all of its matches if there are several."""
    stored, by = listed.match.payload, place.filters.group
    day = (stored.taken_at or "")[:_DAY]
    image_id = stored.image_id if by == "image" else ""
    person_id = (stored.person or "") if by == "person" and stored.person in names else ""
    changes: dict[str, Any]
    if by == "image":
        text = PurePosixPath(printable(stored.path)).name
        changes = {"photo": stored.image_id}
    elif by == "person":
        text, changes = names.get(person_id) or t("result.no_name"), {"named": stored.person or ""}
    else:
        text = day_text(day, t) or t("result.undated")
        changes = {"taken_from": day, "taken_to": day, "undated": not day}
    matches = place.to(group=None, **changes) if listed.group_size > 1 else ""
    return HeadingView(text, image_id, listed.group_size, matches, person_id)


def _times(found: Sequence[ListedMatch], t: Translator) -> list[str]:
    """Return the day, month or year of each match of a list by time, so that there are not too many headings."""
    times = [listed.match.payload.taken_at or "" for listed in found]
    length = next((n for n in (_DAY, _MONTH) if len({time[:n] for time in times}) * _PER_HEADING <= len(times)), _YEAR)
    return [day_text(time[:length], t) or t("result.undated") for time in times]


def crop_view(example: Example, number: int) -> CropView:
    """Make the view of an example; `number` counts from 1."""
    source = f"/thumbs/{example.face_id}" if example.face_id else ""
    if example.crop:
        source = f"data:image/jpeg;base64,{example.crop}"
    return CropView(number, source, example.is_doubtful, example.token, example.crop, example.face_id)


def example_views(examples: Sequence[Example], place: Place) -> tuple[CropView, ...]:
    """Make the views of the examples of a person, with the way to remove each if there are several."""
    views = [crop_view(example, number) for number, example in enumerate(examples, 1)]
    if len(views) == 1:
        return tuple(views)
    tokens = 0
    removable = []
    for number, view in enumerate(views, 1):
        tokens += bool(view.token)
        others = tuple(one.face_id for other, one in enumerate(examples, 1) if one.face_id and other != number)
        if not view.face_id:  # those of a kept search stay
            removable.append(replace(view, drop=0 if place.address.startswith("/kept/") else tokens))
        elif place.address.startswith("/face/"):
            elsewhere = replace(place, address=f"/face/{others[0]}")
            removable.append(replace(view, remove=elsewhere.whole_with(examples=others[1:])))
        else:
            removable.append(replace(view, without=place.to(examples=others) or "size=m"))
    return tuple(removable)


def person_views(views: Sequence[CropView], people: Sequence[Sequence[int]], place: Place) -> tuple[PersonView, ...]:
    """Make the views of several people, each to be searched alone; none for one person.

    Args:
        views: of the examples.
        people: positions of the examples of each person.
        place: the address and the filters.
    """
    if len(people) < 2:
        return ()
    with_token = [at for at, view in enumerate(views) if view.token]
    found = []
    for positions in people:
        shown = tuple(views[at] for at in positions)
        places = " ".join(str(with_token.index(at)) for at in positions if at in with_token)
        address = ""
        if not places:
            alone = Place(f"/face/{shown[0].face_id}", place.filters)
            address = alone.whole_with(examples=tuple(one.face_id for one in shown[1:]))
        found.append(PersonView(shown, places, address))
    return tuple(found)


def photograph_view(asked: Asked) -> PhotographView | None:
    """Reduce the photograph and outline its faces; slow. None if the request brought none, or several."""
    if asked.picture is None:
        return None
    picture, faces = asked.picture, asked.choices or asked.examples
    outlines = [
        outline(one.bbox, number, picture.width, picture.height) for number, one in enumerate(faces, 1) if one.bbox
    ]
    return reduced(picture, outlines)


def reduced(picture: Picture, outlines: Sequence[OutlineView] = ()) -> PhotographView:
    """Reduce a photograph for the page; slow."""
    webp, _ = preview_webp(picture.pixels, _PREVIEW_SIDE)
    uri = f"data:image/webp;base64,{base64.b64encode(webp).decode('ascii')}"
    return PhotographView(uri, picture.width, picture.height, tuple(outlines))


def outline(box: BBox, number: int, width: int, height: int, *, largest_badge: float = _LARGEST_BADGE) -> OutlineView:
    """Make the outline of a face in a photograph of `width` x `height` pixels.

    Args:
        box: of the face.
        number: of the face, from 1.
        width: of the upright photograph.
        height: of the upright photograph.
        largest_badge: radius of the circle with the number, as a share of the longer side of the photograph.
    """
    x1, y1, x2, y2 = box
    longest, shorter = max(width, height), min(x2 - x1, y2 - y1)
    # readable, but does not cover a small face
    radius = max(0.016 * longest, min(largest_badge * longest, 0.35 * shorter))
    leg = 0.24 * shorter
    ends = ((x1, y1, leg, leg), (x2, y1, -leg, leg), (x2, y2, -leg, -leg), (x1, y2, leg, -leg))
    return OutlineView(
        number,
        (round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1)),
        "".join(f"M{x + dx:.1f} {y:.1f}H{x:.1f}V{y + dy:.1f}" for x, y, dx, dy in ends),
        (
            round(min(max(x1, radius), width - radius), 1),
            round(min(max(y1, radius), height - radius), 1),
            round(radius, 1),
        ),
    )


def spans(page: ResultPage) -> tuple[int, int]:
    """Return the positions of the first and the last match of a page, from 1."""
    return page.first, page.first + len(page.matches) - 1
