from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from app.core.types import Face, Floats
from app.service import combine_pictures, combined, doubtful_examples, people_of, similarities_to_others
from tests.support.fakes import embedding_of
from tests.support.matches import ADA, BOB, EVE, like
from tests.support.pictures import KPS


def _face(embedding: Floats, side: float = 50.0) -> Face:
    return Face((0.0, 0.0, side, side), KPS, 0.9, 0.8, "direct", embedding)


def _picked(pictures: Sequence[Sequence[Face]], **how: object) -> list[int]:
    examples, _ = combine_pictures(pictures, 0.4, **how)  # type: ignore[arg-type]
    assert [example.picture for example in examples] == list(range(len(pictures)))
    return [example.face_index for example in examples]


def test_one_embedding_is_itself() -> None:
    assert combined([ADA]) is ADA


def test_several_embeddings_are_one_of_norm_1_in_any_order() -> None:
    faces = [like(ADA, 0.7, n) for n in range(5)]
    mean = combined(faces)
    assert mean.dtype == np.float32
    assert float(np.linalg.norm(mean)) == pytest.approx(1, abs=1e-6)
    assert combined(faces[::-1]) == pytest.approx(mean, abs=1e-6)
    assert np.isfinite(combined([ADA, -ADA])).all()


def test_three_photographs_are_more_like_a_fourth_than_each_of_them_and_no_more_like_strangers() -> None:
    strangers = np.stack([embedding_of(n) for n in range(200, 700)])
    for person in range(20):
        faces = [like(embedding_of(person), 0.75, 10 * person + n) for n in range(4)]
        mean = combined(faces[:3])
        assert float(mean @ faces[3]) > max(float(one @ faces[3]) for one in faces[:3])
        single = np.mean([np.std(strangers @ one) for one in faces[:3]])
        assert np.std(strangers @ mean) == pytest.approx(single, rel=0.2)


def test_the_largest_face_of_the_first_photograph_is_meant() -> None:
    pictures = [
        [_face(BOB, 40), _face(like(ADA, 0.9, 1), 80), _face(EVE, 20)],
        [_face(like(ADA, 0.9, 2), 10), _face(like(BOB, 0.9, 3), 90)],
        [_face(like(EVE, 0.9, 4), 90), _face(like(BOB, 0.9, 5), 90), _face(like(ADA, 0.9, 6), 5)],
    ]
    assert _picked(pictures) == [1, 0, 2]
    assert _picked(pictures, chosen={0: 0}) == [0, 1, 1]
    assert _picked(pictures, chosen={2: 0})[::2] == [2, 0]
    assert _picked(pictures, known=[BOB]) == [0, 1, 1]


def test_a_photograph_with_one_face_tells_who_is_meant_in_those_with_several() -> None:
    pictures = [[_face(BOB, 90), _face(like(ADA, 0.8, 1), 10)], [_face(like(ADA, 0.8, 2))]]
    assert _picked(pictures) == [1, 0]


def test_an_example_that_does_not_resemble_the_others_is_doubtful() -> None:
    pictures = [[_face(like(ADA, 0.9, 1))], [_face(BOB)], [_face(like(ADA, 0.9, 2))]]
    examples, embedding = combine_pictures(pictures, 0.5)
    assert [example.doubtful for example in examples] == [False, True, False]
    assert embedding == pytest.approx(combined([faces[0].embedding for faces in pictures]), abs=1e-6)
    (alone,), same = combine_pictures(pictures[:1], 0.5)
    assert (alone.similarity, alone.doubtful) == (1.0, False)
    assert same is pictures[0][0].embedding


def test_a_stranger_is_doubtful_wherever_it_stands_and_one_of_two_is_meant() -> None:
    one, same, odd = like(ADA, 0.9, 1), like(ADA, 0.9, 2), BOB
    assert doubtful_examples([one], 0.5) == [False]
    assert doubtful_examples([one, odd], 0.5) == [False, True]
    for place in range(3):
        examples = [one, same]
        examples.insert(place, odd)
        assert doubtful_examples(examples, 0.5) == [at == place for at in range(3)]


def test_two_strangers_do_not_make_the_person_who_is_meant_doubtful() -> None:
    examples = [like(ADA, 0.9, 1), like(ADA, 0.8, 2), like(BOB, 0.9, 3), like(EVE, 0.9, 4)]
    assert similarities_to_others(examples)[1] < 0.5
    assert doubtful_examples(examples, 0.5) == [False, False, True, True]


def test_two_people_among_the_examples_are_told_apart_however_they_are_mixed() -> None:
    ada, bob = ([like(one, 0.7, at + n) for n in range(5)] for one, at in ((ADA, 0), (BOB, 50)))
    mixed = [one for pair in zip(ada, bob, strict=True) for one in pair]
    assert people_of(mixed, 0.4) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert people_of([*bob[:2], *ada[:3], EVE], 0.4) == [[2, 3, 4], [0, 1]]


def test_one_person_and_a_stranger_are_no_two_people() -> None:
    ada = [like(ADA, 0.7, n) for n in range(4)]
    for examples in ([ADA], ada, [*ada, BOB], [ADA, BOB], [*ada, BOB, EVE]):
        assert people_of(examples, 0.4) == [list(range(len(examples)))]


def test_a_photograph_is_doubtful_beside_a_known_face_of_the_person() -> None:
    (example,), _ = combine_pictures([[_face(BOB)]], 0.5, known=[like(ADA, 0.9, 1)])
    assert example.doubtful


def test_known_embeddings_are_part_of_the_query() -> None:
    (example,), embedding = combine_pictures([[_face(EVE), _face(ADA)]], 0.4, known=[like(ADA, 0.9, 1)])
    assert example.face_index == 1
    assert example.similarity == pytest.approx(0.9, abs=1e-5)
    assert embedding == pytest.approx(combined([like(ADA, 0.9, 1), ADA]), abs=1e-6)
