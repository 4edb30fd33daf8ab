"""`oceano names`, `export-names` and `import-people`, and what an ingest says about names, with a fake model."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.catalog import AuditFilter, AuditLog, ChangeLog, Ledger
from app.cli import main
from app.core.config import Settings
from app.core.protocols import Engine, FaceIndex
from app.core.types import ModelPack
from app.service import open_ledger
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.xmp import mwg, packet, picture_with

ANA = mwg([("Ana", 0.5, 0.5, 0.4, 0.4), ("Eve", 0.1, 0.1, 0.1, 0.1)])


class Oceano:
    """The command over fakes and a real catalog, with two pictures; the first has names."""

    def __init__(self, folder: Path, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.settings, self._capsys = folder, settings, capsys
        self.index = MemoryIndex()
        folder.mkdir()
        (folder / "a.jpg").write_bytes(picture_with(packet(ANA)))
        (folder / "b.jpg").write_bytes(picture_with(b"", colour=(30, 200, 30)))

    def __call__(self, *words: str, code: int = 0) -> str:
        """What a command prints."""
        assert main([*words]) == code
        out, err = self._capsys.readouterr()
        return str(out + err)

    def json(self, *words: str, code: int = 0) -> dict[str, Any]:
        return dict(json.loads(self(*words, "--json", code=code)))

    @contextmanager
    def open_for_ingest(self, settings: Settings) -> Iterator[tuple[Engine, FaceIndex, Ledger]]:
        with closing(open_ledger(settings, FAKE_PACK)) as ledger:
            yield FakeEngine(), self.index, ledger

    @contextmanager
    def open_without_engine(self, settings: Settings) -> Iterator[tuple[ModelPack, FaceIndex, Ledger]]:
        with closing(open_ledger(settings, FAKE_PACK)) as ledger:
            yield FAKE_PACK, self.index, ledger

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        with closing(open_ledger(self.settings, FAKE_PACK)) as ledger:
            yield ledger

    def actions(self) -> list[str]:
        with self.ledger() as ledger:
            return [entry.action for entry in AuditLog(ledger.database).find(AuditFilter())]


@pytest.fixture
def oceano(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Oceano:
    made = Oceano(tmp_path / "photos", settings, capsys)
    monkeypatch.setenv("DATA_DIR", str(settings.data_dir))
    monkeypatch.setattr("app.service.ingest_job.open_for_ingest", made.open_for_ingest)
    monkeypatch.setattr("app.commands.names.open_without_engine", made.open_without_engine)
    return made


def _lines(report: Path) -> list[list[str]]:
    with report.open(newline="", encoding="utf-8") as file:
        return [*csv.reader(file)]


def test_an_ingest_says_how_many_faces_the_pictures_named_and_reports_the_other_names(
    oceano: Oceano, tmp_path: Path
) -> None:
    said = oceano("ingest", str(oceano.folder), "--report", str(tmp_path / "report.csv"))
    assert "1 face named by the pictures (to undo that, see `oceano changes`). 1 name in the pictures not given" in said
    assert _lines(tmp_path / "report.csv")[-1][:3] == [str(oceano.folder / "a.jpg"), "name", "region_without_face"]


def test_an_ingest_reads_no_names_with_the_setting_off(oceano: Oceano, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READ_NAMES", "false")
    assert oceano.json("ingest", str(oceano.folder))["named"] == 0


def test_folders_name_people_if_asked(oceano: Oceano) -> None:
    assert oceano.json("ingest", str(oceano.folder), "--people-from-folders")["named"] == 2


def test_names_reads_pictures_that_were_ingested_before(
    oceano: Oceano, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READ_NAMES", "false")
    oceano("ingest", str(oceano.folder))
    said = oceano("names", str(oceano.folder), "--report", str(tmp_path / "names.csv"))
    assert "Read 2 pictures, of which 1 has names of people.\nNamed 1 face, and added 1 new person.\n" in said
    assert "`oceano changes` lists these changes; `oceano undo NUMBER` undoes one." in said
    assert [line[1] for line in _lines(tmp_path / "names.csv")] == ["reason", "region_without_face"]
    assert oceano.json("names", str(oceano.folder / "a.jpg"))["named"] == 0
    assert oceano.actions().count("command.names") == 2


def test_export_names_writes_sidecars(oceano: Oceano, tmp_path: Path) -> None:
    oceano("ingest", str(oceano.folder))
    assert oceano("export-names", str(oceano.folder)) == "Wrote the names of faces into 1 file.\n"
    assert oceano("export-names", str(oceano.folder)) == "Wrote nothing. 1 picture had all names already.\n"
    nobody = "No picture there has a face with a name, so nothing was written.\n"
    assert oceano("export-names", str(oceano.folder / "b.jpg")) == nobody
    assert b"Ana" in (oceano.folder / "a.jpg.xmp").read_bytes()
    assert oceano.json("export-names", str(oceano.folder), "--into", str(tmp_path / "m"))["written"] == 1
    assert (tmp_path / "m" / "a.jpg.xmp").exists()
    assert "command.export_names" in oceano.actions()


def test_export_names_in_place_says_what_to_do_next(oceano: Oceano) -> None:
    oceano("ingest", str(oceano.folder))
    before = (oceano.folder / "a.jpg").read_bytes()
    with oceano.ledger() as ledger:
        assert ChangeLog(ledger.database).newest_number() == 1
    assert "had all names already" in oceano("export-names", str(oceano.folder), "--in-place")
    assert (oceano.folder / "a.jpg").read_bytes() == before, "it has them already"
    (oceano.folder.parent / "p.csv").write_text("path,name\nb.jpg,Bob\n")
    oceano("import-people", str(oceano.folder.parent / "p.csv"), "--root", str(oceano.folder))
    assert "run `oceano ingest`" in oceano("export-names", str(oceano.folder), "--in-place")


def test_export_names_refuses_a_mirror_in_place_and_a_missing_folder(oceano: Oceano, tmp_path: Path) -> None:
    assert "invalid_request" in oceano(
        "export-names", str(oceano.folder), "--into", str(tmp_path / "m"), "--in-place", code=2
    )
    assert "not_found" in oceano("export-names", str(tmp_path / "missing"), code=2)


def test_import_people_names_faces_and_says_how_to_undo_it(oceano: Oceano, tmp_path: Path) -> None:
    oceano("ingest", str(oceano.folder))
    file = tmp_path / "people.csv"
    file.write_text("path,name\nb.jpg,Bob\nmissing.jpg,Eve\n")
    words = ("import-people", str(file), "--root", str(oceano.folder))
    dry = oceano(*words, "--dry-run", code=1)
    assert "Read 2 rows, of which 1 names a face that is in the index.\n" in dry
    assert "Nothing was changed (--dry-run). The import would name 1 face and add 1 new person.\n" in dry
    assert "command.import_people" not in oceano.actions()
    said = oceano(*words, "--report", str(tmp_path / "report.csv"), code=1)
    assert "Named 1 face, and added 1 new person.\n" in said
    missing = oceano.folder / "missing.jpg"
    assert f"Not given to a face: line 3: no ingested picture is at {missing}; relative paths" in said
    assert f"line 3: no ingested picture is at {missing};" in dry
    assert said.endswith("Undo with: oceano undo 2\n")
    again = oceano(*words, code=1)
    assert "No face got a new name, so nothing was changed.\n" in again
    assert "oceano undo" not in again
    assert _lines(tmp_path / "report.csv")[1][:3] == ["3", "missing.jpg", "image_unknown"]
    assert "command.import_people" in oceano.actions()
