"""Random changes of people, and undone ones: after each the catalog, the index and the counters agree."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select

from app.catalog import ASSIGNMENTS, DISMISSALS, PEOPLE, REJECTIONS, ChangeLog, Database, PeopleStore
from app.catalog.tables import FACES
from app.core.errors import OceanoError
from app.people import Done, NamesCopy, Naming, Profile
from tests.people.conftest import ANA
from tests.support.fakes import MemoryIndex
from tests.support.people_gallery import COLLECTION, face_ids, gallery

_FACES = 12
_STEPS = 80

Said = dict[tuple[str, ...], object]
"""What the catalog says: whose face each face is, what was rejected, what was dismissed, and who there is."""


@dataclass
class Walk:
    """Makes random changes and checks what the catalog and the index say after each."""

    database: Database
    choice: random.Random
    made: dict[int, tuple[Said, Said]] = field(default_factory=dict)
    seen: dict[tuple[str, int], Said] = field(default_factory=dict)
    people: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.index = MemoryIndex()
        self.index.upsert(gallery(people=_FACES // 2, of_each=2, images={n: n - n % 2 for n in range(_FACES)}))
        self.number_of = {
            (point.payload.image_id, point.payload.bbox): str(number)
            for number, point in enumerate(self.index.points[one] for one in face_ids(*range(_FACES)))
        }
        self.store = PeopleStore(self.database)
        self.naming = Naming(self.database, self.index, NamesCopy(self.database, self.index, COLLECTION))
        self.log = ChangeLog(self.database)

    def rows(self, table: Any) -> list[Any]:
        with self.database.reading() as connection:
            return list(connection.execute(select(table)).all())

    def face(self, row: Any) -> str:
        return self.number_of[row.image_id, (row.x1, row.y1, row.x2, row.y2)]

    def said(self) -> Said:
        """Return what the catalog says; fails if a face has two names, or a name that was rejected or dismissed."""
        said: Said = {("person", row.id): (row.name, row.hidden) for row in self.rows(PEOPLE)}
        named = Counter(self.face(row) for row in self.rows(ASSIGNMENTS))
        assert max(named.values(), default=0) <= 1, "a face has two names"
        said |= {("named", self.face(row)): row.person_id for row in self.rows(ASSIGNMENTS)}
        rejected = [("rejected", self.face(row), row.person_id) for row in self.rows(REJECTIONS)]
        for _, face, person_id in rejected:
            assert said.get(("named", face)) != person_id, "a face has a name that was rejected"
        said |= dict.fromkeys(rejected)
        dismissed = {("dismissed", self.face(row)): row.kind for row in self.rows(DISMISSALS)}
        assert len(dismissed) == len(self.rows(DISMISSALS)), "a face is dismissed twice"
        assert not {face for _, face in dismissed} & {*named}, "a face with a name is dismissed"
        return said | dismissed

    def check(self, said: Said) -> None:
        """Fail unless counters, versions, the index and the table of faces are as the catalog says."""
        faces = Counter(owner for key, owner in said.items() if key[0] == "named")
        for row in self.rows(PEOPLE):
            assert row.faces == faces[row.id]
            own = {key: value for key, value in said.items() if row.id in (*key, value)}
            assert self.seen.setdefault((row.id, row.version), own) == own, "one version stands for two states"
        copies = {row.face_id: row for row in self.rows(FACES)}
        for number, face_id in enumerate(face_ids(*range(_FACES))):
            owner, kind = said.get(("named", str(number))), said.get(("dismissed", str(number)))
            assert self.index.points[face_id].payload.person == owner
            copy = copies.get(face_id)
            assert (None, None) if copy is None else (copy.person_id, copy.dismissed) == (owner, kind)

    def some(self, most: int = 4) -> list[str]:
        return face_ids(*self.choice.sample(range(_FACES), self.choice.randint(1, most)))

    def change(self) -> Done:
        """Make a random change."""
        found = self.store.persons(self.people)
        people = [found[one] for one in self.people if one in found]
        if self.choice.random() < 0.35:
            back = int(self.choice.expovariate(0.3))
            return self.naming.undo(max(1, self.log.newest_number() - back), ANA)
        if len(people) < 2:
            return self.noted(self.create())
        one, other = self.choice.sample(people, 2)
        make = self.choice.choice(
            [
                self.create,
                lambda: self.naming.edit(one.id, one.version, self.profile(), ANA),
                lambda: self.naming.assign(one.id, one.version, self.some(), ANA, **self.words()),
                lambda: self.naming.reject(one.id, one.version, self.some(), ANA),
                lambda: self.naming.merge(one.id, one.version, {other.id: other.version}, ANA),
                lambda: self.naming.split(one.id, one.version, self.own(one.id), "D", ANA),
                lambda: self.naming.dismiss(self.some(), self.choice.choice(["set_aside", "not_a_face", None]), ANA),
                lambda: self.naming.delete(one.id, one.version, ANA),
            ]
        )
        return self.noted(make())

    def noted(self, done: Done) -> Done:
        """Keep the id of a new person: ids are random, and their order must not be."""
        if done.person is not None and done.person.id not in self.people:
            self.people.append(done.person.id)
        return done

    def create(self) -> Done:
        return self.naming.create(self.profile(), self.some(), ANA, **self.words())

    def words(self) -> dict[str, bool]:
        """What may be said when faces are named."""
        return {word: self.choice.random() < 0.5 for word in ("replace", "same_image")}

    def profile(self) -> Profile:
        return Profile(name=self.choice.choice("ABC"), hidden=self.choice.random() < 0.5)

    def own(self, person_id: str) -> list[str]:
        """Return some face of a person, or of nobody."""
        own = sorted(int(self.face(row)) for row in self.rows(ASSIGNMENTS) if row.person_id == person_id)
        return face_ids(*own[:1]) or self.some(1)


@pytest.mark.parametrize("seed", range(3))
def test_after_random_changes_everything_agrees(database: Database, seed: int) -> None:
    walk = Walk(database, random.Random(seed))
    before: Said = {}
    refused: Counter[str] = Counter()
    for _ in range(_STEPS):
        try:
            change = walk.change().change
        except OceanoError as failure:
            refused[failure.code] += 1
            assert failure.code in (
                "face_named",
                "person_in_image",
                "change_conflict",
                "change_unknown",
                "invalid_request",
            )
            assert walk.said() == before
            continue
        said = walk.said()
        walk.check(said)
        if change is None:
            assert said == before
        else:
            walk.made[change.number] = before, said
        if change is not None and change.undoes is not None:
            was, became = walk.made[change.undoes]
            for key in {*was, *became}:
                if was.get(key, "none") != became.get(key, "none"):
                    assert said.get(key, "none") == was.get(key, "none")
        before = said
    assert refused["change_conflict"] > 0
    assert sum(change.undoes is not None for change in walk.log.find(limit=1000)) > 5
