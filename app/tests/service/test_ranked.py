from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from app.core.paths import folders_of
from app.core.types import FacePoint
from app.images import ALIKE_DISTANCE
from app.service import GroupBy, Query, Sort, ranked
from app.service.counts import Counted, facets_of
from app.service.ranked import RankedList, Row, all_matches, arranged, only_within
from tests.support.fakes import MemoryIndex
from tests.support.matches import ADA, BOB, EVE, stored

ANY = Query(ADA, 0.4)


def _list(points: Sequence[FacePoint], query: Query = ANY) -> RankedList:
    index = MemoryIndex()
    index.upsert(points)
    return arranged(all_matches(index, query), query.sort, query.group_by)


def _images(found: RankedList) -> list[int]:
    return [int(row.image_id, 16) for row in found.rows]


def test_a_list_has_the_matches_by_similarity() -> None:
    found = _list([stored(n, ADA, 0.3 + 0.05 * n) for n in range(8)])
    assert _images(found) == [7, 6, 5, 4, 3, 2]
    assert [row.similarity for row in found.rows] == [0.65, 0.6, 0.55, 0.5, 0.45, 0.4]
    assert not found.is_cut


def test_a_face_smaller_than_asked_for_is_left_out() -> None:
    points = [stored(n, ADA, 0.9, bbox=(10.0, 10.0, 10.0 + side, 200.0)) for n, side in enumerate((20.0, 49.9, 50.0))]
    assert _images(_list(points, replace(ANY, min_face=50))) == [2]
    assert len(_list(points).rows) == 3


def test_a_face_that_resembles_another_person_at_least_as_much_is_left_out() -> None:
    between = ADA + BOB
    between /= np.linalg.norm(between)
    twin = np.asarray(0.6 * ADA + 0.7 * BOB, np.float32)
    twin /= np.linalg.norm(twin)
    mostly = np.asarray(0.7 * ADA + 0.6 * BOB, np.float32)
    mostly /= np.linalg.norm(mostly)
    points = [stored(1, ADA, 0.6), stored(2, BOB, 0.9)]
    points += [replace(stored(n, ADA, 1.0), embedding=one) for n, one in ((3, twin), (4, mostly), (5, BOB))]
    assert sorted(_images(_list(points))) == [1, 3, 4]
    assert sorted(_images(_list(points, replace(ANY, unlike=(BOB,))))) == [1, 4]
    assert _images(_list(points, replace(ANY, unlike=(EVE, ADA)))) == []


def test_together_needs_every_person_in_the_same_image() -> None:
    points = [
        *(stored(1, ADA, 0.6), stored(1, BOB, 0.7, place=1), stored(1, EVE, 0.8, place=2)),
        *(stored(2, ADA, 0.9), stored(2, EVE, 0.5, place=1)),
        *(stored(3, ADA, 0.8), stored(3, BOB, 0.39, place=1)),
        *(stored(4, BOB, 0.8), stored(4, EVE, 0.8, place=1)),
        *(stored(5, ADA, 0.5), stored(5, BOB, 0.5, place=1), stored(5, BOB, 0.6, place=2)),
    ]
    found = _list(points, replace(ANY, together=(BOB,)))
    assert _images(found) == [1, 5]
    assert [row.similarity for row in found.rows] == [0.6, 0.5], "the similarity is that of the query's person"
    assert [[score.similarity for score in row.together] for row in found.rows] == [[0.7], [0.6]]
    (row,) = _list(points, replace(ANY, together=(BOB, EVE))).rows
    assert [round(score.similarity, 6) for score in row.together] == [0.7, 0.8]
    assert _list(points, replace(ANY, together=(BOB, EVE), min_face=1000)).rows == ()


def test_a_face_is_one_person_only() -> None:
    alone = [stored(1, ADA, 0.9)]
    assert _list(alone, replace(ANY, together=(ADA,))).rows == ()
    twins = [*alone, stored(1, ADA, 0.8, place=1)]
    assert len(_list(twins, replace(ANY, together=(ADA,))).rows) == 2
    assert _list(twins, replace(ANY, together=(ADA, ADA))).rows == ()


def test_a_person_takes_a_worse_face_if_another_person_needs_the_better_one() -> None:
    both = BOB + EVE
    both = np.asarray(both / np.linalg.norm(both), np.float32)
    points = [
        stored(1, ADA, 0.9),
        replace(stored(1, BOB, 1.0, place=1), embedding=both),
        stored(1, BOB, 0.5, place=2),
    ]
    for together in ((BOB, EVE), (EVE, BOB)):
        (row,) = _list(points, replace(ANY, together=together)).rows
        faces = dict(zip([one is BOB for one in together], row.together, strict=True))
        assert faces[True].face_id == points[2].face_id
        assert faces[False].face_id == points[1].face_id


def test_many_alike_faces_and_persons_are_assigned_quickly() -> None:
    points = [stored(1, ADA, 0.9, place=n) for n in range(10)]
    assert _list(points, replace(ANY, together=(ADA,) * 10)).rows == ()
    assert len(_list(points, replace(ANY, together=(ADA,) * 9)).rows) == 10


TAKEN = (
    "2021-06-01T12:00:00+02:00",  # 10:00 UTC
    "2021-06-01T11:00:00",  # without an offset: as UTC
    "2021-06-01T10:30:00+00:00",
    "2020-12-31T23:59:59",
    None,
    "2021-06-01T23:30:00-05:00",  # on the second of June in UTC
    None,
)


@pytest.mark.parametrize(("sort", "images"), [("newest", [5, 1, 2, 0, 3]), ("oldest", [3, 0, 2, 1, 5])])
def test_images_are_sorted_by_their_time_and_the_undated_come_last_by_similarity(sort: Sort, images: list[int]) -> None:
    points = [stored(n, ADA, 0.5 + 0.01 * n, taken_at=taken) for n, taken in enumerate(TAKEN)]
    assert _images(_list(points, replace(ANY, sort=sort))) == [*images, 6, 4]


def test_dates_of_all_times_come_before_the_undated() -> None:
    points = [stored(n, ADA, 0.9, taken_at=f"{year}-01-01T00:00:00") for n, year in enumerate(("0001", "1826", "9999"))]
    points.append(stored(3, ADA, 0.99))
    assert _images(_list(points, replace(ANY, sort="newest"))) == [2, 1, 0, 3]
    assert _images(_list(points, replace(ANY, sort="oldest"))) == [0, 1, 2, 3]


def test_a_date_that_cannot_be_read_counts_as_none() -> None:
    points = [stored(1, ADA, 0.9, taken_at="yesterday"), stored(2, ADA, 0.5, taken_at="2021-01-01T00:00:00")]
    assert _images(_list(points, replace(ANY, sort="oldest"))) == [2, 1]


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [
        ("image_id", [(0, 2), (1, 1), (2, 1), (3, 1), (4, 1)]),
        ("person", [(0, 3), (1, 1), (2, 1), (4, 1)]),
        ("day", [(0, 3), (2, 1), (3, 2)]),
    ],
)
def test_a_group_is_its_most_similar_match_with_the_number_of_all(
    group_by: GroupBy, groups: list[tuple[int, int]]
) -> None:
    noon, evening = "2021-06-01T12:00:00+02:00", "2021-06-01T23:00:00"
    points = [
        stored(0, ADA, 0.9, person="Ada", taken_at=noon),
        stored(0, ADA, 0.8, place=1, person="Ada", taken_at=noon),
        stored(1, ADA, 0.85, taken_at=evening),
        stored(2, ADA, 0.84, taken_at="2021-06-02T12:00:00"),
        stored(3, ADA, 0.7, person="Ada"),
        stored(4, ADA, 0.6, person="Bob"),
    ]
    found = _list(points, replace(ANY, group_by=group_by))
    assert list(zip(_images(found), [row.group_size for row in found.rows], strict=True)) == groups


def test_groups_are_the_same_in_every_order() -> None:
    points = [stored(n, ADA, 0.5 + 0.01 * n, taken_at=f"2021-01-{n + 1:02}T0{n}:00:00", person="A") for n in range(5)]
    sorts: tuple[Sort, ...] = ("similarity", "newest", "oldest")
    for sort in sorts:
        (row,) = _list(points, replace(ANY, sort=sort, group_by="person")).rows
        assert (int(row.image_id, 16), row.group_size) == (4, 5)


def _hash(*bits: int) -> str:
    value = 0x0123456789ABCDEF
    for bit in bits:
        value ^= 1 << bit
    return f"{value:016x}"


def test_near_identical_images_are_one_group_and_those_that_differ_more_are_not() -> None:
    hashes = [_hash(), _hash(*range(ALIKE_DISTANCE)), _hash(*range(ALIKE_DISTANCE + 1)), _hash(3, 12, 21, 30, 39, 48)]
    points = [stored(n, ADA, 0.9 - 0.1 * n, phash=one) for n, one in enumerate(hashes)]
    points += [stored(8, ADA, 0.85), stored(9, ADA, 0.95), stored(9, ADA, 0.65, place=1)]  # no hash
    found = _list(points, replace(ANY, group_by="alike"))
    assert list(zip(_images(found), [row.group_size for row in found.rows], strict=True)) == [
        (9, 2),
        (0, 3),
        (8, 1),
        (2, 1),
    ]


def test_groups_of_near_identical_images_are_those_of_a_comparison_of_all_pairs() -> None:
    rng = np.random.default_rng(4)
    hashes: list[int] = []
    for _ in range(60):
        base = int(rng.integers(0, 2**63))
        for _ in range(4):
            flipped = rng.choice(64, int(rng.integers(0, 9)), replace=False)
            hashes.append(base ^ sum(1 << int(bit) for bit in flipped))
    rows = [
        Row(f"{n:04}", 1.0 - n / 1000, f"{n}", None, None, None, ("/",), one)
        for n, one in enumerate(rng.permutation(np.array(hashes, np.uint64)).tolist())
    ]
    leaders: list[Row] = []
    sizes: dict[str, int] = {}
    for row in rows:
        assert row.phash is not None
        apart = [((one.phash or 0) ^ row.phash).bit_count() for one in leaders]
        if not leaders or min(apart) > ALIKE_DISTANCE:
            leaders.append(leader := row)
        else:
            leader = leaders[apart.index(min(apart))]
        sizes[leader.face_id] = sizes.get(leader.face_id, 0) + 1
    found = arranged(RankedList(tuple(rows), False), "similarity", "alike")
    assert {row.face_id: row.group_size for row in found.rows} == sizes
    assert 60 < len(sizes) < 240


def _counted(found: RankedList) -> Counted:
    return Counted(found, found, found, found)


def test_facets_count_years_folders_and_the_undated() -> None:
    points = [
        stored(n, ADA, 0.9 - 0.01 * n, taken_at=taken, path=path, folder=folders_of(path))
        for n, taken in enumerate(TAKEN)
        for path in (f"/photos/{n % 3}/{n}.jpg",)
    ]
    counts = facets_of(_counted(_list(points)), 2)
    assert (counts.total, counts.undated, counts.is_cut) == (7, 2, False)
    assert list(counts.years.items()) == [("2020", 1), ("2021", 4)]
    assert counts.folders == {"/photos/0": 3, "/photos/1": 2}
    assert counts.similarities.tolist() == pytest.approx([0.9 - 0.01 * n for n in range(7)])
    nothing = facets_of(_counted(_list([])), 2)
    assert (nothing.total, nothing.years, nothing.folders, len(nothing.similarities)) == (0, {}, {}, 0)


def test_a_folder_counts_the_matches_in_its_subfolders_and_one_that_only_leads_to_all_is_left_out() -> None:
    paths = ["/a/b/1.jpg", "/a/b/2.jpg", "/a/b/c/3.jpg", "/a/b/d/e/4.jpg"]
    points = [stored(n, ADA, 0.9, path=path, folder=folders_of(path)) for n, path in enumerate(paths)]
    counts = facets_of(_counted(_list(points)), 50)
    assert counts.folders == {"/a/b": 4, "/a/b/c": 1, "/a/b/d": 1, "/a/b/d/e": 1}
    copied = stored(9, ADA, 0.9, path="/a/b/9.jpg", folder=folders_of("/a/b/9.jpg", "/z/copy.jpg"))
    counts = facets_of(_counted(_list([*points, copied])), 50)
    assert (counts.folders["/a/b"], counts.folders["/z"]) == (5, 1), "as a filter by the folder of a copy finds it"


def test_only_the_similarities_in_a_range_are_kept_and_a_list_is_cut_only_where_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [stored(n, ADA, 0.45 + 0.05 * n) for n in range(10)]
    found = _list(points)
    kept = only_within(found, ((0.5, 0.6), (0.8, 2.0)))
    assert [row.similarity for row in kept.rows] == [0.9, 0.85, 0.8, 0.55, 0.5]
    assert only_within(found, ()) is found
    monkeypatch.setattr(ranked, "MAX_LISTED", 5)
    cut = _list(points)
    assert (cut.is_cut, only_within(cut, ((0.8, 2.0),)).is_cut, only_within(cut, ((0.5, 0.6),)).is_cut) == (
        True, False, True,
    )  # fmt: skip


def test_a_list_with_more_matches_than_it_may_have_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranked, "MAX_LISTED", 10)
    points = [stored(n, ADA, 0.9 - 0.01 * n) for n in range(30)]
    found = _list(points)
    assert found.is_cut
    assert facets_of(_counted(found), 5).is_cut
    assert _images(found) == list(range(len(found.rows))), "the most similar ones are kept"
    assert 9 <= len(found.rows) <= 10
    assert not _list(points[:9]).is_cut
