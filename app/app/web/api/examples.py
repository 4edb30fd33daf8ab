"""Who a search asks for: the examples of a person in images, stored faces and embeddings, combined into one query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from app.core.errors import OceanoError
from app.core.types import BBox, Face, Floats, ModelPack
from app.service import (
    Bands,
    Conditions,
    Query,
    Range,
    Services,
    combine_pictures,
    combined,
    doubtful_examples,
    narrowed,
    similarities_to_others,
)
from app.web.api.fields import MAX_EXAMPLES, face_place
from app.web.api.forms import PersonOptions, SearchOptions
from app.web.api.responses import ImageSize
from app.web.uploads import Photographs

ExampleKind = Literal["image", "face_id", "embedding"]


@dataclass(frozen=True, slots=True, eq=False)
class PersonExample:
    """One example of a person.

    Attributes:
        kind: what was sent.
        embedding: float32, (D,), with norm 1.
        similarity: cosine to the other examples combined, -1 to 1; 1 for the only one.
        doubtful: it may show another person, see `app.service.doubtful_examples`.
        image_index: position of the image in the request; None without an image.
        face_index: position of the face in the image, in canonical order; None without an image.
        bbox: of this face.
        face_id: of a stored face.
    """

    kind: ExampleKind
    embedding: Floats
    similarity: float = 1.0
    doubtful: bool = False
    image_index: int | None = None
    face_index: int | None = None
    bbox: BBox | None = None
    face_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """The query for a person, and the examples that it combines."""

    query: Query
    examples: tuple[PersonExample, ...]


@dataclass(frozen=True, slots=True)
class Sighted:
    """The faces of an image in canonical order, and its size."""

    faces: list[Face]
    size: ImageSize


async def faces_of(services: Services, sent: Photographs[SearchOptions]) -> list[Sighted]:
    """Find the faces of every image, one image after another.

    Raises:
        OceanoError: `face_not_found` if an image shows none; and as decoding and detection do.
    """
    found: list[Sighted] = []
    while sent.files:
        picture = await sent.decode_next()
        faces = await services.search.detect(picture, took_ms=sent.took_ms)
        if not faces:
            raise OceanoError(
                "face_not_found",
                f"no face was found in image {len(found)}",
                details={"image_index": len(found), "width": picture.width, "height": picture.height},
            )
        found.append(Sighted(faces, ImageSize.of(picture)))
    return found


def stored_embeddings(services: Services, options: Sequence[PersonOptions]) -> dict[str, Floats]:
    """Read the embeddings of all stored faces that requests name; unknown ones are left out. Blocking."""
    named = {face_id for one in options for face_id in (*one.face_id, *one.with_face_id, *one.not_face_id)}
    records = services.index.retrieve(sorted(named), with_embedding=True) if named else []
    return {record.face_id: record.embedding for record in records if record.embedding is not None}


def conditions_of(options: PersonOptions, stored: Mapping[str, Floats]) -> Conditions:
    """Return the optional fields of a query, apart from its ranges of similarity.

    Raises:
        OceanoError: `face_unknown` if a stored face is not in `stored`.
    """
    return Conditions(
        where=options.where(),
        sort=options.sort,
        group_by=options.group_by,
        min_face=options.min_face,
        together=tuple(_of_stored(options.with_face_id, stored)),
        unlike=tuple(_of_stored(options.not_face_id, stored)),
    )


def person_of(
    options: PersonOptions,
    stored: Mapping[str, Floats],
    pack: ModelPack,
    bands: Bands,
    images: Sequence[Sequence[Face]] = (),
) -> Person:
    """Combine all examples of a request.

    Args:
        options: of the request.
        stored: the embeddings of the stored faces that it names.
        pack: the model in use.
        bands: where each sureness begins.
        images: the faces of its images.

    Raises:
        OceanoError: `invalid_request` if there are too few or too many examples, or one of them is impossible;
            `face_unknown`.
    """
    _check_number(options, len(images))
    known = [
        *(PersonExample("face_id", one, face_id=face_id) for face_id, one in _stored(options.face_id, stored)),
        *(PersonExample("embedding", unit(vector, pack.embedding_size)) for vector in options.embedding),
    ]
    embeddings = [example.embedding for example in known]
    picked: list[PersonExample] = []
    conditions = conditions_of(options, stored)
    if images and isinstance(options, SearchOptions):
        chosen = dict(_places(options.face, images, "face"))
        found, _ = combine_pictures(images, pack.threshold, chosen=chosen, known=embeddings)
        picked = [_of_image(images, one.picture, one.face_index) for one in found]
        beside = [images[image][face].embedding for image, face in _places(options.with_face, images, "with_face")]
        conditions["together"] = (*conditions["together"], *beside)
    threshold, conditions["within"] = threshold_of(options, pack, bands)
    examples = _compared([*picked, *known], pack.threshold)
    return Person(Query(combined([one.embedding for one in examples]), threshold, **conditions), tuple(examples))


def threshold_of(options: PersonOptions, pack: ModelPack, bands: Bands) -> tuple[float, tuple[Range, ...]]:
    """Return the threshold and the ranges of similarity (`Query.within`) that a request asks for."""
    threshold = pack.threshold if options.threshold is None else options.threshold
    return narrowed(threshold, options.sureness, bands)


def unit(vector: Sequence[float], size: int) -> Floats:
    """Scale an embedding to norm 1.

    Args:
        vector: finite numbers, not all 0.
        size: D of the model in use.

    Returns:
        float32, (D,).

    Raises:
        OceanoError: `invalid_request` if the embedding has another length.
    """
    if len(vector) != size:
        raise OceanoError(
            "invalid_request",
            f"an embedding of this model has {size} numbers, not {len(vector)}",
            details={"field": "embedding", "embedding_size": size, "length": len(vector)},
        )
    numbers = np.array(vector, np.float64)
    numbers /= np.abs(numbers).max()  # a square of a large number would be infinite
    return np.asarray(numbers / np.linalg.norm(numbers), np.float32)


def _check_number(options: PersonOptions, images: int) -> None:
    examples = images + len(options.face_id) + len(options.embedding)
    if not examples:
        raise OceanoError(
            "invalid_request",
            "send an `image`, a `face_id` or an `embedding`"
            if isinstance(options, SearchOptions)
            else "send a `face_id` or an `embedding`",
            details={"missing": ["image", "face_id", "embedding"]},
        )
    if examples > MAX_EXAMPLES:
        raise OceanoError(
            "invalid_request",
            f"{examples} examples of one person are too many: at most {MAX_EXAMPLES}",
            details={"examples": examples, "max_examples": MAX_EXAMPLES},
        )
    if isinstance(options, SearchOptions) and options.max_faces is not None:
        raise OceanoError(
            "invalid_request",
            "`max_faces` is for one `image` and no other example; choose a face with `face`",
            details={"field": "max_faces"},
        )


def _places(texts: Sequence[str], images: Sequence[Sequence[Face]], field: str) -> list[tuple[int, int]]:
    places = [face_place(text) for text in texts]
    for text, (image, face) in zip(texts, places, strict=True):
        if image >= len(images) or face >= len(images[image]):
            raise OceanoError(
                "invalid_request",
                f"there is no face {text}: the images have {', '.join(str(len(faces)) for faces in images)} faces",
                details={"field": field, "value": text, "faces": [len(faces) for faces in images]},
            )
    return places


def _of_image(images: Sequence[Sequence[Face]], image: int, place: int) -> PersonExample:
    face = images[image][place]
    return PersonExample("image", face.embedding, image_index=image, face_index=place, bbox=face.bbox)


def _stored(face_ids: Sequence[str], stored: Mapping[str, Floats]) -> list[tuple[str, Floats]]:
    for face_id in face_ids:
        if face_id not in stored:
            raise OceanoError("face_unknown", "no face with this id is in the index", details={"face_id": face_id})
    return [(face_id, stored[face_id]) for face_id in face_ids]


def _of_stored(face_ids: Sequence[str], stored: Mapping[str, Floats]) -> list[Floats]:
    return [embedding for _, embedding in _stored(face_ids, stored)]


def _compared(examples: Sequence[PersonExample], threshold: float) -> list[PersonExample]:
    """Compare every example with the others."""
    embeddings = [example.embedding for example in examples]
    found = zip(examples, similarities_to_others(embeddings), doubtful_examples(embeddings, threshold), strict=True)
    return [replace(example, similarity=similarity, doubtful=doubtful) for example, similarity, doubtful in found]
