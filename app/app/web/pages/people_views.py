"""View models of the pages of people, ready for the templates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from app.catalog import Person
from app.core.texts import Translator
from app.core.types import FaceRecord
from app.people import Suggestion
from app.service import Bands, PersonFace, ShownGroup, ShownPerson, Sureness, Together, two_decimals
from app.web.pages.names import printable, short_names
from app.web.pages.result_views import day_text

_SHOWN_FLAWS: Final = ("blurred", "extreme_pose", "face_too_small", "low_detection_score")  # the first is shown


@dataclass(frozen=True, slots=True)
class PersonTile:
    """A person in a list.

    Attributes:
        id: in the address of the person's page.
        name: for display; empty if the person has none.
        cover: face_id; empty if there is none.
        faces: their number.
        version: of the person.
        images: number of images with the person of the page; 0 in other lists.
        beside: face_id of the cover of the person of the page, for a search for both; empty in other lists.
        hidden: whether the person is.
        waiting: number of faces to be confirmed or rejected.
    """

    id: str
    name: str
    cover: str
    faces: int
    version: int
    images: int = 0
    beside: str = ""
    hidden: bool = False
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class GroupTile:
    """Unnamed faces of one person: the id of the group, their number, and some of them."""

    id: str
    faces: int
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FaceView:
    """A face on the page of a person or a group.

    Attributes:
        face_id: the face.
        image_id: its image.
        event: name of the folder.
        name: name of the file.
        path: of the file.
        when: day of the photograph in words; empty if unknown.
        flaw: why the face may be hard to recognise; empty if it is clear.
        similarity: two decimals; empty where faces are not compared.
        sureness: what the similarity means; None without one.
        reason: `group` or `similar` for a suggestion; empty for others.
        sure: a suggestion that may be confirmed with all others like it.
        doubt: why it may not; empty if it is sure.
    """

    face_id: str
    image_id: str
    event: str
    name: str
    path: str
    when: str
    flaw: str
    similarity: str = ""
    sureness: Sureness | None = None
    reason: str = ""
    sure: bool = False
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class PersonView:
    """A person with a page.

    Attributes:
        id: the person.
        name: as it is, for the form; may be empty.
        shown: the name for display; in place of an empty one, a text that says so.
        cover: face_id; empty if there is none.
        faces: their number.
        hidden: left out of what shows or offers people.
        birth_date: as it is; empty if unknown.
        born: the same in words.
        notes: any text.
        version: for forms.
    """

    id: str
    name: str
    shown: str
    cover: str
    faces: int
    hidden: bool
    birth_date: str
    born: str
    notes: str
    version: int


def shown_name(person: Person | None, t: Translator) -> str:
    """Return the name of a person for display; of one without a name, a text that says so. Empty for None."""
    if person is None:
        return ""
    return printable(person.name) or t("person.no_name")


def name_beside(person: Person | None, t: Translator) -> str:
    """Return the name of a person for a face that is shown; of somebody hidden, a text that says so. Empty for None."""
    return t("person.hidden_one") if person is not None and person.hidden else shown_name(person, t)


def person_tile(shown: ShownPerson, waiting: int = 0) -> PersonTile:
    """Make the tile of a person, with the number of faces that wait for an answer."""
    one = shown.person
    return PersonTile(
        one.id,
        printable(one.name),
        shown.cover or "",
        shown.faces,
        one.version,
        hidden=one.hidden,
        waiting=waiting,
    )


def together_tiles(found: Iterable[Together], cover: str | None) -> tuple[PersonTile, ...]:
    """Make the tiles of the people who are in images with a person, whose cover is given."""
    return tuple(
        PersonTile(
            one.person.person.id,
            printable(one.person.person.name),
            one.person.cover or "",
            one.person.faces,
            one.person.person.version,
            one.images,
            cover or "",
        )
        for one in found
    )


def group_tile(group: ShownGroup) -> GroupTile:
    """Make the tile of a group."""
    return GroupTile(group.id, group.faces, group.face_ids)


def person_view(shown: ShownPerson, t: Translator) -> PersonView:
    """Make the view of the person of a page."""
    one = shown.person
    return PersonView(
        one.id,
        one.name,
        shown_name(one, t),
        shown.cover or "",
        shown.faces,
        one.hidden,
        one.birth_date or "",
        day_text(one.birth_date, t),
        one.notes or "",
        one.version,
    )


def face_views(faces: Sequence[PersonFace], t: Translator) -> tuple[FaceView, ...]:
    """Make the views of faces of a person or a group."""
    events = _events(one.record for one in faces)
    return tuple(_face(one.record, events, t) for one in faces)


def suggestion_views(found: Sequence[Suggestion], bands: Bands, t: Translator) -> tuple[FaceView, ...]:
    """Make the views of suggestions, with what their similarities mean."""
    events = _events(one.record for one in found)
    views = []
    for one in found:
        view = _face(one.record, events, t)
        views.append(
            FaceView(
                view.face_id,
                view.image_id,
                view.event,
                view.name,
                view.path,
                view.when,
                view.flaw,
                two_decimals(one.similarity),
                bands.of(one.similarity),
                one.reason,
                one.sure,
                one.doubt or "",
            )
        )
    return tuple(views)


def _events(records: Iterable[FaceRecord]) -> dict[str, str]:
    return short_names(str(PurePosixPath(one.payload.path).parent) for one in records)


def _face(record: FaceRecord, events: dict[str, str], t: Translator) -> FaceView:
    stored = record.payload
    path = PurePosixPath(printable(stored.path))
    return FaceView(
        record.face_id,
        stored.image_id,
        events[str(PurePosixPath(stored.path).parent)],
        path.name,
        str(path),
        day_text(stored.taken_at, t),
        next((flaw for flaw in _SHOWN_FLAWS if flaw in stored.flaws), ""),
    )
