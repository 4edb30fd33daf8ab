"""`oceano changes` and `oceano undo`: what they print, write to the audit log and refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pytest

from app.catalog import AuditFilter, AuditLog, Ledger, PeopleStore
from app.cli import main
from app.commands import changes
from app.commands.changes import run_changes
from app.core.config import Settings
from app.core.protocols import FaceIndex
from app.core.types import FacePoint, ModelPack
from app.people import Author, NamesCopy, Naming, Profile
from app.service import open_ledger, this_user
from tests.support.face_pictures import faces_of, ids_of
from tests.support.fakes import FAKE_PACK, MemoryIndex

ADA, BEN = faces_of(1, 3), faces_of(2, 2)
ANA = Author("user ana")


class Oceano:
    """The command over an index in memory and a real catalog."""

    def __init__(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        self.settings, self._capsys = settings, capsys
        self.index = MemoryIndex()
        self.index.upsert([*ADA, *BEN])

    def __call__(self, *words: str, code: int = 0) -> str:
        """What a command prints."""
        assert main([*words]) == code
        out, err = self._capsys.readouterr()
        return str(out + err)

    @contextmanager
    def open_without_engine(self, settings: Settings) -> Iterator[tuple[ModelPack, FaceIndex, Ledger]]:
        with closing(open_ledger(settings, FAKE_PACK)) as ledger:
            yield FAKE_PACK, self.index, ledger

    @contextmanager
    def naming(self) -> Iterator[Naming]:
        """Makes changes as the page does."""
        with self.open_without_engine(self.settings) as (_, index, ledger):
            yield Naming(ledger.database, index, NamesCopy(ledger.database, index, ledger.collection))

    def person(self, name: str, faces: Sequence[FacePoint]) -> str:
        with self.naming() as naming:
            made = naming.create(Profile(name=name), ids_of(faces), ANA).person
        assert made is not None
        return made.id

    def rename(self, person_id: str, version: int, name: str) -> None:
        with self.naming() as naming:
            naming.edit(person_id, version, Profile(name=name), ANA)

    def people(self) -> dict[str, int]:
        """Numbers of faces by name."""
        with closing(open_ledger(self.settings, FAKE_PACK)) as ledger:
            return {one.name: one.faces for one in PeopleStore(ledger.database).find(limit=10)}

    def named_in_index(self) -> int:
        return sum(point.payload.person is not None for point in self.index.points.values())

    def recorded(self) -> list[tuple[str, str, dict[str, Any]]]:
        """The audit log, oldest first: who, action, details."""
        with closing(open_ledger(self.settings, FAKE_PACK)) as ledger:
            found = AuditLog(ledger.database).find(AuditFilter())
        return [(one.who, one.action, json.loads(one.details)) for one in reversed(found)]


@pytest.fixture
def oceano(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Oceano:
    made = Oceano(settings, capsys)
    monkeypatch.setenv("DATA_DIR", str(settings.data_dir))
    monkeypatch.setattr(changes, "open_without_engine", made.open_without_engine)
    return made


def _lines(said: str) -> list[str]:
    """The lines of a table without the first one, the time, and repeated spaces."""
    return [
        " ".join(word for at, word in enumerate(line.split()) if at not in {1, 2}) for line in said.splitlines()[1:]
    ]


def test_changes_are_listed_newest_first_with_number_author_faces_and_words(oceano: Oceano) -> None:
    assert oceano("changes") == "There are no changes yet.\n"
    ada = oceano.person("Ada", ADA)
    oceano.person("Ben\x1b[31m", BEN)
    oceano.rename(ada, 1, "Ada King")
    oceano("undo", "3")
    said = oceano("changes")
    assert said.split()[:6] == ["CHANGE", "TIME", "(UTC)", "BY", "FACES", "WHAT"]
    assert _lines(said) == [
        f"4 {this_user()} 0 Undone: Ada renamed to Ada King",
        "3 user ana 0 Ada renamed to Ada King (undone by 4)",
        "2 user ana 2 Ben [31m added with 2 faces",
        "1 user ana 3 Ada added with 3 faces",
    ]
    assert "\x1b" not in said


def test_a_part_of_the_changes_says_that_there_are_more(oceano: Oceano) -> None:
    oceano.person("Ada", ADA)
    oceano.person("Ben", BEN)
    said = oceano("changes", "--limit", "1")
    assert "Ben added" in said
    assert "Ada added" not in said
    assert said.endswith("These are the newest 1; --limit shows more.\n")
    assert "newest" not in oceano("changes", "--limit", "2")


def test_changes_of_a_person_are_found_by_name_by_id_and_after_the_person_was_deleted(oceano: Oceano) -> None:
    first, second = oceano.person("Ada", ADA[:1]), oceano.person("Ada", ADA[1:])
    ben = oceano.person("Ben", BEN)
    assert [line[0] for line in _lines(oceano("changes", "--person", "Ada"))] == ["2", "1"]
    assert [line[0] for line in _lines(oceano("changes", "--person", second.upper()))] == ["2"]
    with oceano.naming() as naming:
        naming.delete(ben, 1, ANA)
    assert [line[0] for line in _lines(oceano("changes", "--person", ben))] == ["4", "3"]
    assert "nobody has the name or id Eve (person_unknown)" in oceano("changes", "--person", "Eve", code=2)
    assert "person_unknown" in oceano("changes", "--person", "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d", code=2)
    details = [details for _, action, details in oceano.recorded() if action == "changes.list"]
    assert [sorted(one["person_ids"]) for one in details] == [sorted([first, second]), [second], [ben]]
    assert "Ada" not in json.dumps(details), "the audit log has no names"


def test_changes_as_json_are_those_of_rest_with_their_words(oceano: Oceano) -> None:
    oceano.person("Zoë", ADA)
    (change,) = json.loads(oceano("changes", "--json"))
    assert {"number", "at", "who", "kind", "faces", "details", "undoes", "undone_by", "text"} == change.keys()
    assert (change["number"], change["kind"], change["text"]) == (1, "create", "Zoë added with 3 faces")


def test_undo_puts_the_names_back_in_catalog_and_index_and_says_how_to_redo_it(oceano: Oceano) -> None:
    oceano.person("Ada", ADA)
    assert (oceano.people(), oceano.named_in_index()) == ({"Ada": 3}, 3)
    assert oceano("undo", "1") == "Undone: Ada added with 3 faces. Redo with: oceano undo 2\n"
    assert (oceano.people(), oceano.named_in_index()) == ({}, 0)
    assert oceano("undo", "2") == "Redone: Ada added with 3 faces. Undo with: oceano undo 3\n"
    assert (oceano.people(), oceano.named_in_index()) == ({"Ada": 3}, 3)
    change = json.loads(oceano("undo", "3", "--json"))
    assert (change["number"], change["undoes"], change["faces"]) == (4, 3, 3)
    assert oceano.recorded() == [
        (f"command {this_user()}", "change.undo", {"change": change, "undone": change - 1, "faces": 3})
        for change in (2, 3, 4)
    ]


def test_an_undo_that_is_refused_says_what_stands_in_the_way(oceano: Oceano) -> None:
    ada = oceano.person("Ada", ADA)
    oceano.rename(ada, 1, "Ada King")
    said = oceano("undo", "1", code=2)
    assert "change 1 cannot be undone, because change 2 (Ada renamed to Ada King) is about the same faces" in said
    assert "First undo that one: oceano undo 2 (change_conflict)" in said
    error = json.loads(oceano("undo", "1", "--json", code=2).splitlines()[0])["error"]
    assert (error["code"], error["details"]["later"]) == ("change_conflict", 2)
    oceano("undo", "2")
    said = oceano("undo", "2", code=2)
    assert "change 2 was undone already, by change 3. To redo it: oceano undo 3 (change_conflict)" in said
    assert "First" not in oceano("undo", "1"), "nothing stands in the way any more"
    assert [action for _, action, _ in oceano.recorded()] == ["change.undo"] * 2, "what was refused is not recorded"


@pytest.mark.parametrize("number", ["7", str(2**53)])
def test_there_is_no_change_with_another_number(oceano: Oceano, number: str) -> None:
    oceano.person("Ada", ADA)
    assert f"there is no change {number} (change_unknown)" in oceano("undo", number, code=2)


@pytest.mark.parametrize("number", ["0", "-1", "x", str(2**70)])
def test_a_change_has_a_number(oceano: Oceano, number: str) -> None:
    assert main(["undo", "--", number]) == 2


def test_changes_need_no_index_and_no_model(settings: Settings) -> None:
    assert run_changes(settings, "", 5, as_json=True) == 0


@pytest.mark.parametrize("name", ["jose\u0301", "JOSE", " José "])
def test_a_person_is_found_by_name_whatever_its_case_and_accents(oceano: Oceano, name: str) -> None:
    oceano.person("José", ADA)
    assert len(json.loads(oceano("changes", "--json", "--person", name))) == 1


def test_a_name_that_is_no_text_is_nobody(oceano: Oceano) -> None:
    assert "nobody has the name or id" in oceano("changes", "--person", "a\udcff", code=2)


def test_json_has_no_character_that_a_terminal_obeys(oceano: Oceano) -> None:
    oceano.person("Eve\x9b31m\u202e", ADA)
    assert oceano("changes", "--json").isascii()
    assert "\\u009b" not in oceano("changes", "--json"), "as the name of the person has none"
