"""Names stay while pictures come and go: a person whose last picture is gone is empty, until the picture is back."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from app.catalog import Ledger, open_ledger
from app.images.thumbnails import ThumbStore
from app.ingest import Ingest, IngestOptions
from app.library.prune import Pruning
from app.library.scan import Folder
from app.metrics import Metrics
from app.people import Author, Profile
from app.service import People, bands_of
from app.service.names import people_names
from app.service.results import Results
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.library import photograph
from tests.support.pictures import BLUE, RED


class Archive:
    """Two photographs of one person, ingested with a fake model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "photos"
        self.folder.mkdir()
        for name, colour in (("red.jpg", RED), ("blue.jpg", BLUE)):
            photograph(self.folder / name, colour, "2019:06:10 10:42:00")
        self.ledger: Ledger = open_ledger(folder / "catalog.sqlite3", "faces__fake__ffffffff")
        self.thumbs = ThumbStore(folder / "thumbs")
        self.open_index(MemoryIndex())

    def open_index(self, index: MemoryIndex) -> None:
        self.index = index
        results = Results(index, FAKE_PACK, Metrics())
        self.people = People(
            self.ledger.database,
            index,
            self.ledger.collection,
            results,
            lambda: bands_of(FAKE_PACK, index.count()),
            FAKE_PACK.embedding_size,
        )

    def ingest(self) -> None:
        names = people_names(self.ledger, self.index, "test")
        Ingest(FakeEngine(), self.index, self.ledger, self.thumbs, IngestOptions(4_000_000), names=names).run(
            self.folder
        )

    def prune(self) -> None:
        Pruning(Folder(self.folder), self.index, self.ledger, self.thumbs, digest=FAKE_PACK.digest, dry_run=False).run()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_a_person_without_pictures_stays_and_gets_them_back(archive: Archive, tmp_path: Path) -> None:
    with closing(archive.ledger):
        archive.ingest()
        person = archive.people.naming.create(Profile(name="Ana"), [*archive.index.points], Author("test")).person
        assert person is not None
        assert archive.people.get(person.id).faces == 2
        for name in ("red.jpg", "blue.jpg"):
            shutil.move(archive.folder / name, tmp_path / name)
            (archive.folder / "other.txt").touch()
            archive.prune()
        empty = archive.people.get(person.id)
        assert (empty.faces, empty.cover, empty.person.name) == (0, None, "Ana")
        assert archive.people.faces(person.id, limit=10).faces == ()
        assert archive.people.suggestions(person.id, limit=10) == []
        assert archive.people.together(person.id, limit=10) == []
        (listed,) = archive.people.find().people
        assert listed == empty
        for name in ("red.jpg", "blue.jpg"):
            shutil.move(tmp_path / name, archive.folder / f"again {name}")
        archive.ingest()
        back = archive.people.get(person.id)
        assert back.faces == 2
        assert {point.payload.person for point in archive.index.points.values()} == {person.id}
        assert back.cover in archive.index.points


def test_an_index_that_is_built_again_gets_its_names_from_the_catalog(archive: Archive) -> None:
    with closing(archive.ledger):
        archive.ingest()
        first, second = archive.index.points
        person = archive.people.naming.create(Profile(name="Ana"), [first], Author("test")).person
        assert person is not None
        archive.open_index(MemoryIndex())
        archive.ledger.delete_images([str(image.image_id) for image in archive.ledger.images()])
        archive.ingest()
        named = {face_id: point.payload.person for face_id, point in archive.index.points.items()}
        assert named == {first: person.id, second: None}
