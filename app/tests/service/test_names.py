"""service.names_*: names into sidecars and pictures and back, from other systems, and from pictures ingested before."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from app.catalog import ChangeLog, PeopleStore, open_ledger
from app.core.config import Settings
from app.core.errors import OceanoError
from app.images.decoding import decode, image_id_of
from app.images.thumbnails import ThumbStore
from app.ingest import Ingest, IngestOptions
from app.people import Author, MetadataNames, NamesCopy, Naming, Profile
from app.service import ImportedNames, NamesExport, NamesImport, read_names
from tests.support import exiftool
from tests.support.exiftool import needs_exiftool
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.xmp import mwg, packet, picture_with

COLOURS = {"a.jpg": (200, 30, 30), "b.jpg": (30, 200, 30), "turned.jpg": (30, 30, 200), "c.png": (200, 200, 30)}


class Bench:
    """Pictures of one face each, ingested; the face is in the middle half."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.folder, self.index = folder, MemoryIndex()
        self.ledger = open_ledger(settings.state_dir / "catalog.sqlite3", "faces__fake__ffffffff")
        database = self.ledger.database
        self.store, self.log = PeopleStore(database), ChangeLog(database)
        names = NamesCopy(database, self.index, self.ledger.collection)
        self.naming = Naming(database, self.index, names)
        self.thumbs = ThumbStore(settings.thumbs_dir)

    def ingest(self, *, read: bool = False) -> None:
        options = IngestOptions(max_pixels=1_000_000, read_names=read)
        names = MetadataNames(self.ledger.database, self.index, self.ledger.collection, "test")
        Ingest(FakeEngine(), self.index, self.ledger, self.thumbs, options, names=names).run(self.folder)

    def face(self, name: str) -> str:
        (found,) = [one.face_id for one in self.index.points.values() if Path(one.payload.path).name == name]
        return found

    def name(self, file: str, name: str) -> None:
        self.naming.create(Profile(name=name), [self.face(file)], Author("test"))

    def names(self) -> dict[str, str]:
        """The name of each face in the index that has one, by the name of its file."""
        ids = {Path(one.payload.path).name: one.payload.person for one in self.index.points.values()}
        people = self.store.persons([one for one in ids.values() if one])
        return {path: people[person].name for path, person in ids.items() if person}

    def export(self, **options: object) -> NamesExport:
        export = NamesExport(self.ledger, self.index, str(self.folder), **options)  # type: ignore[arg-type]
        export.run(Event())
        return export

    def load(self, text: str, *, dry_run: bool = False) -> ImportedNames:
        file = self.folder.parent / "people.csv"
        file.write_text(text, encoding="utf-8")
        return NamesImport(self.ledger, self.index, str(self.folder), "test").run(file, dry_run=dry_run)


@pytest.fixture
def bench(settings: Settings, tmp_path: Path) -> Bench:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name, colour in COLOURS.items():
        kind = "PNG" if name.endswith("png") else "JPEG"
        data = picture_with(b"" if kind == "JPEG" else packet(""), kind, colour=colour,
                            orientation=6 if name == "turned.jpg" else None)  # fmt: skip
        (folder / ("sub" if name == "c.png" else "") / name).write_bytes(data)
    made = Bench(settings, folder)
    made.ingest()
    return made


@needs_exiftool
def test_names_are_written_to_sidecars_that_exiftool_reads(bench: Bench) -> None:
    before = {path: path.read_bytes() for path in bench.folder.rglob("*.*")}
    bench.name("a.jpg", "Ana | María")
    bench.name("turned.jpg", "عمر")
    done = bench.export().done
    assert (done.written, done.failures) == (2, [])
    area = exiftool.regions(bench.folder / "a.jpg.xmp")["Ana | María"]
    assert (area["X"], area["Y"], area["W"], area["H"]) == (0.5, 0.5, 0.5, 0.5)
    applied = exiftool.tags(bench.folder / "turned.jpg.xmp")["RegionInfo"]["AppliedToDimensions"]
    assert (applied["W"], applied["H"]) == (160, 120), "that of the stored image"
    assert {path: path.read_bytes() for path in before} == before, "the pictures stay as they are"


def test_what_was_exported_is_read_back_by_an_ingest_into_an_empty_catalog(bench: Bench, tmp_path: Path) -> None:
    for name in COLOURS:
        bench.name(name, f"Person of {name}")
    bench.export()
    other = Bench(Settings(_env_file=None, data_dir=tmp_path / "other"), bench.folder)
    other.ingest(read=True)
    assert other.names() == {name: f"Person of {name}" for name in COLOURS}


def test_an_export_again_writes_nothing(bench: Bench) -> None:
    bench.name("a.jpg", "Ana")
    bench.export()
    done = bench.export().done
    assert (done.written, done.unchanged) == (0, 1)


def test_the_names_of_hidden_people_are_written_only_if_that_is_asked_for(bench: Bench) -> None:
    bench.name("a.jpg", "Ana")
    bench.name("b.jpg", "Ben")
    (ben,) = bench.store.named("Ben")
    bench.naming.edit(ben.id, ben.version, Profile(hidden=True), Author("test"))
    assert bench.export().done.written == 1
    assert (bench.folder / "a.jpg.xmp").exists()
    assert not (bench.folder / "b.jpg.xmp").exists()
    assert bench.export(hidden=True).done.written == 1
    assert b"Ben" in (bench.folder / "b.jpg.xmp").read_bytes()


def test_an_export_does_not_make_an_ingest_name_anybody_anew(bench: Bench) -> None:
    bench.name("a.jpg", "Ana")
    bench.export()
    changes = bench.log.newest_number()
    bench.ingest(read=True)
    assert bench.log.newest_number() == changes


def test_a_sidecar_is_merged_and_one_that_cannot_be_read_is_left_alone(bench: Bench) -> None:
    bench.name("a.jpg", "Ana")
    bench.name("b.jpg", "Bob")
    (bench.folder / "a.jpg.xmp").write_bytes(packet(mwg([("Old", 0.5, 0.5, 0.5, 0.5)]), 'photoshop:City="Vigo"'))
    (bench.folder / "b.jpg.xmp").write_bytes(b"not XML")
    done = bench.export().done
    assert b'photoshop:City="Vigo"' in (bench.folder / "a.jpg.xmp").read_bytes()
    assert b"Old" not in (bench.folder / "a.jpg.xmp").read_bytes()
    assert (bench.folder / "b.jpg.xmp").read_bytes() == b"not XML"
    (failure,) = done.failures
    assert "b.jpg" in failure


def test_a_pipe_or_a_link_to_nothing_in_place_of_a_sidecar_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    bench.name("a.jpg", "Ana")
    bench.name("b.jpg", "Bob")
    os.mkfifo(bench.folder / "a.jpg.xmp")
    (bench.folder / "b.jpg.xmp").symlink_to(tmp_path / "elsewhere")
    done = bench.export().done
    assert done.written == 0
    reasons = [failure.rpartition(": ")[2] for failure in sorted(done.failures)]
    assert reasons == ["its sidecar is not a file", "its sidecar is a link to a file that is not there"]
    assert not (tmp_path / "elsewhere").exists()


def test_a_mirror_gets_the_sidecars_and_the_pictures_folder_none(bench: Bench, tmp_path: Path) -> None:
    bench.name("a.jpg", "Ana")
    bench.name("c.png", "Carla")
    bench.export(into=str(tmp_path / "mirror"))
    written = sorted(str(path.relative_to(tmp_path / "mirror")) for path in (tmp_path / "mirror").rglob("*.xmp"))
    assert written == ["a.jpg.xmp", "sub/c.png.xmp"]
    assert not [*bench.folder.rglob("*.xmp")]


def test_people_without_a_name_and_faces_without_people_are_not_written(bench: Bench) -> None:
    bench.name("a.jpg", "")
    assert bench.export().done.written == 0


def test_a_picture_that_changed_since_its_ingest_is_not_written(bench: Bench) -> None:
    bench.name("a.jpg", "Ana")
    (bench.folder / "a.jpg").write_bytes(picture_with(b"", colour=(1, 2, 3)))
    assert len(bench.export().done.failures) == 1
    assert not [*bench.folder.rglob("*.xmp")]


def test_in_place_the_jpeg_has_the_names_and_the_same_pixels_time_and_permissions(bench: Bench) -> None:
    path = bench.folder / "turned.jpg"
    path.chmod(0o640)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    bench.ingest()
    before = path.read_bytes()
    bench.name("turned.jpg", "Ana")
    bench.name("c.png", "Carla")
    done = bench.export(in_place=True).done
    assert (done.in_place, done.written, done.failures) == (1, 2, [])
    after = path.read_bytes()
    assert np.array_equal(decode(before, max_pixels=10**6).pixels, decode(after, max_pixels=10**6).pixels)
    assert (path.stat().st_mode & 0o777, path.stat().st_mtime) == (0o640, 1_600_000_000)
    assert sorted(one.name for one in bench.folder.rglob("*.xmp")) == ["c.png.xmp"]
    if exiftool.PROGRAM:
        assert [*exiftool.regions(path)] == ["Ana"]


def test_names_given_by_hand_stay_when_their_pictures_are_changed_in_place(bench: Bench) -> None:
    bench.name("a.jpg", "Ana")
    (ana,) = bench.store.find()
    bench.export(in_place=True)
    bench.ingest()
    assert bench.names() == {"a.jpg": "Ana"}
    (kept,) = bench.store.assignments_of(ana.id)
    assert kept.place.image_id == image_id_of((bench.folder / "a.jpg").read_bytes())
    assert kept.source == "manual"
    assert [person.faces for person in bench.store.find()] == [1]


def test_names_of_pictures_that_were_ingested_before_are_read(bench: Bench) -> None:
    (bench.folder / "a.jpg.xmp").write_bytes(packet(mwg([("Ana", 0.5, 0.5, 0.4, 0.4), ("Eve", 0.1, 0.1, 0.1, 0.1)])))
    done = read_names(bench.ledger, bench.index, FAKE_PACK.digest, str(bench.folder), "test", Event())
    assert (done.pictures, done.with_names, done.named, done.people) == (4, 1, 1, 1)
    assert [one.reason for one in done.problems] == ["region_without_face"]
    assert bench.names() == {"a.jpg": "Ana"}


def test_a_list_names_faces_in_one_change_that_can_be_undone(bench: Bench) -> None:
    done = bench.load(f"path,name\n{bench.folder}/a.jpg,Ana\nsub/c.png,Carla\n")
    assert (done.rows, done.found, done.named, done.people, done.problems) == (2, 2, 2, 2, [])
    assert bench.names() == {"a.jpg": "Ana", "c.png": "Carla"}
    (change,) = bench.log.find()
    assert (change.kind, change.number) == ("import", done.change)
    bench.naming.undo(change.number, Author("test"))
    assert bench.names() == {}


@pytest.mark.parametrize(
    "text",
    [
        "image;person;x1;y1;x2;y2\na.jpg;Ana;45;35;110;85\n",
        "filename\tsubject\tleft\ttop\twidth\theight\na.jpg\tAna\t45\t35\t70\t50\n",
        "path,name,x1,y1,x2,y2\na.jpg,Ana,0.3,0.3,0.7,0.7\n",
        "originalPath,name,boundingBoxX1,boundingBoxY1,boundingBoxX2,boundingBoxY2,imageWidth,imageHeight\n"
        "a.jpg,Ana,450,350,1100,850,1600,1200\n",
        "\ufeffPath,Name\na.jpg,Ana\n",
    ],
    ids=["pixels", "left and width", "fractions", "of a larger version, as Immich", "byte order mark"],
)
def test_lists_of_several_systems_are_read(bench: Bench, text: str) -> None:
    done = bench.load(text)
    assert done.problems == []
    assert bench.names() == {"a.jpg": "Ana"}


def test_a_picture_is_found_by_its_digest(bench: Bench) -> None:
    digest = image_id_of((bench.folder / "b.jpg").read_bytes())
    assert bench.load(f"sha256,name\n{digest.upper()},Bob\n").problems == []
    assert bench.names() == {"b.jpg": "Bob"}


def test_rows_that_name_no_face_are_reported_with_their_lines(bench: Bench) -> None:
    bench.name("b.jpg", "By hand")
    done = bench.load(
        "path,name,x1,y1,x2,y2\nmissing.jpg,Eve,,,,\na.jpg,Far,1,1,9,9\na.jpg,,,,,\na.jpg,Bad,9,9,1,1\n\nb.jpg,Bob,,,,\n"
        "a.jpg,Ana,,,,\na.jpg,Eva,,,,\n"
    )
    assert [(one.line, one.reason) for one in sorted(done.problems, key=lambda one: one.line)] == [
        (2, "image_unknown"), (3, "region_without_face"), (4, "invalid_row"), (5, "invalid_row"), (7, "named_by_hand"),
        (8, "names_differ"),
    ]  # fmt: skip
    assert bench.names() == {"a.jpg": "Ana", "b.jpg": "By hand"}


def test_a_dry_run_changes_nothing(bench: Bench) -> None:
    done = bench.load("path,name\na.jpg,Ana\n", dry_run=True)
    assert (done.found, done.named, done.people, done.change) == (1, 1, 1, None)
    assert not bench.store.is_any()


def test_a_dry_run_leaves_out_what_the_import_leaves_out(bench: Bench) -> None:
    text = "path,name\na.jpg,Ana\nb.jpg,Bob\n"
    bench.name("b.jpg", "By hand")
    dry, done = bench.load(text, dry_run=True), bench.load(text)
    assert (dry.named, dry.people) == (done.named, done.people) == (1, 1)
    assert [one.line for one in dry.problems] == [one.line for one in done.problems] == [3]


@pytest.mark.parametrize("text", ["", "a.jpg,Ana\n", "path\na.jpg\n", "name\nAna\n"])
def test_a_list_without_the_columns_is_refused(bench: Bench, text: str) -> None:
    with pytest.raises(OceanoError) as raised:
        bench.load(text)
    assert raised.value.code == "invalid_request"


def test_a_list_that_is_no_text_is_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"path,name\n\xff\xfe\0")
    for file, code in ((tmp_path / "x.csv", "invalid_request"), (tmp_path / "none.csv", "not_found")):
        with pytest.raises(OceanoError) as raised:
            NamesImport(bench.ledger, bench.index, str(tmp_path), "test").run(file, dry_run=True)
        assert raised.value.code == code


def test_names_with_quotes_and_separators_are_read(bench: Bench) -> None:
    file = bench.folder.parent / "people.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([["path", "name"], ["a.jpg", 'O"Brien, | Ana']])
    NamesImport(bench.ledger, bench.index, str(bench.folder), "test").run(file, dry_run=False)
    assert bench.names() == {"a.jpg": 'O"Brien, | Ana'}
