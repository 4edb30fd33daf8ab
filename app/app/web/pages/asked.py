"""Who a result asks for: examples of a person from photographs, query tokens, indexed faces or a kept search."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from app.core.boxes import area
from app.core.errors import OceanoError
from app.core.types import BBox, Face, Floats, ModelPack, Picture
from app.images import face_thumbnail
from app.service import Query, combined, decode_query, doubtful_examples, encode_query
from app.web.pages.filters import MAX_EXAMPLES

MAX_CHOICES: Final = 12  # faces of one photograph to choose from; the largest ones
MAX_CROP_CHARS: Final = 40_000

_CROP_SIDE: Final = 112


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A face that shows the person, or one of several persons to choose from.

    Attributes:
        embedding: float32, (D,), with norm 1.
        face_id: of an indexed face; empty for a face of a photograph that was sent.
        token: holds the embedding, for the next request; empty for an indexed face.
        crop: a small JPEG file in Base64; empty if there is none, and for an indexed face, which has a thumbnail.
        is_doubtful: it may be someone else, see `app.service.doubtful_examples`.
        bbox: in the photograph, if this request brought it.
    """

    embedding: Floats
    face_id: str = ""
    token: str = ""
    crop: str = ""
    is_doubtful: bool = False
    bbox: BBox | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """The persons that a result asks for.

    Attributes:
        examples: of the person; their embeddings are combined.
        choices: faces of one photograph, of which one is the person; empty if there is nothing to choose.
        face: number of the chosen one, from 1; 0 without choices.
        beside: numbers of the faces that must be in the same image.
        picture: the photograph with the faces, if this request brought it.
    """

    examples: tuple[Example, ...]
    choices: tuple[Example, ...] = ()
    face: int = 0
    beside: tuple[int, ...] = ()
    picture: Picture | None = None

    @property
    def embedding(self) -> Floats:
        """Of the person, float32, (D,), with norm 1."""
        return combined([example.embedding for example in self.examples])

    @property
    def companions(self) -> tuple[Floats, ...]:
        """Embeddings of the faces in `beside`."""
        return tuple(self.choices[number - 1].embedding for number in self.beside)


def of_indexed(face_ids: Sequence[str], embeddings: Sequence[Floats]) -> list[Example]:
    """Make examples of indexed faces."""
    return [Example(embedding, face_id) for face_id, embedding in zip(face_ids, embeddings, strict=True)]


def of_faces(picture: Picture, faces: Sequence[Face], pack: ModelPack) -> list[Example]:
    """Make examples of the faces of a photograph; slow: cuts a crop of each."""
    return [
        Example(
            face.embedding,
            token=encode_query(Query(face.embedding, pack.threshold), pack.digest),
            crop=base64.b64encode(face_thumbnail(picture, face.bbox, _CROP_SIDE)).decode("ascii"),
            bbox=face.bbox,
        )
        for face in faces
    ]


def of_tokens(tokens: Sequence[str], crops: Sequence[str], pack: ModelPack) -> list[Example]:
    """Make examples of the tokens that a page was sent with.

    Args:
        tokens: as `Example.token`.
        crops: as `Example.crop`, one for each token; a missing one is empty.
        pack: the model in use.

    Raises:
        OceanoError: `cursor_invalid` if a token is damaged or of another model, `invalid_request` if a crop is no JPEG.
    """
    given = [crops[place] if place < len(crops) else "" for place in range(len(tokens))]
    return [
        Example(decode_query(token, pack.digest, pack.embedding_size).embedding, token=token, crop=_checked(crop))
        for token, crop in zip(tokens, given, strict=True)
    ]


def crops_of(crops: Sequence[str]) -> list[bytes]:
    """Decode crops that a page was sent with, as `Example.crop`.

    Raises:
        OceanoError: `invalid_request` if one is no JPEG.
    """
    return [base64.b64decode(_checked(crop)) for crop in crops]


def of_embeddings(embeddings: Sequence[Floats], crop: bytes | None, pack: ModelPack) -> list[Example]:
    """Make examples of a kept search; the crop is that of the first."""
    shown = base64.b64encode(crop).decode("ascii") if crop else ""
    return [
        Example(
            embedding,
            token=encode_query(Query(embedding, pack.threshold), pack.digest),
            crop="" if place else shown,
        )
        for place, embedding in enumerate(embeddings)
    ]


def choose(
    choices: Sequence[Example], face: int | None, beside: Sequence[int], picture: Picture | None = None
) -> Asked:
    """Ask for one face of a photograph.

    Args:
        choices: its faces.
        face: number of the face, from 1; None: the largest, or the first without a photograph.
        beside: numbers of the faces that must be in the same image.
        picture: the photograph.

    Raises:
        OceanoError: `invalid_request` if there is no face with a number.
    """
    if face is None:
        sizes = [area(one.bbox) if one.bbox else 0.0 for one in choices]
        face = int(np.argmax(sizes)) + 1
    for number in (face, *beside):
        if not 1 <= number <= len(choices):
            raise OceanoError(
                "invalid_request",
                f"the photograph has {len(choices)} faces",
                details={"field": "face", "value": number},
            )
    others = tuple(dict.fromkeys(number for number in beside if number != face))
    return Asked((choices[face - 1],), tuple(choices) if len(choices) > 1 else (), face, others, picture)


def together(examples: Sequence[Example], threshold: float, picture: Picture | None = None) -> Asked:
    """Ask for the person whom all examples show; some may be doubtful.

    Raises:
        OceanoError: `invalid_request` if there is no example, or more than MAX_EXAMPLES.
    """
    if not 1 <= len(examples) <= MAX_EXAMPLES:
        raise OceanoError(
            "invalid_request", f"send 1 to {MAX_EXAMPLES} photographs of the person", details={"field": "image"}
        )
    doubtful = doubtful_examples([one.embedding for one in examples], threshold)
    marked = [replace(one, is_doubtful=is_doubtful) for one, is_doubtful in zip(examples, doubtful, strict=True)]
    return Asked(tuple(marked), picture=picture)


def _checked(crop: str) -> str:
    """Return a crop that a browser sent back, if it is JPEG in Base64; it goes into the page again."""
    if not crop:
        return ""
    try:
        if len(crop) <= MAX_CROP_CHARS and base64.b64decode(crop, validate=True).startswith(b"\xff\xd8\xff"):
            return crop
    except (binascii.Error, ValueError):
        pass
    raise OceanoError("invalid_request", "a crop must be a small JPEG file in Base64", details={"field": "crop"})
