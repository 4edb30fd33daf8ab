"""pictures: only what may be shown is opened, and only while it is the image that was ingested."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from app.catalog import FileRecord, Ledger, open_ledger
from app.core.errors import OceanoError
from app.core.types import face_id_of
from app.images.decoding import image_id_of
from app.library import neighbours as neighbours_module
from app.library.neighbours import Neighbours
from app.library.pictures import Pictures
from tests.support.fakes import FAKE_PACK, MemoryIndex
from tests.support.pictures import GREEN, encoded, point
from tests.support.running import open_below

HASH = "0123456789abcdef"


@dataclass
class Library:
    """Files on disk, as an ingest records them."""

    base: Path
    index: MemoryIndex = field(default_factory=MemoryIndex)
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = open_ledger(self.base / "state" / "catalog.sqlite3", "faces__fake__ffffffff")

    def add(self, path: str, data: bytes = encoded(), status: str = "done") -> str:
        """Write and record a file; returns its image_id."""
        file = self.base / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return self.record(str(file), data, status)

    def record(self, path: str, data: bytes = encoded(), status: str = "done") -> str:
        found, image_id = Path(path).stat(), image_id_of(data)
        faces = 1 if status == "done" else 0
        self.ledger.record([FileRecord(path, found.st_size, found.st_mtime_ns, image_id, status, faces)])  # type: ignore[arg-type]
        if status == "done":
            self.index.upsert([point(1, image_id=image_id, path=path)])
        return image_id

    def pictures(self, *roots: str | Path) -> Pictures:
        return Pictures(self.index, self.ledger, [self.base / root for root in roots])

    def read(self, image_id: str, *roots: str | Path) -> bytes:
        pictures = self.pictures(*roots)
        opened = pictures.open_original(image_id, pictures.get(image_id).files)
        with os.fdopen(opened.handle, "rb") as file:
            return file.read()

    def refusal(self, image_id: str, *roots: str | Path) -> str:
        with pytest.raises(OceanoError) as caught:
            self.read(image_id, *roots)
        opened = [path for path in open_below(self.base) if not path.is_relative_to(self.base / "state")]
        assert not opened, "a file stays open"
        return caught.value.code


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path.resolve())


# what may be shown


def test_a_file_below_a_root_is_opened(library: Library) -> None:
    image_id = library.add("pics/deep/a.png")
    for root in ("pics", "pics/", "pics/deep", "pics/deep/a.png", "/"):
        assert library.read(image_id, root) == encoded()
    assert library.pictures("pics").get(image_id).may_show


@pytest.mark.parametrize("roots", [(), ("pic",), ("pics/a",), ("pics2", "other"), ("pics/../other",)])
def test_a_file_elsewhere_is_not_shown(library: Library, roots: tuple[str, ...]) -> None:
    image_id = library.add("pics/ab/a.png")
    assert library.refusal(image_id, *roots) == "image_not_shown"
    assert not library.pictures(*roots).get(image_id).may_show


def test_a_folder_whose_name_begins_like_a_root_is_another(library: Library) -> None:
    image_id = library.add("pics2/a.png")
    assert library.refusal(image_id, "pics") == "image_not_shown"


def test_a_path_that_leaves_a_root_with_dots_is_elsewhere(library: Library) -> None:
    library.add("pics/other.png", encoded(GREEN))
    (library.base / "secret.png").write_bytes(encoded())
    image_id = library.record(f"{library.base}/pics/../secret.png")
    assert library.refusal(image_id, "pics") == "image_not_shown"


def test_a_symlink_out_of_a_root_is_not_shown(library: Library) -> None:
    library.add("pics/other.png", encoded(GREEN))
    (library.base / "secret").mkdir()
    (library.base / "secret" / "a.png").write_bytes(encoded())
    (library.base / "pics" / "link.png").symlink_to(library.base / "secret" / "a.png")
    (library.base / "pics" / "folder").symlink_to(library.base / "secret")
    for path in ("pics/link.png", "pics/folder/a.png"):
        image_id = library.record(str(library.base / path))
        assert library.refusal(image_id, "pics") == "image_not_shown"


def test_a_file_that_becomes_a_symlink_after_the_check_is_not_shown(library: Library) -> None:
    image_id = library.add("pics/a.png")
    pictures = library.pictures("pics")
    files = pictures.get(image_id).files
    assert files[0].may_show
    (library.base / "secret.png").write_bytes(encoded())
    (library.base / "pics" / "a.png").unlink()
    (library.base / "pics" / "a.png").symlink_to(library.base / "secret.png")
    with pytest.raises(OceanoError) as caught:
        pictures.open_original(image_id, files)
    assert caught.value.code == "image_missing"


def test_a_root_that_is_a_symlink_shows_its_files_by_both_names(library: Library) -> None:
    one = library.add("disk/a.png")
    (library.base / "pics").symlink_to(library.base / "disk")
    (library.base / "disk" / "b.png").write_bytes(encoded(GREEN))
    other = library.record(str(library.base / "pics" / "b.png"), encoded(GREEN))
    for root in ("pics", "disk"):
        assert library.read(one, root) == encoded()
        assert library.read(other, root) == encoded(GREEN)


def test_without_roots_every_ingested_file_is_shown(library: Library) -> None:
    image_id = library.add("anywhere/a.png")
    pictures = Pictures(library.index, library.ledger, None)
    pictures.open_original(image_id, pictures.get(image_id).files).close()


# what has changed since


def test_a_file_that_was_only_touched_is_still_the_image(library: Library) -> None:
    image_id = library.add("pics/a.png")
    os.utime(library.base / "pics" / "a.png", (1, 1))
    assert library.read(image_id, "pics") == encoded()


def test_a_file_with_other_bytes_is_missing(library: Library) -> None:
    image_id = library.add("pics/a.png")
    (library.base / "pics" / "a.png").write_bytes(encoded(GREEN))
    assert library.refusal(image_id, "pics") == "image_missing"


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _nothing(path: Path) -> None:
    assert not path.exists()


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _text(path: Path) -> None:
    path.write_text("<script>")


@pytest.mark.parametrize("become", [_fifo, _nothing, _device, _text, Path.mkdir])
def test_what_is_no_image_file_any_more_is_missing(library: Library, become: Callable[[Path], None]) -> None:
    image_id = library.add("pics/a.png")
    (library.base / "pics" / "a.png").unlink()
    become(library.base / "pics" / "a.png")
    assert library.refusal(image_id, "pics", "/dev") == "image_missing"


def test_a_copy_stands_in_for_a_file_that_is_gone(library: Library) -> None:
    image_id = library.add("pics/a.png")
    library.add("pics/copy/a.png", status="duplicate")
    library.add("hidden/a.png", status="duplicate")
    (library.base / "pics" / "a.png").unlink()
    assert library.read(image_id, "pics") == encoded()
    (library.base / "pics" / "copy" / "a.png").write_bytes(b"")
    assert library.refusal(image_id, "pics") == "image_missing"


def test_a_copy_that_may_be_shown_stands_in_for_one_that_may_not(library: Library) -> None:
    image_id = library.add("hidden/a.png")
    library.add("pics/a.png", status="duplicate")
    stored = library.pictures("pics").get(image_id)
    assert [file.may_show for file in stored.files] == [False, True]
    assert stored.path == str(library.base / "hidden" / "a.png")
    assert library.read(image_id, "pics") == encoded()


def test_an_image_without_faces_in_the_index_is_unknown(library: Library) -> None:
    with pytest.raises(OceanoError) as caught:
        library.pictures("pics").get("0" * 64)
    assert caught.value.code == "image_unknown"


def test_faces_are_in_the_order_of_pages_and_then_from_left_to_right(library: Library) -> None:
    image_id = library.add("pics/a.png")
    library.index.points.clear()
    given = [(0, 50.0), (1, 5.0), (0, 2.0)]
    for number, (page, left) in enumerate(given):
        one = point(1, image_id=image_id, page=page, bbox=(left, 0.0, 60.0, 60.0))
        library.index.upsert([replace(one, face_id=face_id_of(image_id, FAKE_PACK.digest, number))])
    faces = library.pictures().get(image_id).faces
    assert [(one.payload.page, one.payload.bbox[0]) for one in faces] == [(0, 2.0), (0, 50.0), (1, 5.0)]


# neighbours


def _ids(library: Library, moments: dict[int, str | None]) -> Pictures:
    for number, taken_at in moments.items():
        library.index.upsert([point(number, taken_at=taken_at)])
    return library.pictures()


def _around(pictures: Pictures, number: int) -> tuple[int | None, int | None]:
    found = pictures.neighbours(pictures.get(f"{number:064x}"), "time")
    before, after = (None if one is None else int(one, 16) for one in (found.previous, found.next))
    return before, after


def test_images_of_the_same_second_are_ordered_by_their_ids_and_none_is_left_out(library: Library) -> None:
    same = "2020-05-01T10:00:00"
    pictures = _ids(library, {1: "2020-05-01T09:59:58", 2: same, 3: same, 4: same, 5: "2020-05-01T10:00:02"})
    assert [_around(pictures, number) for number in range(1, 6)] == [(None, 2), (1, 3), (2, 4), (3, 5), (4, None)]


def test_times_are_compared_across_time_zones(library: Library) -> None:
    moments = {1: "2020-05-01T12:00:00+02:00", 2: "2020-05-01T10:30:00", 3: "2020-05-01T05:00:00-06:00"}
    pictures = _ids(library, {**moments})
    assert [_around(pictures, number) for number in (1, 2, 3)] == [(None, 2), (1, 3), (2, None)]


def test_a_gap_of_any_length_is_crossed(library: Library) -> None:
    pictures = _ids(library, {1: "1826-01-01T00:00:00", 2: "1990-01-01T00:00:00", 3: "1990-01-04T00:00:00"})
    assert [_around(pictures, number) for number in (1, 2, 3)] == [(None, 2), (1, 3), (2, None)]


def test_an_image_without_a_time_has_no_neighbours_in_time_and_is_none(library: Library) -> None:
    pictures = _ids(library, {1: None, 2: "2020-05-01T10:00:00", 3: None})
    assert [_around(pictures, number) for number in (1, 2, 3)] == [(None, None)] * 3


def test_the_first_and_last_moment_of_the_calendar_have_neighbours(library: Library) -> None:
    pictures = _ids(library, {1: "0001-01-01T00:00:00", 2: "9999-12-31T23:59:59"})
    assert [_around(pictures, number) for number in (1, 2)] == [(None, None)] * 2


def test_the_nearest_image_is_found_among_more_than_are_read(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours_module, "_NEARBY", 3)
    days = {100 - number: f"2020-{1 + number // 28:02}-{1 + number % 28:02}T00:00:00" for number in range(90)}
    pictures = _ids(library, days | {200: "2019-12-01T00:00:00"})
    assert _around(pictures, 200) == (None, 100)
    assert _around(pictures, 100) == (200, 99)
    assert _around(pictures, 60) == (61, 59)


def test_more_images_of_one_moment_than_are_read_hide_no_others_for_ever(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours_module, "_NEARBY", 3)
    same = dict.fromkeys(range(1, 21), "2020-05-01T10:00:00")
    pictures = _ids(library, same | {30: "2020-05-09T00:00:00"})
    assert _around(pictures, 20)[1] == 30


def test_neighbours_in_a_folder_are_those_of_the_ledger(library: Library) -> None:
    ids = [library.add(f"pics/{name}.png", encoded((20 * place, 50, 90))) for place, name in enumerate("abc")]
    library.add("pics/sub/b.png", encoded((3, 2, 1)))
    pictures = library.pictures()
    around = [pictures.neighbours(pictures.get(one), "folder") for one in ids]
    assert around == [Neighbours(None, ids[1]), Neighbours(ids[0], ids[2]), Neighbours(ids[1], None)]


# near-identical images


def test_a_recompressed_copy_is_alike_and_another_photograph_of_the_person_is_not(library: Library) -> None:
    close = f"{int(HASH, 16) ^ 0b111111:016x}"
    far = f"{int(HASH, 16) ^ 0b1111111:016x}"
    hashes = {1: HASH, 2: close, 3: far, 4: None}
    library.index.upsert([point(number, phash=phash) for number, phash in hashes.items()])
    library.index.upsert([point(5, GREEN, phash=HASH)])  # another person before the same scene
    pictures = library.pictures()
    alike = {number: pictures.alike(pictures.get(f"{number:064x}"), 0.4) for number in (1, 2, 4, 5)}
    found = {number: sorted(int(one.image_id, 16) for one in images) for number, images in alike.items()}
    assert found == {1: [2], 2: [1, 3], 4: [], 5: []}
