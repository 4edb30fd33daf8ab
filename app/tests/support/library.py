"""An index of four photographs in real files, ingested with a fake model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from app.catalog import open_ledger
from app.core.config import Settings
from app.core.types import face_id_of
from app.images.thumbnails import ThumbStore
from app.ingest import Ingest, IngestOptions
from app.main import create_app
from tests.support.clients import TestClient
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.pictures import BLUE, GREEN, RED, encoded, point

_DATE, _MAKE, _MODEL, _EXIF = 0x9003, 0x010F, 0x0110, 0x8769


def photograph(path: Path, colour: tuple[int, int, int], taken: str, size: tuple[int, int] = (1500, 1000)) -> None:
    exif = Image.Exif()
    exif[_MAKE], exif[_MODEL] = "Canon", "EOS 5D"
    exif.get_ifd(_EXIF)[_DATE] = taken
    Image.new("RGB", size, colour).save(path, "JPEG", exif=exif)


@dataclass
class Library:
    """An index of four photographs in one folder: the first has two faces and a copy in another folder."""

    folder: Path
    settings: Settings
    index: MemoryIndex

    def client(self, **settings: object) -> TestClient:
        return TestClient(create_app(self.settings.model_copy(update=settings), FakeEngine(), self.index))

    def image_of(self, name: str) -> str:
        (image,) = {one.payload.image_id for one in self.index.points.values() if one.payload.path.endswith(name)}
        return image

    def face_of(self, name: str) -> str:
        return face_id_of(self.image_of(name), FAKE_PACK.digest, 0)


def ingested_library(base: Path) -> Library:
    """Make the photographs in a folder, and ingest them."""
    folder = base / "2019 wedding"
    (base / "copies").mkdir()
    folder.mkdir()
    for day, (name, colour) in enumerate((("a.jpg", RED), ("b <b>.jpg", GREEN), ("c.jpg", BLUE)), 10):
        photograph(folder / name, colour, f"2019:06:{day} 10:42:00")
    (base / "copies" / "a again.jpg").write_bytes((folder / "a.jpg").read_bytes())
    (folder / "d.png").write_bytes(encoded((200, 200, 40), (120, 90)))
    library = Library(base, Settings(_env_file=None, data_dir=base / "data"), MemoryIndex())
    ledger = open_ledger(library.settings.state_dir / "catalog.sqlite3", "faces__fake__ffffffff")
    thumbs = ThumbStore(library.settings.thumbs_dir)
    for place in (folder, base / "copies"):
        Ingest(FakeEngine(), library.index, ledger, thumbs, IngestOptions(max_pixels=4_000_000)).run(place)
    first = library.index.points[library.face_of("/a.jpg")]
    other = face_id_of(first.payload.image_id, FAKE_PACK.digest, 1)
    second = replace(first.payload, bbox=(1200.0, 100.0, 1300.0, 220.0), person="Ana <3")
    library.index.upsert([replace(point(1, (120, 20, 120)), face_id=other, payload=second)])
    return library
