"""The types of fields that forms and JSON bodies share, and what an error says of a wrong one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, StringConstraints

from app.core.paths import absolute
from app.core.types import FLAWS, Flaw
from app.service import MAX_LIMIT, SURENESSES, Sureness

MAX_EXAMPLES: Final = 10  # photographs, stored faces and embeddings of one person together

_MAX_FOLDERS: Final = 20
_MAX_OTHERS: Final = 10  # further persons, and persons who are not meant
_MAX_SIZE: Final = 4096  # of an embedding
_MAX_FACES: Final = 1000  # of one image
_ISO_TIME: Final = (
    r"^[0-9]{4}(-[0-9]{2}(-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?$"
)
UUID: Final = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_TIME: Final = "a year, month, day or time, such as 2021, 2021-06, 2021-06-30 or 2021-06-30T18:00:00+02:00"
_COSINE: Final = "a number from -1 to 1"
_SHARE: Final = "a number from 0 to 1"

VALID: Final[Mapping[str, str]] = {
    "limit": f"a whole number from 1 to {MAX_LIMIT}",
    "threshold": _COSINE,
    "sureness": "one or several, comma-separated, of: " + ", ".join(SURENESSES),
    "max_faces": f"a whole number from 1 to {_MAX_FACES}",
    "sort": "similarity, newest or oldest",
    "group_by": "image_id, person, day or alike",
    "min_face": "a whole number of pixels from 1 to 10000",
    "person": "the id of a person, a UUID",
    "named": "true or false",
    "unnamed": "true or false",
    "folder": f"an absolute path of at most 4096 characters, such as /photos/2021; at most {_MAX_FOLDERS} of them",
    "image_id": "a SHA-256 of 64 hexadecimal digits in lower case",
    "taken_from": _TIME,
    "taken_to": _TIME,
    "undated": "true or false",
    "ingested_from": _TIME,
    "ingested_to": _TIME,
    "min_det_score": _SHARE,
    "min_quality": _SHARE,
    "without": "flaws, comma-separated, of: " + ", ".join(FLAWS),
    "all_pairs": "true or false",
    "identify": "true or false",
    "after": "`next` of the page before",
    "face_id": f"the face_id of a stored face, a UUID; at most {MAX_EXAMPLES} of them",
    "embedding": f"a JSON array of finite numbers that are not all 0; at most {MAX_EXAMPLES} arrays",
    "face": "image_index:face_index, such as 0:2, both from 0; one for each image",
    "with_face": "image_index:face_index, such as 0:2, both from 0",
    "with_face_id": f"the face_id of a stored face, a UUID; at most {_MAX_OTHERS} of them",
    "not_face_id": f"the face_id of a stored face, a UUID; at most {_MAX_OTHERS} of them",
}  # what a field must be


def _is_a_time(text: str) -> str:
    datetime.fromisoformat((text + "-01-01")[:10] if len(text) < len("2021-06-30") else text)
    return text


def _absolute(folders: tuple[str, ...]) -> tuple[str, ...]:
    if len(folders) > _MAX_FOLDERS or any(not folder.startswith("/") or len(folder) > 4096 for folder in folders):
        raise ValueError("no absolute paths")
    return tuple(absolute(Path(folder)) for folder in folders)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _comma_separated(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _at_most(most: int, values: tuple[str, ...]) -> tuple[str, ...]:
    lower = tuple(dict.fromkeys(value.lower() for value in values))
    if len(lower) > most:
        raise ValueError("too many")
    return lower


def _vectors(value: object) -> object:
    """Read arrays of numbers, or their JSON text; one array alone counts as a list of one."""
    values = value if isinstance(value, list | tuple) else [value]
    if values and all(isinstance(one, int | float) for one in values):
        values = [values]
    try:
        vectors = [json.loads(one) if isinstance(one, str) else one for one in values]
    except RecursionError:
        raise ValueError("no arrays of numbers") from None
    if len(vectors) > MAX_EXAMPLES or not all(_is_direction(vector) for vector in vectors):
        raise ValueError("no arrays of numbers")
    return vectors


def _is_direction(vector: object) -> bool:
    if not isinstance(vector, list | tuple) or not 0 < len(vector) <= _MAX_SIZE:
        return False
    numbers = [one for one in vector if isinstance(one, int | float) and not isinstance(one, bool)]
    return len(numbers) == len(vector) and all(map(_is_finite, numbers)) and any(numbers)


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer with hundreds of digits
        return False


def _one_for_each(places: tuple[str, ...]) -> tuple[str, ...]:
    if len({int(place.split(":")[0]) for place in places}) < len(places):
        raise ValueError("several faces of one image")
    return places


IsoTime = Annotated[str, StringConstraints(pattern=_ISO_TIME), AfterValidator(_is_a_time)]
Folders = Annotated[tuple[str, ...], BeforeValidator(_as_list), AfterValidator(_absolute)]
Flaws = Annotated[tuple[Flaw, ...], BeforeValidator(_comma_separated)]
Surenesses = Annotated[tuple[Sureness, ...], BeforeValidator(_comma_separated)]
_FaceId = Annotated[str, StringConstraints(pattern=UUID)]
PersonId = Annotated[str, StringConstraints(pattern=UUID, to_lower=True)]
ExampleIds = Annotated[
    tuple[_FaceId, ...], BeforeValidator(_as_list), AfterValidator(lambda ids: _at_most(MAX_EXAMPLES, ids))
]
OtherIds = Annotated[
    tuple[_FaceId, ...], BeforeValidator(_as_list), AfterValidator(lambda ids: _at_most(_MAX_OTHERS, ids))
]
Vectors = Annotated[tuple[tuple[float, ...], ...], BeforeValidator(_vectors)]
_FacePlace = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}:[0-9]{1,4}$")]
FacePlaces = Annotated[tuple[_FacePlace, ...], BeforeValidator(_as_list)]
ChosenFaces = Annotated[FacePlaces, AfterValidator(_one_for_each)]


def face_place(text: str) -> tuple[int, int]:
    """Return the numbers of an image and of a face in it, both from 0, of a text such as "0:2"."""
    image, face = text.split(":")
    return int(image), int(face)
