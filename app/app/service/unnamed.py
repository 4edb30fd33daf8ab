"""Faces without a name as somebody sees them: groups, single ones, and those that were dismissed."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from app.catalog import LEAST_FACES, Database, Dismissal, DismissalKind, DismissedFaces, PeopleStore, UnnamedGroups
from app.core.iteration import chunks
from app.core.protocols import FaceIndex
from app.core.types import FLAWS, FaceFilter, FaceRecord
from app.people import LEAST_QUALITY, faces_in, is_clear, matched
from app.security import Scope
from app.service.cursor import decode_mark, encode_mark
from app.service.people_views import FacePage, GroupPage, PersonFace, ShownGroup
from app.service.seen_groups import SeenGroups

_OF_GROUP: Final = 2_000  # faces of a group that are looked for in a part of the folders
_SAMPLES: Final = 8  # faces that stand for a group
_LOOKED_AT: Final = 20  # groups or faces for each that is shown, of which none may be seen
_READ: Final = 500  # faces at once
_LEAST_READ: Final = 50
_CLEAR, _CLEAR_UNGROUPED, _POOR, _POOR_UNGROUPED = range(4)  # the parts of the list of single faces
_UNNAMED: Final = {
    _CLEAR: FaceFilter(unnamed=True, without=FLAWS, min_quality=LEAST_QUALITY),
    _POOR: FaceFilter(unnamed=True),
}


class UnnamedFaces:
    """Reads faces without a name. Its methods block; they may be called from several threads.

    Args:
        database: the catalog.
        index: the faces.
        collection: full name of the index's collection.
    """

    def __init__(self, database: Database, index: FaceIndex, collection: str) -> None:
        self._groups = UnnamedGroups(database, collection)
        self._seen_groups = SeenGroups(self._groups)
        self._dismissed = DismissedFaces(database)
        self._store = PeopleStore(database)
        self._index = index
        self._scope: Scope | None = None

    def through(self, index: FaceIndex, scope: Scope) -> UnnamedFaces:
        """Return the faces that an index shows that hides whole folders."""
        part = copy.copy(self)
        part._index, part._scope = index, scope
        return part

    def forget(self) -> None:
        """Let the groups be counted again, because names have changed."""
        self._groups.forget()
        self._seen_groups.forget()

    def waiting(self) -> dict[str, int]:
        """Return the number of images with faces that wait for an answer, by person; none in a part of the folders."""
        return self._groups.waiting() if self._scope is None else {}

    def groups(self, *, after: str | None = None, limit: int) -> GroupPage:
        """Return a page of the groups, largest first, with what they have now.

        Of a part of the folders, groups are counted in this part. If it is large, they are ordered by all of their
        faces, and a page may have few groups, or none, and not be the last one. The id of such a group is that of its
        first face that is seen, and a page begins at the number of groups before it.

        Args:
            after: `next` of the page before; None: the first page.
            limit: the largest number.

        Raises:
            OceanoError: `cursor_invalid`, `index_unavailable`, `ledger_unavailable`.
        """
        list_name = self._list_name("groups")
        known = None if self._scope is None else self._seen_groups.of(self._scope.key, self._index)
        if known is None:
            known = self._groups.all()
        if after is None:
            start = 0
        elif self._scope is not None:
            start = int(decode_mark(after, list_name, int)[0])
        else:
            faces, group_id = decode_mark(after, list_name, int, str)
            start = bisect_right(known, (-int(faces), str(group_id)), key=lambda one: (-one[1], one[0]))
        shown: list[ShownGroup] = []
        place, end = start, min(len(known), start + _LOOKED_AT * limit)
        while place < end and len(shown) < limit:
            some = [group_id for group_id, _ in known[place : min(end, place + limit - len(shown))]]
            place += len(some)
            shown += self._as_seen(some)
        following = None
        if place < len(known):
            group_id, faces = known[place - 1]
            following = encode_mark((place,) if self._scope is not None else (faces, group_id), list_name)
        return GroupPage(tuple(shown), following)

    def group(self, group_id: str, *, after: str | None = None, limit: int) -> FacePage:
        """Return a page of the faces of a group; arguments and errors are those of `groups`."""
        list_name = self._list_name(f"group\0{group_id}")
        last = "" if after is None else str(decode_mark(after, list_name, str)[0])
        total: int | None
        if self._scope is None:
            ids = self._groups.faces(group_id, after=last, limit=limit + 1)
            records, total = self._index.retrieve(ids[:limit]), self._groups.size(group_id)
        else:
            seen = self._seen_of_group(group_id)
            rest = [record for record in seen if record.face_id > last]
            ids, records, total = [record.face_id for record in rest[: limit + 1]], rest[:limit], len(seen)
        following = encode_mark((ids[limit - 1],), list_name) if len(ids) > limit else None
        return _page(records, following, total)

    def single(self, *, after: str | None = None, limit: int) -> FacePage:
        """Return a page of the faces that are in no group with another face, clear ones first.

        A face that was never grouped is not one of them. Somebody who sees a part of the folders may get a page with
        few faces, or none, that is not the last one. Arguments and errors are those of `groups`.
        """
        list_name = self._list_name("single")
        part, last = (_CLEAR, "") if after is None else _two(decode_mark(after, list_name, int, str))
        if self._scope is not None:
            return self._single_seen(part, last, limit, list_name)
        found: list[tuple[int, str, str]] = []  # part, where it is in it, face_id
        while part <= _POOR_UNGROUPED and len(found) <= limit:
            found += [(part, *one) for one in self._singles(part, last, limit + 1 - len(found))]
            part, last = part + 1, ""
        following = encode_mark(found[limit - 1][:2], list_name) if len(found) > limit else None
        return _page(self._index.retrieve([face_id for *_, face_id in found[:limit]]), following)

    def dismissed(self, kind: DismissalKind, *, after: str | None = None, limit: int) -> FacePage:
        """Return a page of the faces that were dismissed, the last one first.

        The page may have few faces, or none, and not be the last one: of deleted images, and of folders that are not
        seen, there are none.

        Args:
            kind: set aside, or not a face.
            after: as in `groups`.
            limit: as in `groups`.

        Raises:
            OceanoError: as `groups` does.
        """
        list_name = self._list_name(f"dismissed\0{kind}")
        mark, place = None, 0
        if after is not None and self._scope is None:
            at, dismissal_id = decode_mark(after, list_name, str, str)
            mark = (str(at), str(dismissal_id))
        elif after is not None:  # time and id may be of a face that is not seen
            place = int(decode_mark(after, list_name, int)[0])
        shown: list[FaceRecord] = []
        batch = max(limit + 1, _LEAST_READ)
        for _ in range(0, _LOOKED_AT * limit, batch):
            found = self._dismissed.newest(kind, after=mark, skip=0 if self._scope is None else place, limit=batch)
            faces = self._of_dismissals({one.id: one.place.image_id for _, one in found})
            for at, one in found:
                if one.id in faces:
                    if len(shown) == limit:
                        return _page(shown, self._mark(mark, place, list_name))
                    shown.append(faces[one.id])
                mark, place = (at, one.id) if self._scope is None else None, place + 1
            if len(found) < batch:
                return _page(shown)
        return _page(shown, self._mark(mark, place, list_name))

    def _mark(self, mark: tuple[str, str] | None, place: int, list_name: str) -> str | None:
        """Return where the next page of dismissals begins; in a part of the folders a number, which tells less."""
        if self._scope is not None:
            return encode_mark((place,), list_name)
        return encode_mark(mark, list_name) if mark else None

    def kinds(self, records: Iterable[FaceRecord]) -> dict[str, DismissalKind]:
        """Return how faces of whole images were dismissed, by face_id; those that were not are left out."""
        by_image: dict[str, list[FaceRecord]] = {}
        for record in records:
            by_image.setdefault(record.payload.image_id, []).append(record)
        return {record.face_id: one.kind for record, one in self._with_dismissals(by_image)}

    def _list_name(self, name: str) -> str:
        return f"{name}\0{self._scope.key if self._scope else ''}"

    def _as_seen(self, group_ids: Sequence[str]) -> Iterator[ShownGroup]:
        """Yield groups as far as they are seen, without those of which that is less than two faces."""
        if self._scope is None:
            sizes = self._groups.sizes(group_ids)  # other processes have changed names since all were counted
            for group_id in group_ids:
                if (faces := sizes.get(group_id, 0)) >= LEAST_FACES:
                    yield ShownGroup(group_id, faces, tuple(self._groups.faces(group_id, limit=_SAMPLES)))
            return
        for group_id in group_ids:
            seen = [record.face_id for record in self._index.retrieve(self._groups.faces(group_id, limit=_OF_GROUP))]
            if len(seen) >= LEAST_FACES:
                yield ShownGroup(min(seen), len(seen), tuple(seen[:_SAMPLES]))

    def _seen_of_group(self, face_id: str) -> list[FaceRecord]:
        """Return the faces of a group that are seen, if its id is that of a face that is seen, too."""
        group_id = self._groups.of_face(face_id) if self._index.retrieve([face_id]) else None
        ids = [] if group_id is None else self._groups.faces(group_id, limit=_OF_GROUP)
        return sorted(self._index.retrieve(ids), key=lambda record: record.face_id) if ids else []

    def _singles(self, part: int, after: str, limit: int) -> list[tuple[str, str]]:
        clear = part in (_CLEAR, _CLEAR_UNGROUPED)
        if part in (_CLEAR, _POOR):
            return self._groups.singles(clear=clear, after=after, limit=limit)
        return [(face_id, face_id) for face_id in self._groups.ungrouped(clear=clear, after=after, limit=limit)]

    def _single_seen(self, part: int, offset: str, limit: int, list_name: str) -> FacePage:
        """Return a page of single faces of a part of the folders: the unnamed faces of the index, one after another."""
        shown: list[FaceRecord] = []
        parts = [one for one in (_CLEAR, _POOR) if one >= part]  # those to be grouped again are among them
        for _ in range(0, _LOOKED_AT * limit, _READ):
            if not parts:
                break
            page = self._index.scroll(limit=_READ, offset=offset or None, where=_UNNAMED[parts[0]])
            shown += self._alone([one for one in page.records if is_clear(one) == (parts[0] == _CLEAR)])
            if len(shown) > limit:
                return _page(shown[:limit], encode_mark((parts[0], shown[limit].face_id), list_name))
            offset = page.next_offset or ""
            if not offset:
                del parts[0]
        return _page(shown, encode_mark((parts[0], offset), list_name) if parts else None)

    def _alone(self, records: Sequence[FaceRecord]) -> list[FaceRecord]:
        """Return the faces that are the only ones of their groups that are seen."""
        groups = self._groups.of_faces([record.face_id for record in records])
        here = Counter(group for group in groups.values() if group is not None)
        not_alone = {group for group, faces in here.items() if faces >= LEAST_FACES}
        sizes = self._groups.sizes([group for group in here if group not in not_alone])
        large = [group for group, faces in sizes.items() if faces >= LEAST_FACES]
        members = {face_id: group for group in large for face_id in self._groups.faces(group, limit=_OF_GROUP)}
        seen: Counter[str] = Counter()
        for some in chunks(members, _READ):
            seen.update(members[record.face_id] for record in self._index.retrieve(some))
        not_alone |= {group for group, faces in seen.items() if faces >= LEAST_FACES}
        return [one for one in records if one.face_id in groups and groups[one.face_id] not in not_alone]

    def _of_dismissals(self, images: dict[str, str]) -> dict[str, FaceRecord]:
        """Return the faces that are seen of dismissals, whose images are given, by the ids of the dismissals."""
        by_image = faces_in(self._index, [*dict.fromkeys(images.values())])
        return {one.id: record for record, one in self._with_dismissals(by_image)}

    def _with_dismissals(self, by_image: Mapping[str, Sequence[FaceRecord]]) -> Iterator[tuple[FaceRecord, Dismissal]]:
        """Yield the dismissed faces of whole images, each with its dismissal."""
        known = self._store.dismissals_in([*by_image])
        for image_id, records in by_image.items():
            of_image = matched(records, known.get(image_id, ()))
            yield from ((record, of_image[record.face_id]) for record in records if record.face_id in of_image)


def _page(records: Sequence[FaceRecord], following: str | None = None, total: int | None = None) -> FacePage:
    return FacePage(tuple(PersonFace(record) for record in records), total, following)


def _two(mark: tuple[str | int, ...]) -> tuple[int, str]:
    return int(mark[0]), str(mark[1])
