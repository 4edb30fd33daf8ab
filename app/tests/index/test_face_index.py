"""The behaviour of every `FaceIndex`: the suite runs once per implementation."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FacePoint
from app.index.payload import folder_spellings
from app.index.server.connect import connect
from tests.index.conftest import (
    SERVER,
    everything,
    ids_of,
    open_quick,
    payload,
    points,
    settings_at,
    unit_vectors,
)


@pytest.fixture(scope="module")
def gallery(shared: FaceIndex) -> list[FacePoint]:
    """300 faces in their own folder, which no test changes."""
    faces = [
        FacePoint(face.face_id, face.embedding, payload(n, folder=("/", "/gallery", f"/gallery/{n % 4}")))
        for n, face in enumerate(points(300, seed=1))
    ]
    faces[0] = FacePoint(faces[0].face_id, faces[0].embedding, payload(0, folder=("/", "/gallery"), person="Ana"))
    faces[1] = FacePoint(faces[1].face_id, faces[1].embedding, payload(1, folder=("/", "/gallery"), taken_at=None))
    shared.upsert(faces)
    shared.flush()
    return faces


GALLERY = "/gallery"


def test_similarities_are_the_cosines_that_numpy_computes(shared: FaceIndex, gallery: list[FacePoint]) -> None:
    rows = np.stack([face.embedding for face in gallery])
    queries = unit_vectors(5, seed=77)
    assert len(queries)
    for query in queries:
        cosines = rows @ query
        best = np.argsort(-cosines)[:10]
        found = shared.search(query, limit=10, where=FaceFilter(folder=GALLERY))
        assert [match.face_id for match in found] == [gallery[row].face_id for row in best]
        assert np.allclose([match.similarity for match in found], cosines[best], atol=1e-4)


def test_a_face_finds_itself_first_with_a_similarity_of_one_and_its_payload(
    shared: FaceIndex, gallery: list[FacePoint]
) -> None:
    (match,) = shared.search(gallery[7].embedding, limit=1)
    assert match.face_id == gallery[7].face_id
    assert 0.9999 < match.similarity <= 1.0
    assert match.payload == gallery[7].payload


def test_a_search_returns_nothing_below_the_threshold(shared: FaceIndex, gallery: list[FacePoint]) -> None:
    query = unit_vectors(1, seed=78)[0]
    cosines = np.sort(np.stack([face.embedding for face in gallery]) @ query)[::-1]
    threshold = float(cosines[4] + cosines[5]) / 2
    found = shared.search(query, limit=100, threshold=threshold, where=FaceFilter(folder=GALLERY))
    assert len(found) == 5
    assert shared.search(query, limit=100, threshold=0.99, where=FaceFilter(folder=GALLERY)) == []


def test_an_exact_search_ranks_every_face_as_a_search_does(shared: FaceIndex, gallery: list[FacePoint]) -> None:
    query = unit_vectors(1, seed=80)[0]
    cosines = np.stack([face.embedding for face in gallery]) @ query
    where = FaceFilter(folder=GALLERY)
    scores = shared.search_exact(query, limit=1000, where=where)
    assert [score.face_id for score in scores] == [gallery[row].face_id for row in np.argsort(-cosines)]
    found = shared.search(query, limit=1000, where=where)
    assert [(one.face_id, one.similarity) for one in found] == [(one.face_id, one.similarity) for one in scores]
    threshold = float(np.sort(cosines)[-5]) - 1e-6
    assert shared.search_exact(query, limit=1000, threshold=threshold, where=where) == scores[:5]
    assert shared.search_exact(query, limit=3, where=where) == scores[:3]
    for wrong in ({"limit": 0}, {"limit": 1, "threshold": float("nan")}):
        with pytest.raises(OceanoError, match="must be"):
            shared.search_exact(query, **wrong)


def test_a_batch_finds_for_each_query_what_a_search_finds(shared: FaceIndex, gallery: list[FacePoint]) -> None:
    queries = list(unit_vectors(40, seed=79))
    batch = shared.search_batch(queries, limit=3)
    assert len(batch) == 40
    assert batch[0] == shared.search(queries[0], limit=3)
    assert batch[39] == shared.search(queries[39], limit=3)
    assert shared.search_batch([], limit=3) == []
    scores = shared.search_scores(queries, limit=3, candidates=512)
    assert [[(one.face_id, one.similarity) for one in found] for found in scores] == [
        [(one.face_id, one.similarity) for one in found] for found in batch
    ]
    least = batch[0][1].similarity - 1e-4
    assert [one.face_id for one in shared.search_scores(queries, limit=3, threshold=least)[0]] == [
        one.face_id for one in batch[0][:2]
    ]
    assert shared.search_scores([], limit=3) == []


@pytest.mark.parametrize(
    "where",
    [
        FaceFilter(person="Ana"),
        FaceFilter(folder="/gallery/3"),
        FaceFilter(image_id=f"{5:064x}"),
        FaceFilter(taken_from="2020-01-20T00:00:00"),
        FaceFilter(taken_to="2020-01-03T12:00:00"),
        FaceFilter(taken_from="2020-01-05", taken_to="2020-01-07"),
        FaceFilter(ingested_from="2024-05-01T10:00:00+00:00", ingested_to="2024-05-01T12:00:00+02:00"),
        FaceFilter(ingested_from="2024-05-02"),
        FaceFilter(min_det_score=0.8),
        FaceFilter(min_quality=0.9),
        FaceFilter(folder="/gallery/2", min_quality=0.3, taken_from="2020-01-10"),
        FaceFilter(without=("blurred",)),
        FaceFilter(without=("face_too_small", "extreme_pose"), min_quality=0.3),
        FaceFilter(folder=("/gallery/2", "/gallery/x/../3/", "/nowhere")),
        FaceFilter(undated=True),
        FaceFilter(undated=True, folder="/gallery/2"),
        FaceFilter(person="nobody"),
        FaceFilter(person=("nobody", "Ana")),
        FaceFilter(not_person=("nobody", "Ana")),
        FaceFilter(not_person=("Ana",), named=True),
        FaceFilter(unnamed=True, folder="/gallery"),
        FaceFilter(named=True, folder="/gallery"),
        FaceFilter(image_id=(f"{5:064x}", f"{7:064x}", "unknown")),
        FaceFilter(),
    ],
    ids=lambda where: "+".join(key for key in where.__slots__ if getattr(where, key) not in (None, ())) or "none",
)
def test_a_filter_matches_exactly_the_faces_that_meet_it(
    shared: FaceIndex, gallery: list[FacePoint], where: FaceFilter
) -> None:
    expected = {face.face_id for face in gallery if _meets(face, where)}
    in_gallery = set(ids_of(gallery))
    assert everything(shared, where) & in_gallery == expected
    found = shared.search(gallery[0].embedding, limit=1000, where=where)
    assert {match.face_id for match in found} & in_gallery == expected
    if where.folder:
        assert shared.count(where) == len(expected)


def _meets(face: FacePoint, where: FaceFilter) -> bool:
    p = face.payload
    day = (p.taken_at or "")[:10]
    return all(
        [
            where.person is None or p.person in _several(where.person),
            p.person not in where.not_person,
            not (where.unnamed and p.person),
            not (where.named and p.person is None),
            where.folder is None or not set(folder_spellings(where.folder) or ()).isdisjoint(p.folder),
            not (where.undated and p.taken_at),
            where.image_id is None or p.image_id in _several(where.image_id),
            where.taken_from is None or (bool(day) and day >= where.taken_from[:10]),
            where.taken_to is None or (bool(day) and day <= where.taken_to[:10]),
            where.ingested_from != "2024-05-02",
            p.det_score >= (where.min_det_score or 0),
            p.quality >= (where.min_quality or 0),
            not set(where.without) & set(p.flaws),
        ]
    )


def _several(values: str | tuple[str, ...]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else values


def test_the_filters_above_match_some_faces_and_not_others(gallery: list[FacePoint]) -> None:
    assert 0 < sum(_meets(face, FaceFilter(folder="/gallery/2", min_quality=0.3)) for face in gallery) < 300


def test_a_filter_with_an_invalid_time_is_refused(shared: FaceIndex) -> None:
    with pytest.raises(OceanoError, match="ISO 8601") as caught:
        shared.count(FaceFilter(taken_from="yesterday"))
    assert caught.value.code == "invalid_request"


def test_inserting_again_changes_nothing(shared: FaceIndex) -> None:
    (first,) = points(1, seed=20)
    shared.upsert([first])
    changed = FacePoint(first.face_id, unit_vectors(1, seed=21)[0], payload(9, person="Another"))
    shared.upsert([changed])
    (stored,) = shared.retrieve([first.face_id], with_embedding=True)
    assert stored.payload == first.payload
    assert stored.embedding is not None
    assert np.allclose(stored.embedding, first.embedding, atol=1e-6)


def test_inserting_the_same_face_twice_in_one_call_keeps_the_first(shared: FaceIndex) -> None:
    (first,) = points(1, seed=22)
    changed = FacePoint(first.face_id, first.embedding, payload(9, person="Second"))
    shared.upsert([first, changed])
    (stored,) = shared.retrieve([first.face_id])
    assert stored.payload.person is None


def test_a_name_survives_inserting_again(shared: FaceIndex) -> None:
    faces = points(3, seed=23)
    shared.upsert(faces)
    shared.set_payload(ids_of(faces[:2]), person="Zoë Ñandú")
    shared.upsert(faces)
    stored = shared.retrieve(ids_of(faces))
    assert [record.payload.person for record in stored] == ["Zoë Ñandú", "Zoë Ñandú", None]
    assert shared.count(FaceFilter(person="Zoë Ñandú")) == 2
    shared.set_payload([faces[0].face_id], person=None)
    assert shared.count(FaceFilter(person="Zoë Ñandú")) == 1
    assert shared.retrieve([faces[0].face_id])[0].payload == faces[0].payload


def test_naming_a_missing_face_creates_none(shared: FaceIndex) -> None:
    (absent,) = points(1, seed=24)
    shared.set_payload([absent.face_id], person="Nobody")
    assert shared.retrieve([absent.face_id]) == []
    assert shared.count(FaceFilter(person="Nobody")) == 0


def test_a_picture_that_was_moved_is_found_in_its_new_folder_and_keeps_its_names(shared: FaceIndex) -> None:
    faces = points(3, seed=131)
    shared.upsert(faces)
    shared.set_payload(ids_of(faces), person="Moved")
    shared.set_paths(ids_of(faces[:2]), paths=["/moved/far/1.jpg"])
    moved, _, stayed = shared.retrieve(ids_of(faces))
    assert (moved.payload.path, moved.payload.folder) == ("/moved/far/1.jpg", ("/", "/moved", "/moved/far"))
    assert moved.payload.person == "Moved"
    assert stayed.payload.folder == faces[2].payload.folder
    assert shared.count(FaceFilter(folder="/moved")) == 2


def test_a_picture_with_copies_is_found_in_the_folders_of_all(shared: FaceIndex) -> None:
    faces = points(2, seed=132)
    shared.upsert(faces)
    shared.set_paths(ids_of(faces[:1]), paths=["/one/z.jpg", "/one/a/b.jpg", "/other/c.jpg"])
    copied, stayed = shared.retrieve(ids_of(faces))
    assert (copied.payload.path, copied.payload.folder) == ("/one/z.jpg", ("/", "/one", "/one/a", "/other"))
    assert stayed.payload.folder == faces[1].payload.folder
    for folder in ("/one", "/one/a", "/other"):
        assert shared.count(FaceFilter(folder=folder)) == 1
    shared.set_paths(ids_of(faces[:1]), paths=["/other/c.jpg"])
    assert shared.count(FaceFilter(folder="/one")) == 0


def test_a_hash_is_added_to_faces_and_nothing_else_changes(shared: FaceIndex) -> None:
    faces = points(3, seed=133)
    (absent,) = points(1, seed=134)
    shared.upsert(faces)
    shared.set_payload(ids_of(faces), person="Hashed")
    assert shared.retrieve(ids_of(faces))[0].payload.phash is None
    shared.set_phash([*ids_of(faces[:2]), absent.face_id], phash="0123456789abcdef")
    found = [record.payload for record in shared.retrieve(ids_of([*faces, absent]))]
    assert [one.phash for one in found] == ["0123456789abcdef", "0123456789abcdef", None]
    expected = [dataclasses.replace(one.payload, person="Hashed") for one in faces]
    assert [dataclasses.replace(one, phash=None) for one in found] == expected


@pytest.mark.parametrize("phash", ["", "0123456789ABCDEF", "0" * 15, "0" * 17, "x" * 16])
def test_a_hash_that_could_not_be_read_again_is_refused(shared: FaceIndex, phash: str) -> None:
    with pytest.raises(OceanoError) as caught:
        shared.set_phash(ids_of(points(1, seed=133)), phash=phash)
    assert caught.value.code == "invalid_request"


def test_retrieve_keeps_the_order_of_the_ids_and_skips_unknown_ones(
    shared: FaceIndex, gallery: list[FacePoint]
) -> None:
    (absent,) = points(1, seed=25)
    requested = [gallery[9].face_id, absent.face_id, gallery[2].face_id, "not a uuid", gallery[5].face_id]
    found = shared.retrieve(requested, with_embedding=True)
    assert [record.face_id for record in found] == [gallery[9].face_id, gallery[2].face_id, gallery[5].face_id]
    assert all(record.embedding is not None and record.embedding.dtype == np.float32 for record in found)
    assert shared.retrieve([gallery[9].face_id])[0].embedding is None
    assert shared.retrieve([]) == []


@pytest.mark.parametrize("limit", [7, 300, 1000])
def test_scrolling_sees_every_face_once_in_the_order_of_ids(
    shared: FaceIndex, gallery: list[FacePoint], limit: int
) -> None:
    seen: list[str] = []
    offset: str | None = None
    while True:
        page = shared.scroll(limit=limit, offset=offset, where=FaceFilter(folder=GALLERY))
        assert len(page.records) <= limit
        seen.extend(record.face_id for record in page.records)
        offset = page.next_offset
        if offset is None:
            break
    assert seen == sorted(ids_of(gallery))


def test_scrolling_returns_payloads_and_requested_embeddings(shared: FaceIndex, gallery: list[FacePoint]) -> None:
    by_id = {face.face_id: face for face in gallery}
    page = shared.scroll(limit=5, where=FaceFilter(folder=GALLERY), with_embedding=True)
    assert len(page.records) == 5
    for record in page.records:
        assert record.payload == by_id[record.face_id].payload
        assert record.embedding is not None
        assert np.allclose(record.embedding, by_id[record.face_id].embedding, atol=1e-6)


def test_deleted_faces_are_not_found_and_unknown_ids_are_ignored(shared: FaceIndex) -> None:
    faces = points(10, seed=26, folder=("/", "/deleted"))
    shared.upsert(faces)
    (absent,) = points(1, seed=27)
    shared.delete([*ids_of(faces[:4]), absent.face_id, "not a uuid"])
    assert shared.count(FaceFilter(folder="/deleted")) == 6
    assert shared.retrieve(ids_of(faces[:4])) == []
    found = shared.search(faces[0].embedding, limit=50, where=FaceFilter(folder="/deleted"))
    assert {match.face_id for match in found} == set(ids_of(faces[4:]))


def test_a_deleted_face_can_be_inserted_again(shared: FaceIndex) -> None:
    (face,) = points(1, seed=28)
    shared.upsert([face])
    shared.delete([face.face_id])
    shared.upsert([face])
    assert shared.retrieve([face.face_id])[0].payload == face.payload


def test_facets_count_faces_most_first_and_leave_out_null(shared: FaceIndex) -> None:
    faces = points(12, seed=29, folder=("/", "/facets"))
    shared.upsert(faces)
    shared.set_payload(ids_of(faces[:5]), person="Five")
    shared.set_payload(ids_of(faces[5:8]), person="Three")
    shared.set_payload(ids_of(faces[8:9]), person="One")
    shared.set_payload(ids_of(faces[8:9]), person=None)
    where = FaceFilter(folder="/facets")
    assert list(shared.facet("person", where=where).items()) == [("Five", 5), ("Three", 3)]
    assert list(shared.facet("person", where=where, limit=1).items()) == [("Five", 5)]
    assert shared.facet("folder", where=where) == {"/": 12, "/facets": 12}
    assert set(shared.facet("image_id", where=where).values()) == {2}


def test_counts_with_and_without_a_filter_agree_with_the_faces(shared: FaceIndex, gallery: list[FacePoint]) -> None:
    assert shared.count(FaceFilter(folder=GALLERY)) == 300
    assert shared.count() == len(everything(shared)) == shared.info().points >= 300


def test_info_describes_the_index(shared: FaceIndex, gallery: list[FacePoint]) -> None:
    info = shared.info()
    assert info.kind in ("embedded", "server")
    assert info.collection.endswith("__testpack__4ab1d643")
    if info.kind == "embedded":
        assert info.disk_bytes is not None
        assert info.disk_bytes > 300 * 2048
    assert info.segments >= 1
    assert not info.maintaining


@pytest.fixture(scope="module")
def reference(gallery: list[FacePoint], base: Path) -> Iterator[FaceIndex]:
    """An embedded index with the same faces."""
    with closing(open_quick(settings_at(Path(tempfile.mkdtemp(dir=base))))) as opened:
        opened.upsert(gallery)
        opened.flush()
        yield opened


@pytest.mark.parametrize(
    "where",
    [
        FaceFilter(folder=GALLERY),
        FaceFilter(folder=f"{GALLERY}/2"),
        FaceFilter(folder=GALLERY, person="Ana"),
        FaceFilter(folder=GALLERY, min_det_score=0.7, min_quality=0.3),
        FaceFilter(folder=GALLERY, taken_from="2020-01-05T00:00:00", taken_to="2020-01-20T00:00:00"),
    ],
    ids=lambda where: " ".join(str(value) for value in dataclasses.asdict(where).values() if value),
)
def test_every_index_returns_the_same_results(shared: FaceIndex, reference: FaceIndex, where: FaceFilter) -> None:
    queries = list(unit_vectors(8, seed=79))
    for expected, actual in zip(
        reference.search_batch(queries, limit=20, where=where),
        shared.search_batch(queries, limit=20, where=where),
        strict=True,
    ):
        assert [match.face_id for match in expected] == [match.face_id for match in actual]
        assert [match.payload for match in expected] == [match.payload for match in actual]
        assert np.allclose([m.similarity for m in expected], [m.similarity for m in actual], atol=1e-4, rtol=0)
    assert reference.count(where) == shared.count(where) > 0
    for key in ("person", "folder", "image_id"):
        assert reference.facet(key, where=where) == shared.facet(key, where=where)
    offset = None
    while True:
        expected, actual = (index.scroll(limit=9, offset=offset, where=where) for index in (reference, shared))
        assert expected == actual
        if (offset := expected.next_offset) is None:
            break


@pytest.mark.parametrize(
    "embedding",
    [np.zeros(512), np.full(512, np.nan), np.ones(512), np.ones(128) / np.sqrt(128), np.ones((1, 512)) / np.sqrt(512)],
    ids=["zero", "nan", "too long", "128 numbers", "a matrix"],
)
def test_an_embedding_that_is_not_a_unit_vector_of_512_is_refused(shared: FaceIndex, embedding: np.ndarray) -> None:
    (face,) = points(1, seed=30)
    bad = FacePoint(face.face_id, embedding.astype(np.float32), face.payload)
    for attempt in (lambda: shared.upsert([bad]), lambda: shared.search(bad.embedding, limit=1)):
        with pytest.raises(OceanoError) as caught:
            attempt()
        assert caught.value.code == "invalid_request"
    assert shared.retrieve([face.face_id]) == []


def test_a_face_id_that_is_not_a_uuid_is_refused(shared: FaceIndex) -> None:
    (face,) = points(1, seed=31)
    with pytest.raises(OceanoError) as caught:
        shared.upsert([FacePoint("face-1", face.embedding, face.payload)])
    assert caught.value.code == "invalid_request"


def test_a_limit_below_one_is_refused(shared: FaceIndex, gallery: list[FacePoint]) -> None:
    for attempt in (lambda: shared.search(gallery[0].embedding, limit=0), lambda: shared.scroll(limit=0)):
        with pytest.raises(OceanoError) as caught:
            attempt()
        assert caught.value.code == "invalid_request"


def test_more_points_than_one_request_holds_are_all_written(shared: FaceIndex) -> None:
    faces = points(1500, seed=32, folder=("/", "/many"))
    shared.upsert(faces)
    shared.flush()
    assert shared.count(FaceFilter(folder="/many")) == 1500
    assert len(shared.scroll(limit=1400, where=FaceFilter(folder="/many")).records) == 1400
    assert len(shared.retrieve(ids_of(faces))) == 1500
    shared.upsert([])
    shared.delete(ids_of(faces))
    assert shared.count(FaceFilter(folder="/many")) == 0


@pytest.mark.server
def test_the_server_of_this_suite_responds() -> None:
    if not SERVER:
        pytest.skip(
            "QDRANT_TEST_URL names no Qdrant server: the suite runs on the embedded index and the local mode only"
        )
    connect(Settings(_env_file=None, qdrant_url=SERVER)).close()  # type: ignore[call-arg]
