"""The JSON bodies of searches: matches, the faces or examples that they belong to, and further pages."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.core.paths import readable
from app.core.types import BBox, Match
from app.service import Bands, FaceMatches, ListedMatch, ResultPage, Services, Sureness
from app.web.api.examples import ExampleKind, PersonExample
from app.web.api.person_names import IdentifiedFace, Names, PersonRef
from app.web.api.responses import FoundFace, ImageSize, Model, Response, rounded, rounded_box, thumb_url
from app.web.errors import Problem


class FurtherFace(BaseModel):
    """The face of a further person in the same image."""

    face_id: str
    similarity: float = Field(description="cosine to that person, -1 to 1")
    sureness: Sureness
    person: PersonRef | None
    bbox: BBox = Field(description="x1, y1, x2, y2 in pixels of the upright image")
    thumb_url: str

    @classmethod
    def of(cls, match: Match, bands: Bands, names: Names, root_path: str = "") -> FurtherFace:
        """Describe a face."""
        return cls(
            face_id=match.face_id,
            similarity=round(match.similarity, 6),
            sureness=bands.of(match.similarity),
            person=names.of(match.payload),
            bbox=rounded_box(match.payload.bbox),
            thumb_url=thumb_url(match.face_id, root_path),
        )


class MatchedFace(BaseModel):
    """A stored face that resembles a face of the query."""

    face_id: str
    image_id: str = Field(description="SHA-256 of the image file, hex")
    similarity: float = Field(description="cosine, -1 to 1")
    sureness: Sureness = Field(description="what the similarity means with this model and this many faces")
    person: PersonRef | None = Field(description="whom the face shows, as somebody named it")
    path: str = Field(description="absolute path of the image file")
    page: int = Field(description="page of the image file that shows the face, from 0")
    width: int = Field(description="of the upright image, in pixels")
    height: int
    taken_at: str | None = Field(description="time of the photograph, ISO 8601, with an offset if it is known")
    bbox: BBox = Field(description="x1, y1, x2, y2 in pixels of the upright image")
    quality: float
    flaws: list[str]
    group_size: int = Field(description="with `group_by`, number of matches in its group; else 1")
    together: list[FurtherFace] = Field(description="faces of the further persons, in the order of the request")
    thumb_url: str
    image_url: str = Field(description="address of `GET /images/{image_id}`")

    @classmethod
    def of(cls, listed: ListedMatch, bands: Bands, names: Names, root_path: str = "") -> MatchedFace:
        """Describe a match."""
        match = listed.match
        stored = match.payload
        return cls(
            face_id=match.face_id,
            image_id=stored.image_id,
            similarity=round(match.similarity, 6),
            sureness=bands.of(match.similarity),
            person=names.of(stored),
            path=readable(stored.path),
            page=stored.page,
            width=stored.width,
            height=stored.height,
            taken_at=stored.taken_at,
            bbox=rounded_box(stored.bbox),
            quality=round(stored.quality, 4),
            flaws=list(stored.flaws),
            group_size=listed.group_size,
            together=[FurtherFace.of(one, bands, names, root_path) for one in listed.together],
            thumb_url=thumb_url(match.face_id, root_path),
            image_url=f"{root_path}/images/{stored.image_id}",
        )


class SearchedFace(FoundFace):
    """A face of the query with its matches, best first."""

    matches: list[MatchedFace]
    more: bool = Field(description="the index has more matches than these")
    next: str | None = Field(description="`after` of `POST /search/more`, for the matches after these; null at the end")
    identified: IdentifiedFace | None = Field(
        description="with `identify`, who it is likely to be; null if nobody with a name resembles it"
    )

    @classmethod
    def with_matches(
        cls,
        found: FaceMatches,
        bands: Bands,
        names: Names,
        identified: IdentifiedFace | None = None,
        root_path: str = "",
    ) -> SearchedFace:
        """Describe a face and its matches."""
        face = FoundFace.of(found.face_index, found.face)
        matches = [MatchedFace.of(listed, bands, names, root_path) for listed in found.matches]
        return cls(**face.model_dump(), matches=matches, more=found.more, next=found.next, identified=identified)


class CombinedExample(BaseModel):
    """One example of the person: a face of an image, a stored face or an embedding."""

    kind: ExampleKind
    image_index: int | None = Field(description="position among the images of the request, from 0")
    face_index: int | None = Field(description="position among the image's faces, as in `POST /detect`")
    bbox: BBox | None = Field(description="x1, y1, x2, y2 in pixels of the upright image")
    face_id: str | None = Field(description="of a stored face")
    similarity: float = Field(description="cosine to the other examples combined, -1 to 1; 1 for the only example")
    doubtful: bool = Field(
        description="it resembles neither the other examples combined nor the first one: it may show another person"
    )

    @classmethod
    def of(cls, example: PersonExample) -> CombinedExample:
        """Describe an example."""
        return cls(
            kind=example.kind,
            image_index=example.image_index,
            face_index=example.face_index,
            bbox=None if example.bbox is None else rounded_box(example.bbox),
            face_id=example.face_id,
            similarity=round(example.similarity, 6),
            doubtful=example.doubtful,
        )


class CombinedMatches(BaseModel):
    """One query of all examples, with its matches."""

    examples: list[CombinedExample]
    matches: list[MatchedFace]
    more: bool = Field(description="the index has more matches than these")
    next: str | None = Field(description="`after` of `POST /search/more`, for the matches after these; null at the end")
    identified: IdentifiedFace | None = Field(
        description="with `identify`, who the examples are likely to show; null if nobody with a name resembles them"
    )

    @classmethod
    def of(
        cls,
        examples: tuple[PersonExample, ...],
        page: ResultPage,
        bands: Bands,
        names: Names,
        identified: IdentifiedFace | None = None,
        root_path: str = "",
    ) -> CombinedMatches:
        """Describe the first page of a query."""
        return cls(
            examples=[CombinedExample.of(example) for example in examples],
            matches=[MatchedFace.of(listed, bands, names, root_path) for listed in page.matches],
            more=page.next is not None,
            next=page.next,
            identified=identified,
        )


class SearchResponse(Response):
    """Body of `POST /search` and of `POST /faces/{face_id}/search`."""

    threshold: float = Field(description="least cosine of a match")
    image: ImageSize | None = Field(description="of the only image of the request; null if there are none or several")
    faces: list[SearchedFace] = Field(description="faces of the only example, an image; else empty")
    combined: CombinedMatches | None = Field(description="the combined query of all examples; null if `faces` is used")
    undated_left_out: int | None = Field(
        description="stored faces without a date that `taken_from` or `taken_to` leaves out; null without these fields"
    )
    took_ms: dict[str, float] = Field(description="milliseconds per stage, and `total`")


class MoreResponse(Response):
    """Body of `POST /search/more`: the next page of matches."""

    threshold: float = Field(description="least cosine of a match, as in the search")
    matches: list[MatchedFace]
    first: int = Field(description="position of the first match among all matches, from 1")
    total: int | None = Field(description="number of all matches; null if it is not known")
    next: str | None = Field(description="`after` of the next page; null at the end")
    took_ms: dict[str, float] = Field(description="milliseconds per stage, and `total`")

    @classmethod
    def of(cls, page: ResultPage, services: Services, names: Names, root_path: str = "") -> MoreResponse:
        """Describe a page."""
        bands = services.bands
        return cls(
            model=Model.of(services.engine.pack),
            threshold=page.threshold,
            matches=[MatchedFace.of(listed, bands, names, root_path) for listed in page.matches],
            first=page.first,
            total=page.total,
            next=page.next,
            took_ms=rounded(page.took_ms),
        )


class BatchResult(BaseModel):
    """The result of one query of a batch, or its error."""

    threshold: float | None = Field(description="least cosine of a match; null with an error")
    combined: CombinedMatches | None = Field(description="as in `POST /search`; null with an error")
    undated_left_out: int | None = Field(description="as in `POST /search`")
    error: Problem | None = Field(description="what is wrong with this query; null if it was answered")


class BatchResponse(Response):
    """Body of `POST /search/batch`."""

    results: list[BatchResult] = Field(description="one for each query, in their order")
    took_ms: dict[str, float] = Field(description="milliseconds of all queries together")
