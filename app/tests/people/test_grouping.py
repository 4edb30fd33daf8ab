import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from app.catalog import Database
from app.core.errors import OceanoError
from app.core.types import Floats, Strangers
from app.people import cut_of, group_cut_of
from bench.faces import People
from tests.people.grouped import BY, World, unit
from tests.support.catalogs import KINDS, new_catalog

PEOPLE, OF_EACH = 30, 8


@cache
def _rows(size: int = 512, people: int = PEOPLE) -> Floats:
    some = People(size, seed=7)
    return some.faces(some.identities(people), OF_EACH)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with new_catalog("sqlite", tmp_path / "state") as opened:
        yield opened


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


@pytest.fixture
def full(world: World) -> World:
    world.add(_rows())
    return world


def _truth(world: World) -> set[frozenset[str]]:
    return {frozenset(world.ids[first : first + OF_EACH]) for first in range(0, len(world.ids), OF_EACH)}


def test_each_person_is_one_group(full: World) -> None:
    full.group()
    assert full.partition() == _truth(full)


def test_the_order_of_insertion_changes_nothing(full: World, tmp_path: Path) -> None:
    full.group()
    with new_catalog("sqlite", tmp_path / "other") as other:
        shuffled = World(other)
        order = random.Random(1).sample(range(len(full.ids)), len(full.ids))
        shuffled.add([_rows()[number] for number in order], order)
        shuffled.group()
        assert shuffled.places() == full.places()


@pytest.mark.parametrize("batch", [7, 50])
def test_small_batches_give_the_groups_of_one_large_batch(full: World, batch: int) -> None:
    full.group(batch=batch)
    assert full.partition() == _truth(full)


def test_a_run_that_was_stopped_goes_on_where_it_was(full: World) -> None:
    stop = Event()

    def progress(faces: int, total: int) -> None:
        assert total == len(full.ids)
        if faces >= 120:
            stop.set()

    counts = full.group(batch=40, stop=stop, on_progress=progress)
    assert (counts.faces, counts.left) == (120, len(full.ids) - 120)
    assert len(full.places()) == 120
    assert full.group(batch=40).faces == len(full.ids) - 120
    assert full.partition() == _truth(full)


def test_a_batch_is_written_in_parts_that_leave_no_group_half_written(
    full: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.people.group_run._WRITTEN_AT_ONCE", 20)
    write, written = full.table.write, [0]

    def cut_off(*values: Any) -> None:
        written[0] += 1
        if written[0] == 4:
            raise OceanoError("ledger_unavailable", "cut off")
        write(*values)

    monkeypatch.setattr(full.table, "write", cut_off)
    with pytest.raises(OceanoError, match="cut off"):
        full.group()
    kept = full.partition()
    assert len(kept) == 9
    assert kept < _truth(full)
    assert full.group().faces == len(full.ids) - 9 * OF_EACH
    assert full.partition() == _truth(full)


def test_a_stop_in_the_middle_of_a_batch_records_nothing_of_it(full: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Event()
    search = full.index.search_scores

    def stopping(*values: object, **how: object) -> object:
        stop.set()
        return search(*values, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(full.index, "search_scores", stopping)
    monkeypatch.setattr("app.people.grouping._SEARCHED_AT_ONCE", 10)
    assert full.group(stop=stop).left == len(full.ids)
    assert full.places() == {}


def test_groups_keep_their_ids_and_only_new_faces_are_looked_at(world: World) -> None:
    rows = _rows()
    world.add(rows[::2])
    world.group()
    before = world.places()
    world.add(rows[1::2])
    assert world.group().faces == len(rows) // 2
    assert {face_id: place for face_id, place in world.places().items() if face_id in before} == before
    half = len(rows) // 2
    for number in range(half):
        assert world.are_together(world.ids[number], world.ids[half + number])
    assert world.group().faces == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch", [40, 1000])
def test_no_group_has_two_faces_of_an_image(world: World, seed: int, batch: int) -> None:
    rng = random.Random(seed)
    rows = _rows()
    images = [rng.randrange(60) for _ in rows]
    world.add(rows, images)
    of_face = dict(zip(world.ids, images, strict=True))
    world.group(batch=batch)
    assert len(world.places()) == len(rows)
    for members in world.partition():
        assert len({of_face[face_id] for face_id in members}) == len(members)
    assert max(map(len, world.partition())) > 3


def test_two_faces_of_an_image_are_not_joined_through_a_third_face(world: World) -> None:
    one, other = world.add([unit(1, 0.5), unit(1, -0.5)], [9, 9])
    world.add([unit(1)], [1])
    world.group()
    assert not world.are_together(one, other)


def test_groups_with_faces_of_one_image_do_not_merge_later(world: World) -> None:
    left = world.add([unit(1, 0.9), unit(1, 0.95)], [1, 9])
    right = world.add([unit(1, -0.9), unit(1, -0.95)], [2, 9])
    world.group(cut=0.8)
    assert world.are_together(*left)
    assert world.are_together(*right)
    world.add([unit(1)], [3])
    world.group(cut=0.3, group_cut=0.1)
    assert not world.are_together(left[0], right[0])


def _two_and_a_bridge(world: World, quality: float) -> tuple[str, str, str]:
    left = world.add([unit(1, 0, 0.1 * n) for n in range(2)])
    right = world.add([unit(0.3, 1, 0.1 * n) for n in range(2)])
    (bridge,) = world.add([unit(0.8, 0.7)], quality=quality)
    return left[0], right[0], bridge


@pytest.mark.parametrize("batch", [1, 100])
def test_a_poor_face_joins_a_group_and_bridges_none(world: World, batch: int) -> None:
    left, right, bridge = _two_and_a_bridge(world, quality=0.1)
    world.group(cut=0.5, group_cut=0.5, batch=batch)
    assert not world.are_together(left, right)
    assert world.are_together(bridge, left) or world.are_together(bridge, right)


def test_a_clear_face_between_two_groups_makes_them_merge(world: World) -> None:
    left, right, _ = _two_and_a_bridge(world, quality=0.8)
    world.group(cut=0.5, group_cut=0.4)
    assert world.are_together(left, right)


def test_poor_faces_alone_make_no_group(world: World) -> None:
    world.add([unit(1, 0.01 * n) for n in range(5)], quality=0.1)
    world.group()
    assert len(world.partition()) == 5


def test_a_poor_face_joins_when_a_clear_one_comes(world: World) -> None:
    (poor,) = world.add([unit(1)], quality=0.1)
    world.group()
    (clear,) = world.add([unit(1, 0.1)])
    world.group()
    assert world.are_together(poor, clear)


def test_a_chain_of_faces_is_not_one_group(world: World) -> None:
    world.add([unit(np.cos(n * 0.9), np.sin(n * 0.9)) for n in range(4)])
    world.group(cut=0.6)
    assert len(world.partition()) > 1


def test_named_faces_attract_and_two_persons_stay_apart(full: World) -> None:
    ids = full.ids
    ana, ben, cleo = full.name("Ana", *ids[:2]), full.name("Ben", ids[OF_EACH]), full.name("Cleo", ids[2])
    full.group()
    assert {full.group_of(face_id) for face_id in ids[3:OF_EACH]} <= {ana.id, cleo.id}
    assert full.members(ben.id) == set(ids[OF_EACH : 2 * OF_EACH])
    assert ids[2] in full.members(cleo.id)
    assert set(ids[:2]) <= full.members(ana.id)


def test_two_faces_of_one_image_may_have_one_name(world: World) -> None:
    one, other = world.add([unit(1), unit(0, 1)], [1, 1])
    ana = world.name("Ana", one, other)
    world.group()
    assert world.members(ana.id) == {one, other}


def test_a_name_turns_a_group_into_the_person(full: World) -> None:
    full.group()
    ana = full.name("Ana", full.ids[0])
    assert full.group().faces == 0
    assert full.members(ana.id) == set(full.ids[:OF_EACH])


def test_a_poor_face_with_a_name_does_not_take_its_group_with_it(world: World) -> None:
    clear = world.add([unit(1, 0.01 * n) for n in range(3)])
    (poor,) = world.add([unit(1, 0.1)], quality=0.1)
    world.group()
    assert world.are_together(poor, *clear)
    ana = world.name("Ana", poor)
    world.group()
    assert world.members(ana.id) == {poor}
    assert world.are_together(*clear)
    world.add([unit(1, 0, 0.01)])
    world.group()
    assert world.members(ana.id) == {poor}


def test_a_group_joins_a_person_who_has_one_if_it_is_like_it(full: World) -> None:
    ids = full.ids
    ana = full.name("Ana", *ids[:4])
    full.group()
    assert full.members(ana.id) == set(ids[:OF_EACH])
    full.table.write([], [(ana.id, ids[0])])  # as if the group had been made before the name
    full.group()
    assert full.members(ana.id) == set(ids[:OF_EACH])


def test_two_names_in_a_group_divide_it(world: World) -> None:
    ids = world.add([unit(1, 0.3 * n - 0.75) for n in range(6)])
    world.group(cut=0.35)
    assert world.are_together(*ids)
    ana, ben = world.name("Ana", ids[0]), world.name("Ben", ids[5])
    world.group(cut=0.35)
    assert world.members(ana.id) >= {ids[0], ids[1]}
    assert world.members(ben.id) >= {ids[4], ids[5]}


def test_a_rejected_face_leaves_the_person_and_stays_away(full: World) -> None:
    ids = full.ids
    ana = full.name("Ana", *ids[:3])
    full.group()
    assert ids[5] in full.members(ana.id)
    full.naming.reject(ana.id, ana.version, [ids[5]], BY)
    full.group()
    assert full.members(ana.id) == set(ids[:OF_EACH]) - {ids[5]}
    assert full.group_of(ids[5]) is not None
    full.table.forget_all_groups()
    full.group(batch=3)
    assert ids[5] not in full.members(ana.id)


def test_a_group_with_a_rejected_face_does_not_join_the_person(world: World) -> None:
    one, two = world.add([unit(1, 0.02), unit(1, 0.01)])
    world.group()
    (third,) = world.add([unit(1)])
    ana = world.name("Ana", third)
    world.naming.reject(ana.id, ana.version, [one], BY)
    world.group()
    assert world.are_together(one, two)
    assert world.members(ana.id) == {third}


def test_what_is_not_a_face_is_never_grouped_and_what_was_set_aside_is(full: World) -> None:
    full.group()
    full.naming.dismiss([full.ids[0]], "not_a_face", BY)
    full.naming.dismiss([full.ids[1]], "set_aside", BY)
    full.group()
    assert full.group_of(full.ids[0]) is None
    assert full.are_together(*full.ids[1:OF_EACH])
    full.naming.dismiss([full.ids[0]], None, BY)
    assert full.group().faces == 1
    assert full.are_together(*full.ids[:OF_EACH])


def test_faces_of_a_person_without_faces_are_looked_at_again(full: World) -> None:
    ana = full.name("Ana", full.ids[0])
    full.group()
    done = full.naming.split(ana.id, ana.version, [full.ids[0]], "Bea", BY)
    assert done.person is not None
    full.group()
    assert full.members(ana.id) == set()
    assert full.members(done.person.id) == set(full.ids[:OF_EACH])


def test_a_face_that_left_the_group_with_its_id_does_not_share_the_id(world: World) -> None:
    ids = sorted(world.add([unit(1, 0.01 * n) for n in range(4)]))
    world.group()
    assert world.group_of(ids[1]) == ids[0]
    (third,) = world.add([unit(1, 0.5)])
    ana = world.name("Ana", third)
    world.naming.reject(ana.id, ana.version, [ids[0]], BY)
    world.table.forget_groups([ids[0]])
    world.add([unit(0, 1)], [0])
    world.index.points.pop(ids[0])  # cannot be read
    world.group()
    assert world.group_of(ids[0]) is None
    assert world.are_together(*ids[1:])


def test_deleted_faces_leave_the_table_and_damaged_ones_are_passed_over(full: World) -> None:
    full.group()
    gone = full.ids[:3]
    full.remove(gone)
    assert full.group().removed == 3
    assert full.table.known(gone) == {}
    damaged = full.add([unit(1) * np.float32(0.5)])
    fine = full.add([unit(1)])
    assert full.group().faces == 1
    assert full.group_of(damaged[0]) is None
    assert full.group_of(fine[0]) is not None
    assert full.group().faces == 0


def test_groups_whose_faces_were_deleted_attract_nothing(world: World) -> None:
    ids = world.add([unit(1, 0.01 * n) for n in range(3)])
    world.group()
    for face_id in ids[:2]:
        del world.index.points[face_id]
    (new,) = world.add([unit(1)])
    world.group()
    assert world.are_together(new, ids[2])


@pytest.mark.parametrize("kind", KINDS)
def test_either_catalog_keeps_the_same_groups(full: World, kind: str, tmp_path: Path) -> None:
    full.group(batch=50)
    with new_catalog(kind, tmp_path / "other") as other:
        again = World(other)
        again.add(_rows())
        again.group(batch=50)
        ana = again.name("Ana", again.ids[0])
        again.naming.dismiss([again.ids[1]], "not_a_face", BY)
        assert again.partition() == full.partition()
        again.group()
        assert again.members(ana.id) == {again.ids[0], *again.ids[2:OF_EACH]}


def test_the_cut_rises_with_the_faces_and_stays_within_its_limits() -> None:
    strangers = Strangers(0.0, 0.09, True)
    assert 0.35 < cut_of(strangers, 10) == cut_of(strangers, 10_000) < cut_of(strangers, 1_000_000) <= 0.5
    assert cut_of(Strangers(0.0, 0.01, True), 10) == 0.35
    assert cut_of(Strangers(0.3, 0.2, True), 10**7) == 0.5


def test_the_cut_of_groups_rises_with_the_faces_from_three_quarters_of_the_cut_to_the_cut() -> None:
    strangers = Strangers(0.0, 0.1, True)
    assert group_cut_of(strangers, 0, 0.4) == group_cut_of(strangers, 10, 0.4) == pytest.approx(0.3)
    assert 0.3 < group_cut_of(strangers, 1_000, 0.4) < group_cut_of(strangers, 10_000, 0.4) < 0.4
    assert group_cut_of(strangers, 10**7, 0.4) == 0.4
