"""Groups faces that show the same person, from the neighbours that the index finds for each face.

Faces are grouped in batches. A batch asks the index once for the neighbours of its faces, and only groups that contain
such a neighbour are read and changed, so new faces join or found groups without a new start.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from statistics import NormalDist
from threading import Event
from typing import Final

import numpy as np

from app.catalog import FaceTable, GroupedFace, Member
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.types import FACE_NAMESPACE, Score, Strangers
from app.people.groups import FaceBatch, Settings
from app.people.linkage import Images, Linkage, Node

_SEARCHED_AT_ONCE: Final = 256
_READ_AT_ONCE: Final = 2_000
_LEAST_FACES: Final = 10_000  # relatives and look-alikes are in every small index
_STRANGERS: Final = 0.1  # expected above the cut for each face
_FACES_OF_ONE: Final = 8  # person, about
_STRANGE_GROUPS: Final = 0.001  # expected above the cut for each group: they would be merged for good
_SPREAD_OF_MEANS: Final = 0.8  # of that of single pairs, for groups of three faces
_GROUP_SHARE: Final = 0.75
_LOWEST, _HIGHEST = 0.35, 0.5  # of a cut: an estimate of the strangers can be far off


class GroupingStopped(Exception):
    """A batch was given up because the run is to stop; nothing of it was recorded."""


def cut_of(strangers: Strangers, faces: int) -> float:
    """Return the cut for an index: the similarity that a face reaches with 0.1 strangers by chance.

    Args:
        strangers: the similarities of different people with the model.
        faces: in the index; fewer than 10,000 count as 10,000.

    Returns:
        A cosine similarity, 0.35 to 0.5.
    """
    share = _STRANGERS / max(faces, _LEAST_FACES)
    cut = NormalDist(strangers.mean, strangers.deviation).inv_cdf(1 - share)
    return min(_HIGHEST, max(_LOWEST, cut))


def group_cut_of(strangers: Strangers, faces: int, cut: float) -> float:
    """Return the cut of groups: the mean similarity that a group reaches with 0.001 groups of strangers by chance.

    The mean of many pairs of two people varies less than the similarity of one pair.

    Args:
        strangers: the similarities of different people with the model.
        faces: in the index.
        cut: of single faces, see `cut_of`.

    Returns:
        A cosine similarity, from three quarters of the cut to the cut.
    """
    groups = max(1, faces // _FACES_OF_ONE)
    spread = NormalDist(strangers.mean, _SPREAD_OF_MEANS * strangers.deviation)
    return min(cut, max(_GROUP_SHARE * cut, spread.inv_cdf(1 - _STRANGE_GROUPS / groups)))


class BatchGrouping:
    """Groups the faces of a batch, with the groups from earlier batches that are near them.

    Args:
        index: the faces.
        table: the groups.
        settings: how faces are grouped.
        faces: the batch; none of them has a group.
        stop: once set, ends the searches.
    """

    def __init__(
        self, index: FaceIndex, table: FaceTable, settings: Settings, faces: FaceBatch, stop: Event | None = None
    ) -> None:
        self._index, self._table, self._settings, self._faces = index, table, settings, faces
        self._stop = stop or Event()
        self._numbers = {face_id: number for number, face_id in enumerate(faces.face_ids)}
        self._nodes: list[Node] = []  # those of the faces first
        self._labels: list[str] = []  # of the groups, whose nodes follow
        self._sizes: dict[str, int] = {}

    def run(self) -> tuple[list[GroupedFace], list[tuple[str, str]]]:
        """Group the faces; return what is to be recorded: the arguments of `FaceTable.write`.

        Raises:
            GroupingStopped: `stop` was set.
            OceanoError: `index_unavailable`, `ledger_unavailable`.
        """
        edges, outside = self._search()
        self._add_faces()
        edges += self._add_groups(outside)
        linkage = Linkage(self._nodes, self._settings.cut, self._settings.group_cut)
        self._unite_named(linkage)
        linkage.merge_clear(edges)
        linkage.join_poor(edges)
        return self._placed(linkage)

    def _search(self) -> tuple[list[tuple[int, int]], list[tuple[int, str]]]:
        """Return the neighbours: numbers of two faces of the batch, and a number and the id of another face."""
        count = len(self._faces.face_ids)
        inside: set[int] = set()
        outside: list[tuple[int, str]] = []
        with ThreadPoolExecutor(self._settings.workers) as pool:
            for first, found in pool.map(self._neighbours, range(0, count, _SEARCHED_AT_ONCE)):
                for number, scores in enumerate(found, first):
                    for score in scores:
                        other = self._numbers.get(score.face_id)
                        if other is None:
                            outside.append((number, score.face_id))
                        elif other != number:
                            inside.add(min(number, other) * count + max(number, other))
        return [divmod(pair, count) for pair in sorted(inside)], outside

    def _neighbours(self, first: int) -> tuple[int, list[list[Score]]]:
        if self._stop.is_set():
            raise GroupingStopped
        return first, self._index.search_scores(
            list(self._faces.embeddings[first : first + _SEARCHED_AT_ONCE]),
            limit=self._settings.neighbours + 1,  # the face itself is one
            threshold=self._settings.cut,
            candidates=self._settings.candidates,
        )

    def _add_faces(self) -> None:
        faces = self._faces
        for number, face_id in enumerate(faces.face_ids):
            person, rejected = faces.persons.get(face_id), faces.rejected.get(face_id, frozenset())
            images = Images([hash(faces.image_ids[number])])
            self._nodes.append(
                Node(faces.embeddings[number], int(faces.clear[number]), images, person, rejected - {person})
            )

    def _add_groups(self, outside: Sequence[tuple[int, str]]) -> list[tuple[int, int]]:
        """Add the groups of other faces, and those of the persons in the batch; return the edges to them."""
        known = self._table.known({face_id for _, face_id in outside})
        groups = {face_id: one.group_id for face_id, one in known.items() if one.group_id and one.is_face}
        of_persons = {person for name in self._faces.face_ids if (person := self._faces.persons.get(name))}
        chosen: list[list[str]] = []
        for label, members in groupby(
            self._table.members(sorted({*groups.values(), *of_persons})), lambda member: member.group_id
        ):
            chosen.append(self._add_group(label, members))
        self._estimate(chosen)
        places = {label: len(self._faces.face_ids) + place for place, label in enumerate(self._labels)}
        return sorted({(number, places[groups[name]]) for number, name in outside if groups.get(name) in places})

    def _add_group(self, label: str, members: Iterator[Member]) -> list[str]:
        """Add a group without its sum; return the faces that its sum is estimated from."""
        images: list[int] = []
        clear: list[str] = []
        any_face = ""
        weight, is_person, rejected = 0, False, set[str]()
        for member in members:
            images.append(hash(member.image_id))
            any_face = any_face or member.face_id
            is_person |= member.person_id == label
            if member.face_id in self._faces.rejected:
                rejected |= self._faces.rejected[member.face_id] - {member.person_id}
            if member.clear:
                weight += 1
                if len(clear) < self._settings.sample:  # ids are hashes, so that the first ones are any
                    clear.append(member.face_id)
        empty = np.zeros(self._faces.embeddings.shape[1], np.float32)
        person = label if is_person else None
        self._nodes.append(Node(empty, weight, Images((), images), person, frozenset(rejected)))
        self._labels.append(label)
        self._sizes[label] = len(images)
        return clear or [any_face]

    def _estimate(self, chosen: Sequence[Sequence[str]]) -> None:
        """Set the sums of the groups from some of their faces; a group whose faces were deleted has none."""
        first = len(self._faces.face_ids)
        owners = {face_id: first + place for place, names in enumerate(chosen) for face_id in names}
        found = [0] * len(self._nodes)
        for names in chunks(owners, _READ_AT_ONCE):
            for record in self._index.retrieve(names, with_embedding=True):
                if record.embedding is not None:
                    self._nodes[owners[record.face_id]].total += record.embedding
                    found[owners[record.face_id]] += 1
        for number in range(first, len(self._nodes)):
            node = self._nodes[number]
            if found[number]:
                node.total *= max(node.clear, 1) / found[number]
            else:
                node.clear = 0

    def _unite_named(self, linkage: Linkage) -> None:
        first: dict[str, int] = {}
        for number, node in enumerate(self._nodes):
            if node.person is not None:
                linkage.unite(first.setdefault(node.person, number), number)

    def _placed(self, linkage: Linkage) -> tuple[list[GroupedFace], list[tuple[str, str]]]:
        faces = self._faces
        names = self._names(linkage)
        rows = [
            GroupedFace(face_id, faces.image_ids[number], names[linkage.find(number)], bool(faces.clear[number]))
            for number, face_id in enumerate(faces.face_ids)
        ]
        merged = [
            (label, group)
            for number, label in enumerate(self._labels, len(faces.face_ids))
            if (group := names[linkage.find(number)]) != label
        ]
        return rows, merged

    def _names(self, linkage: Linkage) -> dict[int, str]:
        """Return the ids of the groups by root: the person's, that of the largest earlier one, or of the first face."""
        names: dict[int, str] = {}
        earlier: dict[int, str] = {}
        for number, label in enumerate(self._labels, len(self._faces.face_ids)):
            root = linkage.find(number)
            best = earlier.get(root, label)
            earlier[root] = min(best, label, key=lambda one: (-self._sizes[one], one))
        for number, face_id in enumerate(self._faces.face_ids):
            root = linkage.find(number)
            if root not in names:
                names[root] = self._nodes[root].person or earlier.get(root, face_id)
        for root, label in earlier.items():
            names.setdefault(root, self._nodes[root].person or label)
        return self._unique(names, known=set(self._labels))

    def _unique(self, names: dict[int, str], known: set[str]) -> dict[int, str]:
        """Give new groups other ids than those that exist: a face may have left the group that has its id."""
        left = {root: name for root, name in names.items() if name in self._numbers and name not in known}
        while left:
            taken = self._table.groups_among(sorted(set(left.values())))
            left = {root: str(uuid.uuid5(FACE_NAMESPACE, name)) for root, name in left.items() if name in taken}
            names |= left
        return names
