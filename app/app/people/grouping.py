"""Groups faces that show the same person, from the neighbours that the index finds for each face.

Faces are grouped in batches. A batch asks the index once for the neighbours of its faces, and only groups that contain
such a neighbour are touched, so new faces join or found groups without a new start. A run that was interrupted goes on
with the faces that are not in `Groups`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import NormalDist
from typing import Final

import numpy as np

from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.types import FACE_NAMESPACE, FacePayload, FaceRecord, Floats, Strangers
from app.people.groups import Groups, Placed, Rules, Settings
from app.people.linkage import Linkage, Node

_SEARCHED_AT_ONCE: Final = 256
_READ_AT_ONCE: Final = 2_000
_LEAST_FACES: Final = 10_000  # relatives and look-alikes are in every small index
_STRANGERS: Final = 0.1  # expected above the cut for each face
_LOWEST, _HIGHEST = 0.35, 0.5  # of a cut: an estimate of the strangers can be far off


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


def group_faces(
    index: FaceIndex,
    groups: Groups,
    settings: Settings,
    rules: Rules | None = None,
    *,
    new: Iterable[str] | None = None,
    done: Callable[[int], None] = lambda faces: None,
) -> None:
    """Group the faces that are not in `groups` yet, and those that the rules move.

    Args:
        index: the faces.
        groups: is changed, after each batch; a copy stored then is enough to go on from.
        settings: how faces are grouped.
        rules: names and rejections.
        new: face_ids that may be new; None: every face of the index is read.
        done: called after each batch with its number of faces.

    Raises:
        OceanoError: `index_unavailable`.
    """
    rules = rules or Rules()
    again = _moved(groups, rules)
    for face_id in again:
        groups.remove(face_id)
    for records in _batches(index, groups, settings.batch, new if new is None else [*new, *sorted(again)]):
        _Batch(index, groups, settings, rules, records).run()
        done(len(records))


def _moved(groups: Groups, rules: Rules) -> set[str]:
    """Return the faces to look at again: rejected ones, and those of a group in which names contradict each other.

    A group whose named faces are all of one person becomes the person's group at once.
    """
    named: dict[str, set[str]] = {}
    for face_id, person in rules.named.items():
        if place := groups.of(face_id):
            named.setdefault(place.group, set()).add(person)
    again: set[str] = set()
    for group, persons in sorted(named.items()):
        if len(persons) > 1 or (group not in persons and not _renamed(groups, group, *persons)):
            again.update(groups.members(group))
    for one, other in rules.apart:
        home = _home(groups, rules, one)
        if home is not None and home == _home(groups, rules, other):
            again.update(name for name in (one, other) if name in groups and name not in rules.named)
    return again


def _renamed(groups: Groups, group: str, person: str) -> bool:
    """Give a group the id of a person without a group; return False if the person has one."""
    if groups.members(person):
        return False
    for face_id in groups.members(group):
        if place := groups.of(face_id):
            groups.put(face_id, replace(place, group=person))
    return True


def _home(groups: Groups, rules: Rules, name: str) -> str | None:
    """Return the group of a face or of a person."""
    if place := groups.of(name):
        return rules.named.get(name, place.group)
    return name if groups.members(name) else None


def _batches(index: FaceIndex, groups: Groups, size: int, new: Sequence[str] | None) -> Iterator[list[FaceRecord]]:
    """Yield the faces that are not in the groups, with embeddings, in the order of their ids."""
    batch: list[FaceRecord] = []
    for records in _read(index, groups, new):
        batch += [record for record in records if record.face_id not in groups and record.embedding is not None]
        while len(batch) >= size:
            yield batch[:size]
            batch = batch[size:]
    if batch:
        yield batch


def _read(index: FaceIndex, groups: Groups, new: Sequence[str] | None) -> Iterator[Sequence[FaceRecord]]:
    if new is not None:
        for ids in chunks(sorted({face_id for face_id in new if face_id not in groups}), _READ_AT_ONCE):
            yield index.retrieve(ids, with_embedding=True)
        return
    offset: str | None = None
    while True:
        page = index.scroll(limit=_READ_AT_ONCE, offset=offset, with_embedding=True)
        yield page.records
        if (offset := page.next_offset) is None:
            return


class _Batch:
    """Groups some faces, with the groups from earlier batches that are near them."""

    def __init__(
        self, index: FaceIndex, groups: Groups, settings: Settings, rules: Rules, records: list[FaceRecord]
    ) -> None:
        self._index, self._groups, self._settings, self._rules = index, groups, settings, rules
        self._records = {record.face_id: record for record in sorted(records, key=lambda record: record.face_id)}
        self._persons = set(rules.named.values())
        self._nodes: list[Node] = []
        self._numbers: dict[str, int] = {}  # of nodes, by face_id of a new face or id of an earlier group

    def run(self) -> None:
        """Group the faces and place them."""
        pairs = self._pairs()
        self._add_faces()
        own = {person for face_id in self._records if (person := self._rules.named.get(face_id)) is not None}
        self._add_groups({label for pair in pairs for label in pair if label not in self._records} | own)
        self._set_apart()
        edges = sorted({(min(a, b), max(a, b)) for a, b in self._numbered(pairs)})
        linkage = Linkage(self._nodes, self._settings.cut, self._settings.least_mean)
        self._unite_named(linkage)
        linkage.merge_clear(edges)
        linkage.join_poor(edges)
        self._place(linkage)

    def _pairs(self) -> set[tuple[str, str]]:
        """Return the neighbours: pairs of new faces, and of a new face and an earlier group."""
        pairs: set[tuple[str, str]] = set()
        with ThreadPoolExecutor(self._settings.workers) as pool:
            for found in pool.map(self._search, chunks(list(self._records.values()), _SEARCHED_AT_ONCE)):
                pairs.update(found)
        return pairs

    def _search(self, records: Sequence[FaceRecord]) -> list[tuple[str, str]]:
        found = self._index.search_batch(
            [record.embedding for record in records if record.embedding is not None],
            limit=self._settings.neighbours + 1,  # the face itself is one
            threshold=self._settings.cut,
        )
        pairs = []
        for record, matches in zip(records, found, strict=True):
            for match in matches:
                if match.face_id in self._records:
                    if match.face_id != record.face_id:
                        pairs.append((min(record.face_id, match.face_id), max(record.face_id, match.face_id)))
                elif place := self._groups.of(match.face_id):
                    pairs.append((record.face_id, place.group))
        return pairs

    def _numbered(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[int, int]]:
        for one, other in pairs:
            if one in self._numbers and other in self._numbers:
                yield self._numbers[one], self._numbers[other]

    def _add(self, label: str, node: Node) -> None:
        self._numbers[label] = len(self._nodes)
        self._nodes.append(node)

    def _add_faces(self) -> None:
        for face_id, record in self._records.items():
            assert record.embedding is not None  # noqa: S101 - `_batches` yields no others
            clear = int(self._is_clear(record.payload))
            image = {record.payload.image_id}
            self._add(face_id, Node(record.embedding, clear, image, self._rules.named.get(face_id)))

    def _add_groups(self, labels: set[str]) -> None:
        """Add earlier groups; the sum of a large one is estimated from some of its clear faces."""
        members = {label: self._groups.members(label) for label in sorted(labels)}
        clear = {label: [name for name in names if self._clear(name)] for label, names in members.items()}
        chosen = {label: _spread(clear[label] or names[:1], self._settings.sample) for label, names in members.items()}
        wanted = [name for names in chosen.values() for name in names]
        rows: dict[str, Floats | None] = {}
        for names in chunks(wanted, _READ_AT_ONCE):
            rows |= {record.face_id: record.embedding for record in self._index.retrieve(names, with_embedding=True)}
        for label, names in chosen.items():
            known = [row for name in names if (row := rows.get(name)) is not None]
            if known:  # else its faces were deleted
                weight = len(clear[label])
                total = np.asarray(np.sum(known, axis=0) * (max(weight, 1) / len(known)), np.float32)
                images = {place.image_id for name in members[label] if (place := self._groups.of(name))}
                self._add(label, Node(total, weight, images, label if label in self._persons else None))

    def _is_clear(self, payload: FacePayload) -> bool:
        return not payload.flaws and payload.quality >= self._settings.least_quality

    def _clear(self, face_id: str) -> bool:
        place = self._groups.of(face_id)
        return place is not None and place.clear

    def _set_apart(self) -> None:
        for one, other in self._rules.apart:
            a, b = self._number_of(one), self._number_of(other)
            if a is not None and b is not None and a != b:
                self._nodes[a].apart.add(b)
                self._nodes[b].apart.add(a)

    def _number_of(self, name: str) -> int | None:
        """Return the node of a face or of a person."""
        if name in self._numbers and (name in self._records or name in self._persons):
            return self._numbers[name]
        if name in self._persons:
            return next((number for number, node in enumerate(self._nodes) if node.person == name), None)
        place = self._groups.of(name)
        return self._numbers.get(place.group) if place else None

    def _unite_named(self, linkage: Linkage) -> None:
        first: dict[str, int] = {}
        for number, node in enumerate(list(self._nodes)):
            if node.person is not None:
                linkage.unite(first.setdefault(node.person, number), number)

    def _place(self, linkage: Linkage) -> None:
        """Place the new faces, and move those of earlier groups that have merged."""
        parts: dict[int, list[str]] = {}
        for label, number in self._numbers.items():
            parts.setdefault(linkage.find(number), []).append(label)
        for root, labels in parts.items():
            group = self._name_of(self._nodes[root].person, labels)
            for label in labels:
                if record := self._records.get(label):
                    payload = record.payload
                    self._groups.put(label, Placed(group, payload.image_id, self._is_clear(payload)))
                elif label != group:
                    for face_id in self._groups.members(label):
                        if place := self._groups.of(face_id):
                            self._groups.put(face_id, replace(place, group=group))

    def _name_of(self, person: str | None, labels: Sequence[str]) -> str:
        """Return the id of a group: the person's, that of its largest earlier group, or that of its first face."""
        if person is not None:
            return person
        earlier = [label for label in labels if label not in self._records]
        if earlier:
            return min(earlier, key=lambda label: (-len(self._groups.members(label)), label))
        name = min(labels)
        while self._groups.members(name):  # a face that was taken out of the group that has its id
            name = str(uuid.uuid5(FACE_NAMESPACE, name))
        return name


def _spread(names: Sequence[str], count: int) -> list[str]:
    """Return at most `count` of the names, at equal distances."""
    step = max(1, -(-len(names) // count))
    return list(names[::step])
