"""Two services for the tests of scopes: one has pictures of two folders, the other one those of a single folder only.

Whoever may see this folder must not be able to tell the one from the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from PIL import Image

from app.catalog import PEOPLE as PEOPLE_TABLE
from app.catalog import ChangeLog, Database, Jobs, NewChange, name_key, open_ledger, timestamp
from app.catalog.faces import FaceTable, GroupedFace
from app.core.config import Settings
from app.core.paths import folders_of
from app.core.protocols import FaceIndex
from app.core.types import FacePoint, face_id_of
from app.images import ThumbStore, image_id_of
from app.ingest import Ingest, IngestOptions
from app.main import create_app
from app.people import NamesCopy, places_of
from app.people.edits import assign
from app.security import hash_key
from app.service import Services
from tests.support.clients import TestClient
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.library import photograph
from tests.support.pictures import BLUE, GREEN, RED, encoded, point

COLLECTION: Final = "faces__fake__ffffffff"
VIOLET: Final = (150, 40, 220)
SEEN, HIDDEN, BESIDE = "alpaca", "bison", "alpaca-private"
FURTHER: Final = 105  # faces without files: more than a page has
UNNAMED: Final = 4  # of them, in one group with those of the other folders
PEOPLE: Final = {name: str(uuid5(NAMESPACE_URL, name)) for name in ("Alma", "Benita", "Violeta", "Zoe")}
NAMED: Final = {"alma-1.jpg": "Alma", "benita-1.jpg": "Benita", "zoe-2.jpg": "Zoe", "shared-copy.jpg": "Violeta"}
SCOPED_ID, WHOLE_ID = "5" * 16, "0" * 16
KEYS: Final = {one: f"oceano_{one}_{'secret' * 6}" for one in (SCOPED_ID, WHOLE_ID)}
SCOPED: Final = {"X-API-Key": KEYS[SCOPED_ID]}
WHOLE: Final = {"X-API-Key": KEYS[WHOLE_ID]}


def make_files(base: Path) -> Path:
    """Make the photographs, and return the folder that has all others."""
    archive = base / "archive"
    for name in (f"{SEEN}/2019", HIDDEN, BESIDE):
        (archive / name).mkdir(parents=True)
    photograph(archive / SEEN / "2019" / "alma-1.jpg", BLUE, "2019:06:10 10:42:00", (300, 200))
    photograph(archive / SEEN / "2019" / "zoe-2.jpg", RED, "2019:06:12 10:42:00", (310, 200))
    photograph(archive / SEEN / "zoe-3.jpg", RED, "2020:01:01 09:00:00", (320, 200))
    photograph(archive / HIDDEN / "benita-1.jpg", GREEN, "2019:06:11 08:00:00", (330, 200))
    photograph(archive / HIDDEN / "zoe-benita-2.jpg", RED, "2019:06:11 09:00:00", (340, 200))
    photograph(archive / HIDDEN / "benita-original.jpg", VIOLET, "2019:06:12 11:00:00", (350, 200))
    photograph(archive / BESIDE / "benita-private.jpg", RED, "2019:06:12 12:00:00", (360, 200))
    (archive / SEEN / "2019" / "shared-copy.jpg").write_bytes((archive / HIDDEN / "benita-original.jpg").read_bytes())
    (archive / SEEN / "no-face.png").write_bytes(encoded((0, 0, 0)))
    (archive / HIDDEN / "benita-no-face.png").write_bytes(encoded((0, 0, 0), (65, 48)))
    Image.new("RGB", (90, 60), RED).save(archive / HIDDEN / "benita-undated.png")
    return archive


@dataclass
class World:
    """A service that has ingested some of the folders.

    Attributes:
        archive: the folder with all others.
        settings: of the service.
        index: all its faces.
    """

    archive: Path
    settings: Settings
    index: FaceIndex

    @property
    def seen(self) -> str:
        """The folder that the scope is."""
        return str(self.archive / SEEN)

    @contextmanager
    def client(self) -> Iterator[TestClient]:
        """A client of the service; the keys are added."""
        app = create_app(self.settings, FakeEngine(), self.index)
        with TestClient(app, follow_redirects=False) as client:
            services: Services = app.state.services
            for key_id, name, folders in ((WHOLE_ID, "warthog", []), (SCOPED_ID, "scoped", [self.seen])):
                digest = hash_key(KEYS[key_id])
                services.keys.add(
                    key_id, "key", name, digest, role="admin", folders=folders, expires_at=None, by="a test"
                )
            services.authenticator.find_whether_key_is_needed()
            assert client.portal is not None
            client.portal.call(services.monitor.check_jobs)
            client.portal.call(services.monitor.check_ledger)
            yield client


def image_of(path: Path) -> str:
    return image_id_of(path.read_bytes())


def face_of(path: Path) -> str:
    return face_id_of(image_of(path), FAKE_PACK.digest, 0)


def further(archive: Path, name: str, first: int) -> list[FacePoint]:
    """Faces of the person in red without files; those of other folders are newer and older than all."""
    found = []
    for number in range(first, first + FURTHER):
        path = f"{archive / name}/further-{number}.jpg"
        taken = f"{1990 + number % 7}-03-{1 + number % 28:02d}T08:00:00"
        found.append(point(number, RED, path=path, folder=folders_of(path), taken_at=taken))
    return found


def ingested(base: Path, archive: Path, names: Iterable[str], index: FaceIndex) -> World:
    """Ingest folders into an index, name the people, and queue an ingest of each folder."""
    settings = Settings(_env_file=None, data_dir=base)
    ledger = open_ledger(settings.state_dir / "catalog.sqlite3", COLLECTION)
    thumbs = ThumbStore(settings.thumbs_dir)
    for name in names:
        Ingest(FakeEngine(), index, ledger, thumbs, IngestOptions(max_pixels=4_000_000)).run(archive / name)
        index.upsert(further(archive, name, _first(name)))
        Jobs(ledger.database, COLLECTION).add(str(archive / name), {}, f"{name}-user@machine")
    photographs = [path for path in archive.rglob("*.jpg") if path.name in NAMED]
    faces = {NAMED[path.name]: [face_of(path)] for path in photographs}
    rest = {name: further(archive, name, _first(name)) for name in names}
    faces["Zoe"] += [one.face_id for some in rest.values() for one in some[:-UNNAMED]]
    grouped = [one for some in rest.values() for one in some[-UNNAMED:]]
    group_id = min(one.face_id for one in grouped)
    FaceTable(ledger.database, COLLECTION).write(
        [GroupedFace(one.face_id, one.payload.image_id, group_id, True) for one in grouped]
    )
    name_people(ledger.database, index, faces)
    index.flush()
    ledger.close()
    return World(archive, settings, index)


def name_people(database: Database, index: FaceIndex, faces: Mapping[str, Sequence[str]]) -> None:
    """Add people with ids that are the same in both services, each with the faces that the index has."""
    for name, face_ids in faces.items():
        known = [one.face_id for one in index.retrieve([*face_ids])]
        if not known:
            continue
        with ChangeLog(database).making(NewChange("tests", "create"), {}) as making:
            at = timestamp()
            row = {
                "id": PEOPLE[name], "name": name, "name_key": name_key(name), "hidden": 0, "cover": None,
                "birth_date": None, "notes": None, "faces": 0, "created_at": at, "changed_at": at, "version": 0,
            }  # fmt: skip
            making.put(PEOPLE_TABLE, [(None, row)])
            assign(making, PEOPLE[name], [*places_of(index, known).values()], "manual", "tests")
    NamesCopy(database, index, COLLECTION).catch_up()


def _first(name: str) -> int:
    return 1000 * (name == HIDDEN) + 2000 * (name == BESIDE) + 10


def at_one_time(index: MemoryIndex) -> MemoryIndex:
    """Put the faces into the order of their ids, as if all were ingested at once: only the rest may differ."""
    when = "2026-01-01T00:00:00+00:00"
    points = (replace(one, payload=replace(one.payload, ingested_at=when)) for one in index.points.values())
    index.points = {one.face_id: one for one in sorted(points, key=lambda one: one.face_id)}
    return index
