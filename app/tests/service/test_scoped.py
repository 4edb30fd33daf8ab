"""What somebody with a scope sees of the parts of the service."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from app.catalog import FileRecord, Job
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.paths import folders_of, readable
from app.core.protocols import FaceIndex
from app.core.types import FaceFilter, FaceRecord
from app.index import open_index
from app.metrics import Metrics
from app.security import LOCAL, Access
from app.service import Query, Services, find_folders, open_services, require_known_folders
from app.service import scoped as module
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.matches import ADA
from tests.support.pictures import RED, point
from tests.support.scopes import (
    FURTHER,
    HIDDEN,
    PEOPLE,
    SEEN,
    World,
    at_one_time,
    face_of,
    image_of,
    ingested,
    make_files,
)


def access(*folders: str, who: str = "key scoped") -> Access:
    return Access(who, "search", folders)


def opened(settings: Settings, index: FaceIndex) -> Services:
    services = open_services(settings, Metrics(), FakeEngine(), index)
    asyncio.run(services.monitor.check_index())
    return services


class Counting(MemoryIndex):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def count(self, where: FaceFilter | None = None) -> int:
        self.asked.append("count")
        return super().count(where)

    def facet(
        self, key: Literal["person", "folder", "image_id"], *, limit: int = 100, where: FaceFilter | None = None
    ) -> dict[str, int]:
        self.asked.append(f"facet {limit}")
        return super().facet(key, limit=limit, where=where)

    def scroll(self, **how: Any) -> Any:
        self.asked.append("scroll")
        return super().scroll(**how)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    base = tmp_path_factory.mktemp("scoped")
    index = Counting()
    made = ingested(base / "data", make_files(base), (HIDDEN, SEEN), index)
    at_one_time(index)
    return made


@pytest.fixture
def services(world: World) -> Iterator[Services]:
    index = world.index
    assert isinstance(index, Counting)
    before = dict(index.points)
    services = opened(world.settings, index)
    yield services
    services.close()
    index.points = before


@pytest.fixture
def view(world: World, services: Services) -> Services:
    return services.within(access(world.seen))


def shared_of(world: World) -> str:
    return face_of(world.archive / SEEN / "2019" / "shared-copy.jpg")


def only(records: Sequence[FaceRecord]) -> FaceRecord:
    (record,) = records
    return record


def test_who_sees_everything_gets_the_service_itself(services: Services) -> None:
    assert services.within(LOCAL) is services
    assert services.within(access()) is services


def test_the_view_of_a_scope_is_made_once(services: Services, world: World) -> None:
    assert services.within(access(world.seen)) is services.within(access(world.seen, who="another"))
    assert services.within(access(world.seen)) is not services.within(access("/"))


def test_views_that_were_not_used_for_long_are_made_again(
    services: Services, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = services.within(access(world.seen))
    for number in range(2 * module._VIEWS):
        assert services.within(access(f"/{number}")).view is not None
    again = services.within(access(world.seen))
    assert again is not first
    assert len(services._views._kept) == module._VIEWS


def test_an_image_with_a_copy_in_the_scope_has_its_path_and_folders(
    services: Services, view: Services, world: World
) -> None:
    face = shared_of(world)
    outside = only(services.index.retrieve([face])).payload
    assert f"/{HIDDEN}/" in outside.path
    inside = only(view.index.retrieve([face])).payload
    assert inside.path == f"{world.seen}/2019/shared-copy.jpg"
    assert inside.folder == (world.seen, f"{world.seen}/2019")
    assert replace(inside, path=outside.path, folder=outside.folder) == outside
    found = view.index.search(only(services.index.retrieve([face], with_embedding=True)).embedding, limit=1)  # type: ignore[arg-type]
    assert found[0].payload == inside
    image = view.pictures.get(inside.image_id)
    assert [file.path for file in image.files] == [inside.path]
    assert view.ledger.paths_of(inside.image_id) == [inside.path]
    assert len(services.ledger.paths_of(inside.image_id)) == 2


def test_no_method_of_the_index_shows_a_face_outside(services: Services, view: Services, world: World) -> None:
    assert isinstance(world.index, MemoryIndex)
    points = world.index.points.values()
    seen = {one.face_id for one in points if any(f.startswith(world.seen) for f in one.payload.folder)}
    assert 0 < len(seen) < len(points)
    index = view.index
    everything = {"limit": 10_000, "where": None}
    assert {one.face_id for one in index.scroll(limit=10_000).records} == seen
    assert {one.face_id for one in index.retrieve([one.face_id for one in points])} == seen
    assert {one.face_id for one in index.search(ADA, **everything)} == seen  # type: ignore[arg-type]
    assert {one.face_id for one in index.search_exact(ADA, **everything)} == seen  # type: ignore[arg-type]
    assert {one.face_id for one in index.search_batch([ADA, ADA], **everything)[1]} == seen  # type: ignore[arg-type]
    assert index.count() == index.info().points == len(seen) == sum(index.facet("image_id", limit=9999).values())
    assert set(index.facet("folder")) == {world.seen, f"{world.seen}/2019"}
    assert index.facet("folder")[f"{world.seen}"] == len(seen)
    assert set(index.facet("person")) == {PEOPLE[name] for name in ("Alma", "Zoe", "Violeta")}
    assert index.info().disk_bytes is None


def test_a_page_of_faces_goes_on_within_the_scope(view: Services, world: World) -> None:
    found, offset = [], None
    while True:
        page = view.index.scroll(limit=10, offset=offset)
        found += [one.face_id for one in page.records]
        if (offset := page.next_offset) is None:
            break
        assert view.index.retrieve([offset])
    assert len(found) == len(set(found)) == view.index.count()


def test_a_filter_that_matches_nothing_in_the_scope_asks_nobody(view: Services, world: World) -> None:
    assert isinstance(world.index, Counting)
    world.index.asked.clear()
    where = FaceFilter(folder=f"{world.seen}/../{HIDDEN}")
    index = view.index
    assert index.search(ADA, limit=9, where=where) == index.search_exact(ADA, limit=9, where=where) == []
    assert index.search_batch([ADA, ADA], limit=9, where=where) == [[], []]
    assert index.scroll(limit=9, where=where).records == ()
    assert index.count(where) == 0
    assert index.facet("folder", where=where) == {}
    assert world.index.asked == []


def test_folders_outside_crowd_none_out_of_the_counts(services: Services, world: World) -> None:
    index = world.index
    assert isinstance(index, Counting)
    for number in range(400):  # each copy is in a folder of its own, outside
        paths = (f"/zz/{number}/x/y.jpg", f"{world.seen}/many.jpg")
        index.upsert([point(5000, image_id="e" * 64, path=paths[1], folder=folders_of(*paths))])
        one = index.points[point(5000, image_id="e" * 64).face_id]
        folder = tuple(sorted({*one.payload.folder, *folders_of(*paths)}))
        index.points[one.face_id] = replace(one, payload=replace(one.payload, folder=folder))
    index.asked.clear()
    view = services.within(access(world.seen))
    assert set(view.index.facet("folder", limit=5)) == {world.seen, f"{world.seen}/2019"}
    assert len(index.asked) > 1  # it had to ask for more


def test_writing_is_refused(view: Services, world: World, tmp_path: Path) -> None:
    index, face = view.index, shared_of(world)
    refused: list[Callable[[], object]] = [
        lambda: index.upsert([point(1)]), index.flush, index.maintain, index.damaged_faces,
        lambda: index.set_payload([face], person="x"), lambda: index.set_paths([face], paths=["/x/y.jpg"]),
        lambda: index.set_phash([face], phash="0" * 16), lambda: index.delete([face]),
        lambda: index.search_scores([ADA], limit=1),
        lambda: index.backup(tmp_path / "copy"), lambda: view.thumbs.delete([face]), view.thumbs.face_ids,
        view.require_all_folders,
    ]  # fmt: skip
    for call in refused:
        with pytest.raises(OceanoError) as caught:
            call()
        assert (caught.value.code, caught.value.details) == ("forbidden", {"cause": "scope"})
    index.close()
    assert view.index.retrieve([face])


def test_the_whole_service_may_be_asked_about_all_folders(services: Services) -> None:
    services.require_all_folders()


def test_one_query_finds_the_copies_of_a_page(
    services: Services, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = world.index
    assert isinstance(index, MemoryIndex)
    records = []
    for number in range(60):
        image_id = f"{number:060x}abcd"
        paths = (f"/aa/{number}.jpg", f"{world.seen}/copies/{number}.jpg")
        index.upsert([point(number, RED, image_id=image_id, path=paths[0], folder=folders_of(*paths))])
        records += [FileRecord(path, 1, 1, image_id, "done", 1) for path in paths]
    services.ledger.record(records)
    view = services.within(access(world.seen))
    asked: list[int] = []
    inner = type(services.ledger).paths_of_images

    def counted(ledger: Any, image_ids: Sequence[str]) -> dict[str, list[str]]:
        asked.append(len(image_ids))
        return inner(ledger, image_ids)

    monkeypatch.setattr(type(services.ledger), "paths_of_images", counted)
    where = FaceFilter(folder=f"{world.seen}/copies")
    (matches,) = view.index.search_batch([ADA], limit=100, where=where)
    assert sorted(one.payload.path for one in matches) == sorted(f"{world.seen}/copies/{n}.jpg" for n in range(60))
    assert asked == [60]
    view.index.search_batch([ADA], limit=100, where=FaceFilter(image_id=image_of(world.archive / SEEN / "zoe-3.jpg")))
    assert asked == [60]  # no copies, no query
    services.ledger.record([], delete=[one.path for one in records])


def test_a_copy_that_was_deleted_meanwhile_hides_the_image(services: Services, view: Services, world: World) -> None:
    path = f"{world.seen}/2019/shared-copy.jpg"
    record = services.ledger.file(path)
    assert record is not None
    services.ledger.record([], delete=[path])
    try:
        assert view.index.retrieve([shared_of(world)]) == []
        with pytest.raises(OceanoError, match="image_unknown"):
            view.pictures.get(image_of(world.archive / HIDDEN / "benita-original.jpg"))
    finally:
        services.ledger.record([record])
    assert view.index.retrieve([shared_of(world)])


def test_thumbnails_outside_are_as_if_they_did_not_exist(services: Services, view: Services, world: World) -> None:
    hidden, own = face_of(world.archive / HIDDEN / "benita-1.jpg"), shared_of(world)
    unknown = point(999).face_id
    assert services.thumbs.read(hidden) and view.thumbs.read(own) == services.thumbs.read(own)
    assert view.thumbs.read(hidden) is view.thumbs.read(unknown) is None
    assert view.thumbs.read_many([hidden, own, unknown]) == [None, services.thumbs.read(own), None]
    assert view.thumbs.missing([hidden, own, unknown]) == {hidden, unknown}
    before = services.thumbs.read(hidden)
    view.thumbs.write(hidden, b"\xff\xd8\xff another")
    view.thumbs.write_soon(hidden, b"\xff\xd8\xff another")
    view.thumbs.flush()
    assert services.thumbs.read(hidden) == before


def test_files_are_looked_up_in_the_scope(services: Services, view: Services, world: World) -> None:
    own, hidden = f"{world.seen}/zoe-3.jpg", f"{world.archive / HIDDEN}/benita-1.jpg"
    assert view.ledger.file(own) is not None and view.ledger.file(hidden) is None
    assert set(view.ledger.files_at([own, hidden])) == {own}
    images = [image_of(Path(one)) for one in (own, hidden)]
    assert set(view.ledger.originals(images)) == {images[0]}
    assert view.ledger.image(images[0]) is not None and view.ledger.image(images[1]) is None
    assert services.ledger.image(images[1]) is not None


def test_folders_outside_are_neither_known_nor_suggested(services: Services, view: Services, world: World) -> None:
    for folder in (str(world.archive / HIDDEN), str(world.archive / "none")):
        with pytest.raises(OceanoError) as caught:
            require_known_folders(view.index, FaceFilter(folder=folder))
        assert caught.value.code == "folder_unknown"
        assert HIDDEN not in caught.value.message.replace(folder, "")
        assert set(caught.value.details.get("nearest", ())) <= {world.seen, f"{world.seen}/2019"}  # type: ignore[arg-type]
    require_known_folders(view.index, FaceFilter(folder=str(world.archive)))  # above the scope: what is in it
    assert find_folders(services.index, HIDDEN[:3]).paths
    assert find_folders(view.index, HIDDEN[:3]).paths == ()


def test_cursors_of_another_scope_are_refused(services: Services, view: Services, world: World) -> None:
    query = Query(ADA, -1.0)
    sorted_query = replace(query, sort="newest")
    nested = services.within(access(f"{world.seen}/2019", world.seen))  # the same scope in other words
    for one in (query, sorted_query):
        for made, used in ((services, view), (view, services), (view, services.within(access("/")))):
            after = asyncio.run(made.results.page(one, limit=3)).next
            assert after
            with pytest.raises(OceanoError, match="cursor_invalid"):
                asyncio.run(used.results.page(one, limit=3, after=after))
            assert asyncio.run(made.results.page(one, limit=3, after=after)).first == 4
        after = asyncio.run(view.results.page(one, limit=3)).next
        assert asyncio.run(nested.results.page(one, limit=3, after=after)).first == 4
    (page,) = asyncio.run(services.search.find([query], limit=3))
    with pytest.raises(OceanoError, match="cursor_invalid"):
        asyncio.run(view.search.more(page.next or "", limit=3))


def test_lists_are_not_shared_between_scopes(services: Services, view: Services, world: World) -> None:
    query = Query(ADA, -1.0, sort="oldest")
    totals = {}
    for name, one in (("all", services), ("scope", view), ("all again", services)):
        page = asyncio.run(one.results.page(query, limit=5))
        totals[name] = page.total
        facets = asyncio.run(one.results.facets(query))
        assert facets.total == page.total
        assert set(facets.folders) <= {world.seen, f"{world.seen}/2019"} or one is services
    assert totals["scope"] == view.index.count()
    assert totals["all"] == totals["all again"] == services.index.count()
    assert asyncio.run(view.results.has_names()) is True


def test_neighbours_are_in_the_scope(services: Services, view: Services, world: World) -> None:
    own = view.pictures.get(image_of(world.archive / SEEN / "2019" / "zoe-2.jpg"))
    for by in ("folder", "time"):
        near = view.pictures.neighbours(own, by)  # type: ignore[arg-type]
        for image in filter(None, (near.previous, near.next)):
            assert view.pictures.get(image).path.startswith(f"{world.seen}/")
    everywhere = services.pictures.neighbours(own, "time")
    assert f"/{HIDDEN}/" in services.pictures.get(everywhere.previous or "").path
    shared = view.pictures.get(image_of(world.archive / HIDDEN / "benita-original.jpg"))
    assert view.pictures.neighbours(shared, "folder").next == own.image_id  # of its copy, not of the file outside
    assert all(one.path.startswith(f"{world.seen}/") for one in view.pictures.alike(own, 0.4))


def test_faces_in_the_scope_are_counted_now_and_then(
    services: Services, view: Services, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(world.index, Counting)
    assert view.faces_indexed is None
    world.index.asked.clear()
    for _ in range(5):
        view.count_view()
    assert world.index.asked == ["count"]
    assert view.faces_indexed == view.bands.faces == FURTHER + 4
    assert services.faces_indexed == services.bands.faces == services.monitor.faces_indexed
    services.count_view()  # nothing to do
    assert world.index.asked == ["count"]
    now = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 31)
    services.monitor.snapshot.index_at = now + 31
    world.index.points = {}
    view.count_view()
    assert view.faces_indexed == 0


def test_a_count_that_fails_leaves_the_last_one(view: Services, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    view.count_view()
    known = view.faces_indexed
    now = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 31)
    view.monitor.snapshot.index_at = now + 31

    def fail(where: object = None) -> int:
        raise OceanoError("index_unavailable", "it hangs")

    monkeypatch.setattr(world.index, "count", fail)
    view.count_view()
    assert view.faces_indexed == known
    view.monitor.snapshot.index = None
    assert view.faces_indexed is None


def test_the_state_has_nothing_of_other_folders(services: Services, view: Services, world: World) -> None:
    asyncio.run(services.monitor.check_jobs())
    asyncio.run(services.monitor.check_ledger())
    view.count_view()
    jobs: tuple[Job, ...] = services.snapshot.jobs or ()
    assert {Path(job.folder).name for job in jobs} == {HIDDEN, SEEN}
    assert [Path(job.folder).name for job in view.snapshot.jobs or ()] == [SEEN]
    assert services.snapshot.totals is not None and services.photographs
    assert view.snapshot.totals is None and view.photographs is None
    assert view.snapshot.index is not None and view.snapshot.index.points == view.index.count()
    nothing = services.within(access("/none"))
    nothing.count_view()
    assert nothing.snapshot.jobs == () and nothing.faces_indexed == 0
    above = services.within(access(f"{world.seen}/2019"))
    assert above.snapshot.jobs == ()  # an ingest of the folder above is about other files, too


def test_the_ingest_that_runs_is_told_only_with_its_folder(
    services: Services, view: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.factory.running_progress", lambda folder: "7 of 9")
    assert services.importing() == "7 of 9"
    assert view.importing() is None


def test_the_root_as_a_scope_shows_all_pictures_but_no_numbers_of_the_service(services: Services) -> None:
    view = services.within(access("/"))
    assert view.index.count() == services.index.count()
    assert only(view.index.scroll(limit=1).records) == only(services.index.scroll(limit=1).records)
    with pytest.raises(OceanoError, match="forbidden"):
        view.require_all_folders()


def test_folders_that_the_index_cannot_tell_apart_are_told_apart_by_the_ledger(
    services: Services, world: World
) -> None:
    folders = [os.fsdecode(b"/caf\xe9"), "/caf\\xe9"]  # bytes that are not UTF-8, and their escape as a name
    assert isinstance(world.index, MemoryIndex)
    faces = []
    for number, folder in enumerate(folders):
        image_id, path = f"{number:060x}beef", f"{folder}/1.jpg"
        one = point(number, image_id=image_id, path=readable(path), folder=folders_of(readable(path)))
        world.index.upsert([one])
        faces.append(one.face_id)
        services.ledger.record([FileRecord(path, 1, 1, image_id, "done", 1)])
    try:
        for folder, face in zip(folders, faces, strict=True):
            assert [one.face_id for one in services.within(access(folder)).index.retrieve(faces)] == [face]
    finally:
        services.ledger.record([], delete=[f"{folder}/1.jpg" for folder in folders])


def test_a_scope_holds_in_the_embedded_index(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path / "data")
    archive = make_files(tmp_path)
    with closing(open_index(settings, FAKE_PACK)) as index:
        ingested(tmp_path / "data", archive, (HIDDEN, SEEN), index)
        services = opened(settings, index)
        try:
            seen = f"{archive / SEEN}"
            view = services.within(access(f"{seen}/"))
            total, within = services.index.count(), view.index.count()
            assert (total, within) == (2 * FURTHER + 7, FURTHER + 4)  # one is in both
            records = view.index.scroll(limit=1000).records
            assert len(records) == within
            assert all(one.payload.path.startswith(f"{seen}/") for one in records)
            assert all(folder.startswith(seen) for one in records for folder in one.payload.folder)
            assert len(view.index.search_exact(ADA, limit=1000)) == within
            assert len(view.index.search(ADA, limit=1000)) == within
            assert set(view.index.facet("folder")) == {seen, f"{seen}/2019"}
            assert set(view.index.facet("person")) == {PEOPLE[name] for name in ("Alma", "Violeta", "Zoe")}
            assert view.index.retrieve([face_of(archive / HIDDEN / "benita-1.jpg")]) == []
            assert asyncio.run(view.results.facets(Query(ADA, -1.0))).total == within
            assert view.index.count(FaceFilter(folder=str(archive / HIDDEN))) == 0
            assert view.index.info().points == within
        finally:
            services.close()
