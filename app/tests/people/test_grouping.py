import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from app.core.types import FacePoint, Floats, Strangers, face_id_of
from app.people import Groups, Rules, Settings, cut_of, group_faces
from bench.faces import People, stored_payload
from tests.support.fakes import MemoryIndex

CUT = 0.4
SETTINGS = Settings(CUT)
PEOPLE, OF_EACH = 30, 8


def _point(number: int, embedding: Floats, image: int | None = None, *, quality: float = 0.8) -> FacePoint:
    image_id = f"{number if image is None else image:064x}"
    payload = replace(stored_payload(image_id, f"/photos/{image_id}.jpg"), quality=quality)
    return FacePoint(face_id_of(image_id, "b" * 64, number), embedding, payload)


def _index(points: list[FacePoint]) -> MemoryIndex:
    index = MemoryIndex()
    index.upsert(points)
    return index


def _faces() -> Floats:
    people = People(512, seed=7)
    return people.faces(people.identities(PEOPLE), OF_EACH)


def _partition(groups: Groups) -> set[frozenset[str]]:
    found: dict[str, set[str]] = {}
    for face_id, place in groups.rows():
        found.setdefault(place.group, set()).add(face_id)
    return {frozenset(members) for members in found.values()}


def _grouped(points: list[FacePoint], settings: Settings = SETTINGS, rules: Rules | None = None) -> Groups:
    groups = Groups()
    group_faces(_index(points), groups, settings, rules)
    return groups


def _unit(*values: float) -> Floats:
    row = np.zeros(512, np.float32)
    row[: len(values)] = values
    return row / np.linalg.norm(row)


def _same(groups: Groups, *points: FacePoint) -> bool:
    places = [groups.of(point.face_id) for point in points]
    return len({place.group for place in places if place}) == 1


@pytest.fixture
def points() -> Iterator[list[FacePoint]]:
    yield [_point(number, row) for number, row in enumerate(_faces())]


def test_each_person_is_one_group(points: list[FacePoint]) -> None:
    truth = {frozenset(p.face_id for p in points[i : i + OF_EACH]) for i in range(0, len(points), OF_EACH)}
    assert _partition(_grouped(points)) == truth


def test_the_order_of_insertion_changes_nothing(points: list[FacePoint]) -> None:
    shuffled = random.Random(1).sample(points, len(points))
    assert dict(_grouped(points).rows()) == dict(_grouped(shuffled).rows())


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_small_batches_give_the_groups_of_one_large_batch(points: list[FacePoint], batch: int) -> None:
    assert _partition(_grouped(points, Settings(CUT, batch=batch))) == _partition(_grouped(points))


def test_a_run_that_stopped_goes_on_from_its_rows(points: list[FacePoint]) -> None:
    index, groups, seen = _index(points), Groups(), []

    def stop(faces: int) -> None:
        seen.append(faces)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        group_faces(index, groups, Settings(CUT, batch=40), done=stop)
    kept = Groups(list(groups.rows()))
    assert len(kept) == 120
    group_faces(index, kept, Settings(CUT, batch=40))
    assert _partition(kept) == _partition(_grouped(points))


def test_groups_keep_their_ids_when_faces_are_added(points: list[FacePoint]) -> None:
    index, groups = _index(points[::2]), Groups()
    group_faces(index, groups, SETTINGS)
    before = dict(groups.rows())
    index.upsert(points)
    group_faces(index, groups, SETTINGS, new=[point.face_id for point in points])
    assert {face_id: place for face_id, place in groups.rows() if face_id in before} == before
    assert len(groups) == len(points)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("batch", [9, 1000])
def test_no_group_has_two_faces_of_an_image_or_a_rejected_pair(seed: int, batch: int) -> None:
    rng = random.Random(seed)
    rows = _faces()
    points = [_point(number, row, rng.randrange(60)) for number, row in enumerate(rows)]
    ids = [point.face_id for point in points]
    apart = frozenset((ids[i], ids[i + 1]) for i in range(0, len(ids), 5))
    groups = _grouped(points, Settings(CUT, batch=batch), Rules(apart=apart))
    for members in _partition(groups):
        images = [place.image_id for face_id in members if (place := groups.of(face_id))]
        assert len(set(images)) == len(images)
        assert not any(one in members and other in members for one, other in apart)
    assert max(len(members) for members in _partition(groups)) > 3


def test_two_faces_of_an_image_are_not_joined_through_a_third_face() -> None:
    twins = [_point(0, _unit(1, 0.5), 9), _point(1, _unit(1, -0.5), 9)]
    between = _point(2, _unit(1))
    assert not _same(_grouped([*twins, between]), *twins)


def _two_and_a_bridge(quality: float) -> tuple[list[FacePoint], FacePoint, FacePoint]:
    left = [_point(n, _unit(1, 0, 0.1 * n)) for n in range(2)]
    right = [_point(10 + n, _unit(0.3, 1, 0.1 * n)) for n in range(2)]
    bridge = _point(20, _unit(0.8, 0.7), quality=quality)
    return [*left, *right, bridge], left[0], right[0]


def test_a_poor_face_joins_a_group_and_bridges_none() -> None:
    points, left, right = _two_and_a_bridge(quality=0.1)
    groups = _grouped(points, Settings(0.5, group_cut=0.5))
    assert not _same(groups, left, right)
    assert _same(groups, points[-1], left) or _same(groups, points[-1], right)


def test_a_clear_face_between_two_groups_makes_them_merge() -> None:
    points, left, right = _two_and_a_bridge(quality=0.8)
    assert _same(_grouped(points, Settings(0.5, group_cut=0.4)), left, right)


def test_poor_faces_alone_make_no_group() -> None:
    points = [_point(n, _unit(1, 0.01 * n), quality=0.1) for n in range(5)]
    assert len(_partition(_grouped(points))) == 5


def test_a_poor_face_joins_when_a_clear_one_comes() -> None:
    poor, clear = _point(0, _unit(1), quality=0.1), _point(1, _unit(1, 0.1))
    index, groups = _index([poor]), Groups()
    group_faces(index, groups, SETTINGS)
    index.upsert([clear])
    group_faces(index, groups, SETTINGS, new=[clear.face_id])
    assert _same(groups, poor, clear)


def test_a_chain_of_faces_is_not_one_group() -> None:
    chain = [_point(n, _unit(np.cos(n * 0.9), np.sin(n * 0.9))) for n in range(4)]
    assert len(_partition(_grouped(chain, Settings(0.6)))) > 1


def test_named_faces_attract_and_two_persons_stay_apart(points: list[FacePoint]) -> None:
    ids = [point.face_id for point in points]
    rules = Rules({ids[0]: "ana", ids[1]: "ana", ids[OF_EACH]: "ben", ids[2]: "cleo"})
    groups = _grouped(points, rules=rules)
    assert {place.group for face_id in ids[3:OF_EACH] if (place := groups.of(face_id))} <= {"ana", "cleo"}
    assert groups.members("ben") == sorted(ids[OF_EACH : 2 * OF_EACH])
    assert ids[2] in groups.members("cleo")
    assert {ids[0], ids[1]} <= set(groups.members("ana"))


def test_a_name_turns_a_group_into_the_person(points: list[FacePoint]) -> None:
    index, groups = _index(points), Groups()
    group_faces(index, groups, SETTINGS)
    ids = [point.face_id for point in points]
    group_faces(index, groups, SETTINGS, Rules({ids[0]: "ana"}), new=[])
    assert groups.members("ana") == sorted(ids[:OF_EACH])


def test_a_rejection_takes_a_face_out_of_its_group(points: list[FacePoint]) -> None:
    index, groups = _index(points), Groups()
    ids = [point.face_id for point in points]
    named = dict.fromkeys(ids[:3], "ana")
    group_faces(index, groups, SETTINGS, Rules(named))
    assert ids[5] in groups.members("ana")
    group_faces(index, groups, SETTINGS, Rules(named, frozenset({(ids[5], "ana")})), new=[])
    assert groups.members("ana") == sorted(set(ids[:OF_EACH]) - {ids[5]})
    assert groups.of(ids[5]) is not None


def test_a_face_taken_out_does_not_return_to_the_group_that_has_its_id(points: list[FacePoint]) -> None:
    index, groups = _index(points), Groups()
    group_faces(index, groups, SETTINGS)
    first, second = sorted(point.face_id for point in points[:OF_EACH])[:2]
    group_faces(index, groups, SETTINGS, Rules(apart=frozenset({(first, second)})), new=[])
    one, other = groups.of(first), groups.of(second)
    assert one is not None and other is not None and one.group != other.group
    assert len(groups) == len(points)


def test_the_cut_rises_with_the_faces_and_stays_within_its_limits() -> None:
    strangers = Strangers(0.0, 0.09, True)
    assert 0.35 < cut_of(strangers, 10) == cut_of(strangers, 10_000) < cut_of(strangers, 1_000_000) <= 0.5
    assert cut_of(Strangers(0.0, 0.01, True), 10) == 0.35
    assert cut_of(Strangers(0.3, 0.2, True), 10**7) == 0.5
