"""Unnamed faces that are likely to show a person, for somebody to confirm or reject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from app.catalog import CopiedNames, PeopleStore
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FaceRecord, Floats
from app.people.examples import clear_faces, is_clear
from app.people.likeness import score
from app.people.places import at, place_of

Reason = Literal["group", "similar"]
Doubt = Literal["unclear", "somebody_else", "not_similar"]

_EXAMPLES: Final = 32  # clear faces of the person that candidates are compared with
_NEAREST: Final = 200  # unnamed faces near each of them
_GROUPED: Final = 2_000  # faces of the same groups
_LOOK: Final = 3  # examples of one look that are certain: so many are not named wrongly by accident
_COMPARED: Final = 20  # named faces near a candidate, which may show somebody else


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An unnamed face that may show a person.

    Attributes:
        record: the face.
        similarity: mean cosine to the three most similar clear faces of the person.
        reason: it is in one group with faces of the person, or only similar to some of them.
        doubt: why it is not sure: it has a flaw, resembles somebody else as much, or neither the person enough nor
            faces of the group that do. None: it is so likely that all such suggestions may be confirmed together.
    """

    record: FaceRecord
    similarity: float
    reason: Reason
    doubt: Doubt | None

    @property
    def sure(self) -> bool:
        """Whether it may be confirmed together with all others that are sure."""
        return self.doubt is None

    @property
    def clear(self) -> bool:
        """Whether it has no flaw."""
        return is_clear(self.record)


class Suggestions:
    """Suggests faces. Safe for threads.

    Args:
        index: the faces, all or those that somebody may see.
        store: the people.
        faces: their names and groups.
    """

    def __init__(self, index: FaceIndex, store: PeopleStore, faces: CopiedNames) -> None:
        self._index = index
        self._store = store
        self._faces = faces

    def of(self, person_id: str, *, least: float, likely: float, line: float, limit: int) -> list[Suggestion]:
        """Return faces that may show a person, best first, at most one of each picture and none beside the person.

        Args:
            person_id: the person.
            least: lowest similarity of a suggestion that is in no group with the person.
            likely: a suggestion of a group is sure if it has at least this similarity to the person, or to faces of
                the group that do.
            line: any other one is sure if it has at least this similarity to the person.
            limit: the largest number.

        Returns:
            The suggestions; none if no face of the person is clear.

        Raises:
            OceanoError: `index_unavailable`, `ledger_unavailable`.
        """
        examples = clear_faces(self._index, self._store, person_id, _EXAMPLES)
        rows = np.stack([one.embedding for one in examples if one.embedding is not None]) if examples else None
        if rows is None:
            return []
        grouped = set(self._faces.unnamed_beside(person_id, limit=_GROUPED))
        found = self._near(rows, least) | set(grouped)
        records = self._allowed(person_id, self._index.retrieve([*found], with_embedding=True))
        scored = [(score(rows @ one.embedding), one) for one in records if one.embedding is not None]
        kept = [(value, one) for value, one in scored if value >= least or one.face_id in grouped]
        best = _one_of_each_image(kept, grouped)[:limit]
        others = self._nearest_others(person_id, [one for _, one in best])
        core = _core(rows, likely)
        agreeing = _agreeing(core, [one for one in records if one.face_id in grouped], likely)
        suggested = []
        for (value, one), other in zip(best, others, strict=True):
            reason: Reason = "group" if one.face_id in grouped else "similar"
            enough = likely if reason == "group" else line
            to_core = score(core @ one.embedding) if len(core) and one.embedding is not None else None
            doubt = _doubt(one, to_core, other, enough, agrees=one.face_id in agreeing)
            suggested.append(Suggestion(one, value, reason, doubt))
        return suggested

    def _near(self, rows: Floats, least: float) -> set[str]:
        where = FaceFilter(unnamed=True)
        lists = self._index.search_batch([*rows], limit=_NEAREST, threshold=least, where=where)
        return {match.face_id for matches in lists for match in matches}

    def _allowed(self, person_id: str, records: Sequence[FaceRecord]) -> list[FaceRecord]:
        """Leave out faces with a name, dismissed and rejected ones, and those beside a face of the person."""
        images = [record.payload.image_id for record in records]
        assigned = self._store.assignments_in(images)
        rejected = self._store.rejections_in(images)
        dismissed = self._store.dismissals_in(images)
        found = []
        for record in records:
            image_id, place = record.payload.image_id, place_of(record.payload)
            named = assigned.get(image_id, ())
            if any(one.person_id == person_id for one in named) or at(place, named) is not None:
                continue
            if at(place, [one for one in rejected.get(image_id, ()) if one.person_id == person_id]) is not None:
                continue
            if at(place, dismissed.get(image_id, ())) is None:
                found.append(record)
        return found

    def _nearest_others(self, person_id: str, records: Sequence[FaceRecord]) -> list[float]:
        """Return for each face the similarity of the named person, other than this one, whom it resembles most."""
        rows = [one.embedding for one in records if one.embedding is not None]
        lists = self._index.search_batch(rows, limit=_COMPARED, where=FaceFilter(named=True)) if rows else []
        nearest = []
        for matches in lists:
            of_person: dict[str, list[float]] = {}
            for match in matches:
                if (other := match.payload.person) is not None and other != person_id:
                    of_person.setdefault(other, []).append(match.similarity)
            nearest.append(max((score(np.array(values, np.float32)) for values in of_person.values()), default=-1.0))
        return nearest


def _core(rows: Floats, likely: float) -> Floats:
    """Return the examples of a person that certainly show one person; the others may have a wrong name.

    Examples with a cosine of at least `likely`, directly or through others, are one look. Every look of `_LOOK`
    examples counts, or else the one of more than half of all, if there is such a look.

    Args:
        rows: embeddings of the examples, float32, (n, D).
        likely: lowest cosine of two examples of one look.
    """
    together = rows @ rows.T >= likely
    while (wider := together @ together).sum() > together.sum():
        together = wider
    sizes = together.sum(axis=1)  # of the look of each example
    known = sizes >= _LOOK
    if not known.any():
        known = 2 * sizes > len(rows)
    found: Floats = rows[known]
    return found


def _agreeing(core: Floats, records: Sequence[FaceRecord], likely: float) -> set[str]:
    """Return the clear faces that resemble the examples of a person, or each other and some of the examples.

    Args:
        core: embeddings of the examples, float32, (n, D).
        records: faces of the person's groups, with embeddings.
        likely: lowest mean cosine to the three most similar ones.
    """
    agreeing = [*core]
    left = {one.face_id: one.embedding for one in records if is_clear(one) and one.embedding is not None}
    found: set[str] = set()
    while agreeing and left:
        known = np.stack(agreeing)
        new = [face_id for face_id, row in left.items() if score(known @ row) >= likely]
        if not new:
            break
        agreeing += [left.pop(face_id) for face_id in new]
        found.update(new)
    return found


def _doubt(
    record: FaceRecord, similarity: float | None, to_others: float, enough: float, *, agrees: bool
) -> Doubt | None:
    """Return why a face may not be confirmed together with others.

    Args:
        record: the face.
        similarity: to the certain examples of the person; None: there are none.
        to_others: to the next person whom it resembles.
        enough: lowest similarity to the person at which it may.
        agrees: it is in a group of the person and resembles faces there that resemble the person.
    """
    if not is_clear(record):
        return "unclear"
    if similarity is None:
        return "not_similar"
    if to_others >= similarity:
        return "somebody_else"
    return None if agrees or similarity >= enough else "not_similar"


def _one_of_each_image(scored: Sequence[tuple[float, FaceRecord]], grouped: set[str]) -> list[tuple[float, FaceRecord]]:
    """Return the best face of each image, best first; a face of a group comes before one that is only similar."""
    ranked = sorted(scored, key=lambda pair: (pair[1].face_id not in grouped, -pair[0], pair[1].face_id))
    best: dict[str, tuple[float, FaceRecord]] = {}
    for pair in ranked:
        best.setdefault(pair[1].payload.image_id, pair)
    return sorted(best.values(), key=lambda pair: (-pair[0], pair[1].face_id))
