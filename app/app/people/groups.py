"""The groups of faces as they are kept between runs, and what is asked of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

WORKERS: Final = 2
_GROUP_SHARE: Final = 0.75


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a face is.

    Attributes:
        group: id of its group: of a named person the person's id, else the id of one of the group's faces. A face that
            is like no other is a group of its own, so it counts as looked at.
        image_id: the face's image.
        clear: whether it may found groups and make them merge.
    """

    group: str
    image_id: str
    clear: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """What people have said about the faces.

    Attributes:
        named: the person of each named face, by face_id. All faces of a person are in one group, also two of one image;
            two persons never are.
        apart: pairs that are never in one group; each member is a face_id or the id of a person in `named`. A face
            that `named` gives to a person is in the person's group nevertheless.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    apart: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Settings:
    """How faces are grouped.

    Attributes:
        cut: lowest cosine similarity of neighbours, and lowest mean similarity between two small groups that merge, see
            `cut_of`.
        group_cut: the same if one of the two has three clear faces or more; None: three quarters of `cut`.
        neighbours: number of neighbours that the index is asked for, per face.
        least_quality: a face of lower quality is not clear, nor is one with a flaw.
        batch: faces that are grouped at once; the embeddings of a batch are in memory.
        sample: faces of a group from an earlier batch that its mean is estimated from.
        workers: concurrent searches.
    """

    cut: float
    group_cut: float | None = None
    neighbours: int = 24
    least_quality: float = 0.3
    batch: int = 100_000
    sample: int = 32
    workers: int = WORKERS

    @property
    def least_mean(self) -> float:
        """`group_cut`, or its default."""
        return _GROUP_SHARE * self.cut if self.group_cut is None else self.group_cut


class Groups:
    """The group of every face that was looked at.

    Args:
        placed: rows of an earlier run, by face_id.
    """

    def __init__(self, placed: Iterable[tuple[str, Placed]] = ()) -> None:
        self._placed: dict[str, Placed] = {}
        self._members: dict[str, set[str]] = defaultdict(set)
        for face_id, place in placed:
            self.put(face_id, place)

    def __contains__(self, face_id: str) -> bool:
        return face_id in self._placed

    def __len__(self) -> int:
        return len(self._placed)

    def rows(self) -> Iterator[tuple[str, Placed]]:
        """Yield every face_id with its place, as the constructor takes them."""
        return iter(self._placed.items())

    def of(self, face_id: str) -> Placed | None:
        """Return the place of a face; None if it was not looked at."""
        return self._placed.get(face_id)

    def members(self, group: str) -> list[str]:
        """Return the face_ids of a group, sorted; empty if there is no such group."""
        return sorted(self._members.get(group, ()))

    def put(self, face_id: str, place: Placed) -> None:
        """Place a face, or move it to another group."""
        self.remove(face_id)
        self._placed[face_id] = place
        self._members[place.group].add(face_id)

    def remove(self, face_id: str) -> None:
        """Forget a face, so that it is looked at again; nothing happens if it is not there."""
        if place := self._placed.pop(face_id, None):
            members = self._members[place.group]
            members.discard(face_id)
            if not members:
                del self._members[place.group]

    def largest(self, least: int = 2) -> list[tuple[str, list[str]]]:
        """Return the groups with at least `least` faces and their face_ids, the largest first."""
        found = [(group, sorted(members)) for group, members in self._members.items() if len(members) >= least]
        return sorted(found, key=lambda item: (-len(item[1]), item[0]))
