"""`oceano search` and its outputs, with a fake model, real files and a real ledger."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from app.catalog import FileRecord, Ledger
from app.cli import main
from app.commands import search_files
from app.commands.search import SearchRequest, run_search
from app.commands.search_output import SearchOutput
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.protocols import Engine, FaceIndex
from app.core.types import Face, FaceRecord, ModelPack, Picture
from app.images import decode, image_id_of
from app.people import Author, NamesCopy, Naming, Profile
from app.service import Sort, open_ledger
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex, picture_of
from tests.support.pictures import BLACK, BLUE, GREEN, RED, encoded, point


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: bytes
    err: str

    @property
    def paths(self) -> list[str]:
        """The printed paths, of `--paths`."""
        return self.out.decode().splitlines()


class Command:
    """`oceano search` over a library: a red person on each of its photographs, unless a test adds others."""

    def __init__(self, folder: Path, settings: Settings, capture: pytest.CaptureFixture[bytes]) -> None:
        self.folder = folder
        self.settings = settings
        self.index = MemoryIndex()
        self.engine = FakeEngine()
        self.loaded = 0
        self._capture = capture
        self._count = 0

    def add(self, name: str | bytes, colour: tuple[int, int, int] = RED, **payload: str) -> str:
        """Put a photograph into the library; its path."""
        self._count += 1
        path = str(self.folder / os.fsdecode(name))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        data = encoded(colour, (64, 40 + self._count))
        Path(path).write_bytes(data)
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        folders = tuple(str(one) for one in [*Path(shown).parents][::-1])
        self.index.upsert(
            [point(self._count, colour, image_id=image_id_of(data), path=shown, folder=folders, **payload)]
        )
        status = Path(path).stat()
        with closing(open_ledger(self.settings, FAKE_PACK)) as ledger:
            ledger.record([FileRecord(path, status.st_size, status.st_mtime_ns, image_id_of(data), "done", 1)])
        return path

    def query(self, colour: tuple[int, int, int] = RED, name: str = "query.png") -> str:
        """Write a photograph to search with, outside the library; its path."""
        path = self.folder.parent / name
        path.write_bytes(encoded(colour, (80, 80)))
        return str(path)

    def __call__(self, *words: object) -> Said:
        code = main(["search", *map(str, words)])
        out, err = self._capture.readouterr()
        return Said(code, out, err.decode())

    @contextmanager
    def open_without_engine(self, settings: Settings) -> Iterator[tuple[ModelPack, FaceIndex, Ledger]]:
        with closing(open_ledger(settings, FAKE_PACK)) as ledger:
            yield FAKE_PACK, self.index, ledger

    def build_engine(self, settings: Settings) -> Engine:
        self.loaded += 1
        return self.engine


@pytest.fixture
def command(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Command:
    folder = tmp_path / "photos"
    folder.mkdir()
    settings.state_dir.mkdir(parents=True)
    command = Command(folder, settings, capsysbinary)
    monkeypatch.setenv("DATA_DIR", str(settings.data_dir))
    monkeypatch.setattr("app.core.config.REPOSITORY", settings.data_dir)
    monkeypatch.setattr("app.commands.search.open_without_engine", command.open_without_engine)
    monkeypatch.setattr("app.commands.search.build_engine", command.build_engine)
    return command


def _decoded(path: str) -> Picture:
    return decode(Path(path).read_bytes(), max_pixels=1_000_000)


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


# --- what is found


def test_a_line_for_each_match_has_similarity_word_date_and_path(command: Command) -> None:
    path = command.add("a.png", taken_at="2021-05-06T07:08:09")
    command.add("other.png", BLUE)
    said = command(command.query())
    assert said.code == 0
    assert said.out.decode() == f" 1.00  very likely   2021-05-06  {path}\n"


def test_only_faces_of_a_person_by_name_or_id_or_without_one(command: Command) -> None:
    paths = [command.add(f"{name}.png") for name in ("ada", "ben", "other", "nobody")]
    faces = {Path(one.payload.path).stem: one.face_id for one in command.index.points.values()}
    with closing(open_ledger(command.settings, FAKE_PACK)) as ledger:
        naming = Naming(ledger.database, command.index, NamesCopy(ledger.database, command.index, ledger.collection))
        made = {
            stem: naming.create(Profile(name=name), [faces[stem]], Author("a test")).person
            for stem, name in (("ada", "Ada"), ("ben", "Ben | B"), ("other", "Ada"))
        }
    ada, ben, other, nobody = paths
    query = command.query()
    assert made["ben"] is not None
    for words, found in (
        (["--person", "Ben | B"], {ben}), (["--person", made["ben"].id.upper()], {ben}),
        (["--person", "Ada"], {ada, other}),
        (["--person", "Ada", "--person", "Ben | B"], {ada, ben, other}), (["--unnamed"], {nobody}),
    ):  # fmt: skip
        assert set(command(query, "--paths", *words).paths) == found, words
    for name in ("ada", "Eve", "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d"):
        said = command(query, "--person", name)
        assert (said.code, said.err) == (2, f"oceano: nobody has the name or id {name} (person_unknown)\n")
    rows = json.loads(command(query, "--json", "--person", "Ben | B").out)
    assert [(row["person"], row["person_id"]) for row in rows] == [("Ben | B", made["ben"].id)]


def test_nothing_found_is_exit_1(command: Command) -> None:
    command.add("a.png", BLUE)
    said = command(command.query())
    assert (said.code, said.out) == (1, b"No face in the index is similar enough.\n")


def test_a_face_id_needs_no_model(command: Command) -> None:
    path = command.add("a.png")
    (face_id,) = command.index.points
    said = command("--face-id", face_id, "--paths")
    assert (said.code, said.paths, command.loaded) == (0, [path], 0)


def test_the_model_is_loaded_while_the_index_opens(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    path, loading = command.add("a.png"), Event()
    opened = command.open_without_engine

    def build(settings: Settings) -> Engine:
        loading.set()
        return command.build_engine(settings)

    @contextmanager
    def open_slowly(settings: Settings) -> Iterator[tuple[ModelPack, FaceIndex, Ledger]]:
        assert loading.wait(30)
        with opened(settings) as parts:
            yield parts

    monkeypatch.setattr("app.commands.search.build_engine", build)
    monkeypatch.setattr("app.commands.search.open_without_engine", open_slowly)
    assert command(command.query(), "--paths").paths == [path]
    assert command.loaded == 1


def test_a_photograph_that_is_not_there_is_told_before_anything_is_loaded(command: Command) -> None:
    said = command(command.query(), command.folder / "missing.jpg")
    assert (said.code, command.loaded) == (2, 0)
    assert "missing.jpg cannot be read" in said.err


def test_several_photographs_are_one_query_and_a_doubtful_one_is_named(command: Command) -> None:
    path = command.add("a.png")
    said = command(command.query(), command.query(RED, "second.png"), command.query(BLUE, "odd.png"), "--paths")
    assert said.paths == [path]
    assert "odd.png may show another person" in said.err
    assert "second.png" not in said.err
    assert command.loaded == 1


def test_with_and_not_take_photographs_and_face_ids(command: Command) -> None:
    alone, both = command.add("alone.png"), command.add("both.png")
    of_both = next(one for one in command.index.points.values() if one.payload.path == both)
    other = point(77, GREEN)
    command.index.upsert([replace(other, payload=replace(of_both.payload, bbox=(40.0, 2.0, 60.0, 30.0)))])
    query = command.query()
    assert command(query, "--with", command.query(GREEN, "green.png"), "--paths").paths == [both]
    assert command(query, "--with", other.face_id, "--paths").paths == [both]
    assert sorted(command(query, "--not", other.face_id, "--paths").paths) == sorted([alone, both])
    assert command(query, "--not", query, "--paths").code == 1


def test_filters_reach_the_search(command: Command) -> None:
    old = command.add("2019/a.png", taken_at="2019-01-02T00:00:00")
    new = command.add("2021/b.png", taken_at="2021-12-31T23:00:00")
    undated = command.add("2021/c.png")
    query = command.query()

    def found(*words: object) -> list[str]:
        return command(query, *words, "--paths").paths

    assert found("--from", "2020", "--to", "2021") == [new]
    assert found("--to", "2019-01") == [old]
    assert found("--undated") == [undated]
    assert sorted(found("--folder", command.folder / "2021")) == [new, undated]
    assert found("--sort", "newest") == [new, old, undated]
    assert found("--sort", "oldest", "--limit", "1") == [old]
    assert found("--min-face", "1000") == []
    assert len(found("--group-by", "image")) == 3
    assert found("--threshold", "1", "--limit", "2", "--all", "--sort", "oldest") == [old, new, undated]


def test_a_hundred_matches_unless_all_are_wanted(command: Command) -> None:
    command.index.upsert([point(number) for number in range(1000, 1150)])
    query = command.query()
    assert len(command(query, "--paths").paths) == 100
    assert len(command(query, "--paths", "--all").paths) == 150


@pytest.mark.parametrize("output", [SearchOutput(), SearchOutput(paths=True), SearchOutput(csv="-")])
@pytest.mark.parametrize("sort", ["similarity", "newest"])
def test_matches_are_written_while_they_are_read(
    command: Command, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, output: SearchOutput,
    sort: Sort,
) -> None:  # fmt: skip
    command.index.upsert([point(number) for number in range(1000, 3600)])
    face_id, stop = point(1000).face_id, Event()
    settings = command.settings
    run_search(settings, SearchRequest(face_ids=(face_id,), sort=sort), SearchOutput(paths=True), Event())
    capsysbinary.readouterr()
    reads: list[int] = []
    retrieve = command.index.retrieve

    def read(face_ids: Sequence[str], **how: bool) -> list[FaceRecord]:
        if len(face_ids) > 1:
            reads.append(len(face_ids))
        if sum(reads[-3:]) == 1500:
            stop.set()
        return retrieve(face_ids, **how)

    monkeypatch.setattr(command.index, "retrieve", read)
    assert run_search(settings, SearchRequest(face_ids=(face_id,), limit=None, sort=sort), output, stop) == 130
    assert reads[-3:] == [500, 500, 500], "nothing is read after the stop"
    assert 1000 <= len(capsysbinary.readouterr().out.splitlines()) <= 1001


def test_several_outputs_have_all_matches(command: Command) -> None:
    command.index.upsert([point(number) for number in range(1000, 1700)])
    table = command.folder.parent / "found.csv"
    said = command(command.query(), "--all", "--paths", "--csv", table)
    assert len(said.paths) == 700
    assert len(table.read_text("utf-8-sig").splitlines()) == 701


# --- similarities


def test_similarities_are_rounded_down_as_on_the_page(command: Command) -> None:
    query = command.query()
    path = command.add("a.png")
    near, known = next(iter(command.index.points.values())), command.engine.analyze([_decoded(query)])[0][0].embedding
    across = np.eye(len(known), dtype=np.float32)[0]
    across -= (across @ known) * known
    across /= np.linalg.norm(across)
    embedding = np.asarray(0.589407 * known + np.sqrt(1 - 0.589407**2) * across, np.float32)
    command.index.points[near.face_id] = replace(near, embedding=embedding)
    sheet = command.folder.parent / "found.pdf"
    assert command(query).out.decode().startswith(" 0.58  ")
    assert command(query, "--pdf", sheet).code == 0
    assert "(0.58)" in PdfReader(sheet).pages[0].extract_text()
    assert json.loads(command(query, "--json").out)[0]["path"] == path


# --- photographs of several faces


class TwoFaces(FakeEngine):
    """Sees the left third and the rest of a picture as a face each, if their colours differ."""

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        found = []
        for picture in pictures:
            third = picture.pixels.shape[1] // 3
            sides = [picture_of(picture.pixels[:, :third]), picture_of(picture.pixels[:, third:])]
            (left,), (right,) = super().analyze(sides)
            left = replace(left, bbox=(0.0, 10.0, 20.0, 40.0))
            right = replace(right, bbox=(30.0, 10.0, 80.0, 70.0))
            found.append([right] if np.allclose(left.embedding, right.embedding) else [left, right])
        return found


def of_two(command: Command, name: str = "group.png") -> str:
    """A photograph of a small red face, 0, and a large green one, 1; its path."""
    pixels = np.zeros((80, 90, 3), np.uint8)
    pixels[:, :30], pixels[:, 30:] = RED, GREEN
    path = command.folder.parent / name
    Image.fromarray(pixels).save(path)
    return str(path)


@pytest.fixture
def two(command: Command) -> Command:
    command.engine = TwoFaces()
    return command


def test_of_several_faces_the_largest_is_searched_and_all_are_named(two: Command) -> None:
    two.add("red.png")
    green = two.add("green.png", GREEN)
    said = two(of_two(two), "--paths")
    assert said.paths == [green]
    assert said.err.splitlines() == [
        f"{of_two(two)} has 2 faces; face 1 is searched, --face N chooses another:",
        "  face 0: 20 x 30 pixels at 0, 10",
        "  face 1: 50 x 60 pixels at 30, 10, searched",
    ]


def test_another_face_can_be_chosen_and_then_nothing_is_said(two: Command) -> None:
    red, _ = two.add("red.png"), two.add("green.png", GREEN)
    for choice in ("0", "0:0"):
        said = two(of_two(two), "--face", choice, "--paths")
        assert (said.paths, said.err) == ([red], "")


def test_among_several_photographs_a_face_is_chosen_with_the_number_of_its_photograph(two: Command) -> None:
    red, _ = two.add("red.png"), two.add("green.png", GREEN)
    said = two(of_two(two), of_two(two, "second.png"), "--face", "0:0", "--face", "1:0", "--paths")
    assert (said.paths, said.err) == ([red], "")
    said = two(of_two(two), of_two(two, "second.png"), "--face", "1:0", "--paths")
    assert said.paths == [red]
    assert "group.png has 2 faces; face 0 is searched, --face 0:N chooses another:" in said.err


def test_the_face_that_with_and_not_take_is_named(two: Command) -> None:
    two.add("red.png")
    said = two(two.query(), "--not", of_two(two), "--paths")
    assert "group.png has 2 faces; --not takes the largest, face 1: 50 x 60 pixels at 30, 10" in said.err


@pytest.mark.parametrize(
    ("photographs", "choices", "part"),
    [
        (1, ["2"], "group.png has 2 faces, numbered from 0; there is no face 2"),
        (1, ["1:0"], "there is no photograph 1"),
        (1, ["-1"], "--face -1"),
        (1, ["first"], "--face first: must be a number from 0"),
        (1, ["0", "0:1"], "another --face is of the same photograph"),
        (2, ["1"], "--face 0:1 is face 1 of the first one"),
        (0, ["0"], "no photograph"),
    ],
)
def test_a_face_that_cannot_be_chosen_is_wrong_use(
    two: Command, photographs: int, choices: list[str], part: str
) -> None:
    two.add("red.png")
    (face_id,) = two.index.points
    words = [word for choice in choices for word in ("--face", choice)]
    said = two(*[of_two(two)] * photographs, *words, "--face-id", face_id)
    assert said.code == 2
    assert part in said.err


# --- wrong use


def test_wrong_use_is_exit_2_and_says_what_is_wrong(command: Command) -> None:
    command.add("a.png")
    query = command.query()
    black = command.query(BLACK, "black.png")
    text = command.folder.parent / "text.png"
    text.write_text("no picture")
    for words, part in (
        ([], "at least one photograph"),
        ([command.folder / "missing.jpg"], "missing.jpg cannot be read"),
        ([black], "no face was found in"),
        ([text], "text.png"),
        (["--face-id", "7"], "neither a file nor the id of a face"),
        (["--face-id", "0" * 32], "no face with the id"),
        ([query, "--not", "missing.jpg"], "missing.jpg is neither"),
        ([query, "--folder", "/nowhere"], "/nowhere"),
        ([query, "--from", "yesterday"], "yesterday"),
        ([query, "--from", "2021", "--to", "2020-05"], "later than"),
        ([query, "--json", "--paths"], "only one of"),
        ([query, "--csv", "-", "--json"], "only one of"),
        ([query, "--sort", "size"], "size"),
        ([query, "--limit", "0"], "--limit"),
        ([query, "--threshold", "2"], "--threshold"),
    ):
        said = command(*words)
        assert (said.code, said.out.startswith(b"{") or not said.out) == (2, True), words
        assert part in said.err, words


def test_an_index_that_is_not_to_be_had_is_exit_3(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: Settings) -> Engine:
        raise OceanoError("model_not_found", "no model")

    monkeypatch.setattr("app.commands.search.build_engine", fail)
    assert command(command.query()).code == 3


# --- outputs


def test_json_and_csv_have_a_row_for_each_match(command: Command) -> None:
    path = command.add("a, b.png")
    query = command.query()
    (row,) = json.loads(command(query, "--json").out)
    assert (row["path"], row["sureness"], row["similarity"]) == (path, "very_likely", pytest.approx(1, abs=1e-5))
    (printed,) = csv.DictReader(io.StringIO(command(query, "--csv", "-").out.decode("utf-8-sig")))
    target = command.folder.parent / "found.csv"
    assert command(query, "--csv", target).out == b""
    (written,) = csv.DictReader(io.StringIO(target.read_text(encoding="utf-8-sig")))
    assert printed == written
    assert written["path"] == path


def test_json_of_nothing_is_an_empty_array(command: Command) -> None:
    said = command(command.query(), "--json")
    assert (said.code, json.loads(said.out)) == (1, [])


def test_paths_with_null_are_the_bytes_of_hostile_names(command: Command) -> None:
    names = [b"line\nbreak.png", b"=cmd().png", b"\xff\xfe.png", b"back\\x41slash.png", b"n" * 251 + b".png"]
    for name in names:
        command.add(name)
    said = command(command.query(), "--null")
    *found, end = said.out.split(b"\0")
    assert end == b""
    assert sorted(found) == sorted(os.fsencode(command.folder) + b"/" + name for name in names)


def test_a_terminal_gets_no_control_characters(command: Command) -> None:
    command.add(b"\x1b[2Jred\nline.png")
    said = command(command.query())
    assert b"\x1b" not in said.out
    assert said.out.count(b"\n") == 1


def test_zip_and_pdf_open_again(command: Command) -> None:
    path = command.add("a.png")
    archive, sheet = command.folder.parent / "found.zip", command.folder.parent / "found.pdf"
    assert command(command.query(), "--zip", archive, "--pdf", sheet).code == 0
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        assert opened.read("a.png") == Path(path).read_bytes()
    (page,) = PdfReader(sheet).pages
    assert "a.png" in page.extract_text()


@pytest.mark.parametrize("option", ["--zip", "--pdf", "--csv"])
def test_an_existing_file_is_never_replaced(command: Command, option: str) -> None:
    path = command.add("a.png")
    before = Path(path).read_bytes()
    said = command(command.query(), option, path)
    assert said.code == 2
    assert "exists" in said.err
    assert Path(path).read_bytes() == before
    assert command.loaded == 0


def test_an_output_that_cannot_be_written_is_exit_2(command: Command) -> None:
    command.add("a.png")
    said = command(command.query(), "--zip", command.folder / "missing" / "found.zip")
    assert said.code == 2
    assert "cannot be written" in said.err


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_what_a_user_takes_out_has_the_permissions_of_the_users_umask(command: Command, umask: int) -> None:
    os.umask(umask)
    command.add("a.png")
    out = command.folder.parent
    files = [out / "found.csv", out / "found.pdf", out / "found.zip"]
    words = [word for option, path in zip(("--csv", "--pdf", "--zip"), files, strict=True) for word in (option, path)]
    said = command(command.query(), *words, "--copy-to", out / "new" / "copies", "--link-to", out / "links")
    assert said.code == 0
    for path in (*files, out / "new/copies/a.png"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path
    for folder in (out / "new", out / "new/copies", out / "links"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask, folder
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in command.settings.state_dir.iterdir())
    assert os.umask(umask) == umask


def test_a_folder_that_was_there_keeps_its_permissions(command: Command) -> None:
    command.add("a.png")
    out = command.folder.parent / "out"
    out.mkdir(mode=0o700)
    assert command(command.query(), "--copy-to", out).code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


# --- copies and links


def test_copies_have_names_of_their_own_and_their_times(command: Command) -> None:
    paths = [command.add(f"{number}/IMG_1.png") for number in range(3)]
    target = command.folder.parent / "out" / "deep"
    said = command(command.query(), "--copy-to", target)
    assert said.code == 0
    assert f"3 files in {target}, 0 of them before" in said.err
    assert names_in(target) == ["IMG_1 (2).png", "IMG_1 (3).png", "IMG_1.png"]
    assert {one.read_bytes() for one in target.iterdir()} == {Path(path).read_bytes() for path in paths}
    assert {one.stat().st_mtime_ns for one in target.iterdir()} == {Path(path).stat().st_mtime_ns for path in paths}


@pytest.mark.parametrize("option", ["--copy-to", "--link-to"])
def test_repeating_adds_only_what_is_missing_and_replaces_nothing(command: Command, option: str) -> None:
    for number in range(3):
        command.add(f"{number}/IMG_1.png")
    target = command.folder.parent / "out"
    target.mkdir()
    (target / "IMG_1.png").write_bytes(b"not ours")
    query = command.query()
    assert command(query, option, target).code == 0
    first = names_in(target)
    (target / first[-1]).unlink() if first[-1] != "IMG_1.png" else (target / first[0]).unlink()
    said = command(query, option, target)
    assert (said.code, "3 files" in said.err, "2 of them before" in said.err) == (0, True, True)
    assert len(names_in(target)) == 4
    assert (target / "IMG_1.png").read_bytes() == b"not ours"


def test_links_lead_to_the_originals(command: Command) -> None:
    path = command.add(b"\xffa.png")
    target = command.folder.parent / "out"
    assert command(command.query(), "--link-to", target).code == 0
    (link,) = target.iterdir()
    assert str(link.readlink()) == path


def test_a_link_is_no_copy(command: Command) -> None:
    command.add("a.png")
    target = command.folder.parent / "out"
    query = command.query()
    command(query, "--link-to", target)
    assert command(query, "--copy-to", target).code == 0
    assert sorted((one.name, one.is_symlink()) for one in target.iterdir()) == [
        ("a (2).png", False),
        ("a.png", True),
    ]


def test_names_of_255_bytes_are_copied_and_numbered(command: Command) -> None:
    name = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 125 + "a.png"
    assert len(name.encode()) == 255
    for number in range(2):
        command.add(f"{number}/{name}")
    target = command.folder.parent / "out"
    assert command(command.query(), "--copy-to", target).code == 0
    names = [os.fsencode(one) for one in names_in(target)]
    assert len(names) == 2
    assert all(len(one) <= 255 for one in names)


def test_a_photograph_that_is_gone_is_named_and_is_exit_1(command: Command) -> None:
    gone, there = command.add("gone.png"), command.add("there.png")
    Path(gone).unlink()
    target = command.folder.parent / "out"
    said = command(command.query(), "--copy-to", target)
    assert said.code == 1
    assert gone in said.err
    assert names_in(target) == [Path(there).name]


def test_without_hard_links_a_copy_is_renamed_and_replaces_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: str) -> None:
        raise PermissionError(1, "no hard links")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    command.add("a.png")
    target = command.folder.parent / "out"
    target.mkdir()
    (target / "a.png").write_bytes(b"not ours")
    assert command(command.query(), "--copy-to", target).code == 0
    assert names_in(target) == ["a (2).png", "a.png"]
    assert (target / "a.png").read_bytes() == b"not ours"


def test_a_file_that_appears_while_copying_is_kept(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command.add("a.png")
    target = command.folder.parent / "out"
    copy = shutil.copyfileobj

    def slow(source: io.BytesIO, to: io.BytesIO, length: int) -> None:
        (target / "a.png").write_bytes(b"not ours")
        copy(source, to, length)

    monkeypatch.setattr(search_files.shutil, "copyfileobj", slow)
    assert command(command.query(), "--copy-to", target).code == 0
    assert names_in(target) == ["a (2).png", "a.png"]
    assert (target / "a.png").read_bytes() == b"not ours"


def test_a_target_that_is_a_file_is_exit_2(command: Command) -> None:
    path = command.add("a.png")
    said = command(command.query(), "--copy-to", path)
    assert said.code == 2
    assert "cannot be written" in said.err


# --- interrupted


def test_ctrl_c_leaves_complete_files_only(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        command.add(f"{number}.png")
    copy = shutil.copyfileobj

    def interrupted(source: io.BytesIO, to: io.BytesIO, length: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        copy(source, to, length)

    query, target = command.query(), command.folder.parent / "out"
    with monkeypatch.context() as patched:
        patched.setattr(search_files.shutil, "copyfileobj", interrupted)
        assert command(query, "--copy-to", target).code == 130
    assert len(names_in(target)) == 1
    said = command(query, "--copy-to", target)
    assert (said.code, "1 of them before" in said.err, len(names_in(target))) == (0, True, 3)


def test_an_interrupted_archive_is_removed(command: Command) -> None:
    command.add("a.png")
    stop = Event()

    class Stopping(FakeEngine):
        def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
            stop.set()
            return super().analyze(pictures, timings)

    command.engine = Stopping()
    target = command.folder.parent / "out"
    target.mkdir()
    request = SearchRequest(photographs=(Path(command.query()),))
    output = SearchOutput(archive=target / "found.zip")
    assert run_search(command.settings, request, output, stop) == 130
    assert names_in(target) == []


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--help"]) == 0
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert {"--with", "--not", "--null", "--copy-to", "--link-to", "--zip", "--pdf", "--all"} <= options


def test_a_search_does_not_import_what_only_other_outputs_need() -> None:
    code = "import sys; import app.commands.search; print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-P", "-c", code], text=True, capture_output=True, check=True).stdout
    assert "'app.service.export'" in out
    for slow in ("fpdf", "rich", "onnxruntime", "fastapi"):
        assert f"'{slow}'" not in out
