"""Suggestions and identification: from clear, confirmed faces only, and never two faces of a picture as one person."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.catalog import CopiedNames, FaceTable, GroupedFace
from app.core.types import FacePoint, Flaw, Floats
from app.people import Suggestion, Suggestions, identify
from tests.people.conftest import ANA, Named
from tests.support.people_gallery import COLLECTION, face_ids

LEAST, LIKELY, LINE = 0.35, 0.4, 0.45
OF_EACH = 4


def suggested(named: Named, person_id: str, limit: int = 50) -> list[Suggestion]:
    suggestions = Suggestions(named.index, named.store, CopiedNames(named.database, COLLECTION))
    return suggestions.of(person_id, least=LEAST, likely=LIKELY, line=LINE, limit=limit)


def numbers(named: Named, found: list[Suggestion]) -> list[int]:
    known = {face_ids(number)[0]: number for number in range(len(named.index.points))}
    return [known[one.record.face_id] for one in found]


def change(named: Named, number: int, *, flaws: tuple[Flaw, ...] = (), embedding: Floats | None = None) -> None:
    point = named.index.points[face_ids(number)[0]]
    named.index.points[point.face_id] = FacePoint(
        point.face_id,
        point.embedding if embedding is None else embedding,
        replace(point.payload, flaws=flaws),
    )


def move(named: Named, number: int, beside: int) -> None:
    """Put a face into the picture of another."""
    point, other = named.index.points[face_ids(number)[0]], named.payload(beside)
    payload = replace(point.payload, image_id=other.image_id, path=other.path)
    named.index.points[point.face_id] = replace(point, payload=payload)


def group(named: Named, group_id: str, *faces: int) -> None:
    rows = [GroupedFace(face_ids(n)[0], named.payload(n).image_id, group_id, clear=True) for n in faces]
    FaceTable(named.database, COLLECTION).write(rows)


def test_the_other_faces_of_a_person_are_suggested_best_first(named: Named) -> None:
    person = named.person("Ana", 0)
    found = suggested(named, person.id)
    assert sorted(numbers(named, found)) == [1, 2, 3]
    assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)
    assert {(one.reason, one.clear) for one in found} == {("similar", True)}
    assert [one.sure for one in found] == [one.similarity >= LINE for one in found]


def test_a_face_that_is_similar_to_somebody_else_is_not_sure(named: Named) -> None:
    one, other = named.person("Ana", 0), named.person("Eva", 4)
    between = named.index.points[face_ids(0)[0]].embedding + 1.2 * named.index.points[face_ids(4)[0]].embedding
    change(named, 1, embedding=np.asarray(between / np.linalg.norm(between), np.float32))
    (here,) = [found for found in suggested(named, one.id) if found.record.face_id == face_ids(1)[0]]
    (there,) = [found for found in suggested(named, other.id) if found.record.face_id == face_ids(1)[0]]
    assert here.similarity > LINE
    assert (here.doubt, there.doubt) == ("somebody_else", None)


def test_named_rejected_and_dismissed_faces_are_not_suggested(named: Named) -> None:
    person = named.person("Ana", 0)
    named.person("Eva", 1)
    named.naming.reject(person.id, 1, face_ids(2), ANA)
    named.naming.dismiss(face_ids(3), "not_a_face", ANA)
    assert suggested(named, person.id) == []
    named.naming.dismiss(face_ids(3), None, ANA)
    assert numbers(named, suggested(named, person.id)) == [3]
    named.naming.dismiss(face_ids(3), "set_aside", ANA)
    assert suggested(named, person.id) == []


def test_two_faces_of_a_picture_are_never_suggested_as_one_person(named: Named) -> None:
    person = named.person("Ana", 0)
    move(named, 1, beside=0)
    assert sorted(numbers(named, suggested(named, person.id))) == [2, 3]
    move(named, 3, beside=2)
    (one,) = suggested(named, person.id)
    best = max((2, 3), key=lambda n: float(named.index.points[face_ids(n)[0]].embedding @ _embedding(named, 0)))
    assert numbers(named, [one]) == [best]


def _embedding(named: Named, number: int) -> Floats:
    return named.index.points[face_ids(number)[0]].embedding


@pytest.mark.parametrize("flaw", ["blurred", "face_too_small", "extreme_pose", "low_detection_score"])
def test_a_smear_recognises_nobody(named: Named, flaw: Flaw) -> None:
    person = named.person("Ana", 0)
    change(named, 0, flaws=(flaw,))
    assert suggested(named, person.id) == []
    assert identify(named.index, [_embedding(named, 1)], least=LEAST, line=LINE) == [None]


def test_a_smear_may_be_suggested_but_is_not_sure(named: Named) -> None:
    person = named.person("Ana", 0)
    change(named, 1, flaws=("blurred",))
    some = suggested(named, person.id)
    found = dict(zip(numbers(named, some), some, strict=True))
    assert (found[1].clear, found[1].sure, found[1].doubt) == (False, False, "unclear")
    assert found[2].clear


def test_faces_named_by_metadata_count_only_where_nobody_named_one_by_hand(named: Named) -> None:
    person = named.person("Ana", 0)
    named.naming.assign(person.id, 1, face_ids(8), ANA, source="metadata")  # in truth another person
    assert sorted(numbers(named, suggested(named, person.id))) == [1, 2, 3]
    named.naming.reject(person.id, 2, face_ids(0), ANA)
    assert sorted(numbers(named, suggested(named, person.id))) == [9, 10, 11]


def test_faces_of_one_group_are_suggested_with_the_reason(named: Named) -> None:
    person = named.person("Ana", 0)
    group(named, face_ids(0)[0], 0, 1, 8)
    named.names.copy_all()
    found = suggested(named, person.id)
    reasons = dict(zip(numbers(named, found), (one.reason for one in found), strict=True))
    assert reasons == {1: "group", 2: "similar", 3: "similar", 8: "group"}
    other = named.person("Eva", 8)
    assert {one.reason for one in suggested(named, person.id)} == {"similar"}  # the group has faces of two people
    assert 0 not in numbers(named, suggested(named, other.id))


def test_a_face_of_the_group_is_sure_if_it_resembles_the_others_of_the_group(named: Named) -> None:
    person = named.person("Ana", 0)
    group(named, face_ids(0)[0], 0, 1, 2, 3, 8)
    named.names.copy_all()
    others = [_embedding(named, number) for number in (1, 2, 3)]
    # so that it resembles the named face too little, but the others of the group
    away = np.mean(others, axis=0) - 0.8 * float(np.mean(others, axis=0) @ _embedding(named, 0)) * _embedding(named, 0)
    change(named, 3, embedding=np.asarray(away / np.linalg.norm(away), np.float32))
    some = suggested(named, person.id)
    found = dict(zip(numbers(named, some), some, strict=True))
    assert found[3].similarity < LEAST
    assert (found[3].reason, found[3].doubt) == ("group", None)
    assert (found[8].reason, found[8].doubt) == ("group", "not_similar")  # it resembles nobody of the group


@pytest.mark.parametrize(
    ("named_right", "named_wrong", "sure"),
    [
        ((0, 1), (4,), [2, 3]), ((0, 1, 2), (4, 5), [3]), ((0,), (4,), []), ((0, 1), (4, 5), []),
        ((0, 1, 2), (4, 5, 6), [3, 7]),  # so many may be another look of the person
    ],
)  # fmt: skip
def test_faces_with_a_wrong_name_make_nothing_sure(
    named: Named, named_right: tuple[int, ...], named_wrong: tuple[int, ...], sure: list[int]
) -> None:
    """The faces from 4 on show somebody else."""
    person = named.person("Ana", *named_right, *named_wrong)
    group(named, face_ids(0)[0], 0, 1, 2, 3)
    group(named, face_ids(4)[0], 4, 5, 6, 7)
    named.names.copy_all()
    some = suggested(named, person.id)
    found = dict(zip(numbers(named, some), (one.doubt for one in some), strict=True))
    assert sorted(found) == [one for one in range(8) if one not in (*named_right, *named_wrong)]
    assert sorted(one for one, doubt in found.items() if doubt is None) == sure
    assert {doubt for doubt in found.values() if doubt} <= {"not_similar"}


def test_a_face_is_identified_by_several_faces_of_a_person(named: Named) -> None:
    ana, eva = named.person("Ana", 0, 1, 2), named.person("Eva", 4, 5, 6)
    # one wrong name: the nearest face of the query is called Eva
    named.naming.assign(eva.id, 1, face_ids(3), ANA)
    query = _embedding(named, 3)
    (found,) = identify(named.index, [query], least=-1.0, line=LINE)
    assert found is not None
    assert found.person_id == ana.id
    assert found.next_id == eva.id
    assert found.margin == pytest.approx(found.similarity - _best(named, query, 3, 4, 5, 6), abs=1e-5)
    expected = _best(named, query, 0, 1, 2)
    assert found.similarity == pytest.approx(expected, abs=1e-5)


def test_the_next_person_is_found_behind_a_hundred_nearer_faces_of_the_first(named: Named) -> None:
    ana, eva = named.person("Ana", 0, 1), named.person("Eva", 4, 5, 6, 7)
    query = _embedding(named, 0)
    nearer = [
        replace(point, face_id=f"{number:032x}")
        for number, point in enumerate([named.index.points[face_ids(0)[0]]] * 120)
    ]
    for point in nearer:
        payload = replace(point.payload, image_id=point.face_id * 2, person=ana.id)
        named.index.points[point.face_id] = replace(point, payload=payload)
    (found,) = identify(named.index, [query], least=-1.0, line=LINE)
    assert found is not None
    assert (found.person_id, found.next_id) == (ana.id, eva.id)
    assert found.margin == pytest.approx(1.0 - _best(named, query, 4, 5, 6, 7), abs=1e-5)


def _best(named: Named, query: Floats, *faces: int) -> float:
    values = sorted((float(query @ _embedding(named, number)) for number in faces), reverse=True)
    return float(np.mean(values[:3]))


def test_nobody_is_identified_without_names_and_a_close_call_is_not_sure(named: Named) -> None:
    assert identify(named.index, [_embedding(named, 0)], least=LEAST, line=LINE) == [None]
    assert identify(named.index, [], least=LEAST, line=LINE) == []
    named.person("Ana", 0)
    (alone,) = identify(named.index, [_embedding(named, 0)], least=LEAST, line=LINE)
    assert alone is not None
    assert (alone.margin, alone.next_id, alone.sure) == (None, None, True)
    (blurred,) = identify(named.index, [_embedding(named, 0)], least=LEAST, line=LINE, clear=[False])
    assert blurred is not None
    assert blurred.sure is False
    named.person("Ana again", 1)
    (close,) = identify(named.index, [_embedding(named, 0) * 0.7 + _embedding(named, 1) * 0.7], least=LEAST, line=LINE)
    assert close is not None
    assert close.margin is not None
    assert close.sure is False
