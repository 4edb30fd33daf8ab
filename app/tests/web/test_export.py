"""Exports over HTTP: from a face, a kept search and a token; each file is opened again."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pypdf import PdfReader

from app.catalog import FileRecord
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import FacePoint
from app.images import image_id_of
from app.main import create_app
from app.service import Query, encode_query
from app.web.pages.export import _blocks
from tests.support.clients import TestClient
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.pictures import BLUE, GREEN, RED, encoded, point

HOSTILE = (
    b"line\nbreak.png", b'quote".png', b"=cmd().png", b"\xff\xfe.png", b"n" * 251 + b".png", b"1/same.png",
    b"2/same.png", "\N{HIRAGANA LETTER A}.png".encode(),
)  # fmt: skip


@dataclass
class World:
    """A running service with the photographs of a red person, one of them outside the folders that may be shown."""

    client: TestClient
    index: MemoryIndex
    folder: Path
    points: list[FacePoint]
    contents: dict[str, bytes]
    hidden: FacePoint

    @property
    def face_id(self) -> str:
        return self.points[0].face_id

    def get(self, kind: str, **fields: Any) -> Any:
        return self.client.get(f"/face/{self.face_id}/export", params={"format": kind} | fields)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, outside = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("outside")
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"), library_roots=(folder,))
    index, points, contents = MemoryIndex(), [], {}
    with TestClient(create_app(settings, FakeEngine(), index)) as client:
        ledger = client.app.state.services.ledger  # type: ignore[attr-defined]
        places = [*(folder / os.fsdecode(name) for name in HOSTILE), outside / "hidden.png"]
        for number, path in enumerate(places, 1):
            path.parent.mkdir(exist_ok=True)
            data = encoded(RED, (64, 40 + number))
            path.write_bytes(data)
            status = path.stat()
            record = FileRecord(str(path), status.st_size, status.st_mtime_ns, image_id_of(data), "done", 1)
            ledger.record([record])
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            points.append(point(number, RED, image_id=image_id_of(data), path=shown, taken_at=f"20{number:02}-01-01"))
            contents[str(path)] = data
        index.upsert(points)
        index.upsert([point(99, BLUE)])
        yield World(client, index, folder, points, contents, points[-1])


def rows_of(response: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(response.content.decode("utf-8-sig"), newline="")))


# --- each format


def test_csv_and_json_have_a_row_for_each_match(world: World) -> None:
    table, array = rows_of(world.get("csv")), json.loads(world.get("json").content)
    assert {row["path"] for row in table} == {one.payload.path for one in world.points}
    assert [row["face_id"] for row in table] == [row["face_id"] for row in array]


def test_paths_are_the_real_bytes_of_the_names(world: World) -> None:
    lines = world.get("paths").content.splitlines()
    assert len(lines) == len(set(lines)) >= len(world.contents)
    for path in map(os.fsencode, world.contents):
        line = b'"' + path.replace(b"\n", b"\\n") + b'"' if b"\n" in path else path
        assert line in lines


def test_a_zip_has_the_originals_and_names_what_may_not_be_shown(world: World) -> None:
    archive = zipfile.ZipFile(io.BytesIO(world.get("zip").content))
    assert archive.testzip() is None
    shown = [data for path, data in world.contents.items() if path != world.hidden.payload.path]
    found = {name: archive.read(name) for name in archive.namelist()}
    note = found.pop("not-included.txt").decode()
    assert sorted(found.values()) == sorted(shown)
    assert note.startswith(f"{world.hidden.payload.path}: ")
    assert note.count("\n") == 1


def test_previews_are_jpeg_files(world: World) -> None:
    archive = zipfile.ZipFile(io.BytesIO(world.get("previews").content))
    assert archive.testzip() is None
    pictures = [name for name in archive.namelist() if name != "not-included.txt"]
    assert len(pictures) == len(HOSTILE)
    assert {Image.open(archive.open(name)).format for name in pictures} == {"JPEG"}
    assert all(name.endswith(".jpg") for name in pictures)


def test_a_contact_sheet_is_a_pdf_in_the_language_of_the_page(world: World) -> None:
    (page,) = PdfReader(io.BytesIO(world.get("pdf").content)).pages
    text = page.extract_text()
    assert "hidden.png" in text
    spanish = world.client.get(
        f"/face/{world.face_id}/export", params={"format": "pdf"}, headers={"Accept-Language": "es"}
    )
    assert PdfReader(io.BytesIO(spanish.content)).pages[0].extract_text() != text


@pytest.mark.parametrize(
    ("kind", "end", "media_type"),
    [
        ("csv", "csv", "text/csv; charset=utf-8"),
        ("json", "json", "application/json"),
        ("paths", "txt", "text/plain; charset=utf-8"),
        ("zip", "zip", "application/zip"),
        ("previews", "zip", "application/zip"),
        ("pdf", "pdf", "application/pdf"),
    ],
)
def test_an_export_is_a_download_that_no_cache_keeps(world: World, kind: str, end: str, media_type: str) -> None:
    response = world.get(kind)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == media_type
    assert response.headers["Cache-Control"] == "no-store"
    disposition = response.headers["Content-Disposition"]
    assert disposition.startswith('attachment; filename="oceano-20')
    assert disposition.endswith(f'.{end}"')


def test_the_name_of_a_download_says_what_is_in_it(world: World) -> None:
    kinds = ("csv", "json", "paths", "zip", "previews", "pdf")
    names = [world.get(kind).headers["Content-Disposition"].split('"')[1] for kind in kinds]
    assert all(re.match(r"oceano-\d{4}-\d\d-\d\d-\d{6}-", name) for name in names)
    assert [name.split("-", 5)[5] for name in names] == [
        "table.csv", "matches.json", "paths.txt", "originals.zip", "previews.zip", "contact-sheet.pdf",
    ]  # fmt: skip


def test_a_contact_sheet_says_who_was_searched_for_and_the_filters(world: World) -> None:
    plain = PdfReader(io.BytesIO(world.get("pdf").content)).pages[0]
    assert "Matches of this person" in plain.extract_text()
    assert "Filters" not in plain.extract_text()
    some = PdfReader(io.BytesIO(world.get("pdf", id=world.points[1].face_id).content)).pages[0]
    assert "1 selected photograph" in some.extract_text()
    token = encode_query(Query(world.points[0].embedding, FAKE_PACK.threshold), FAKE_PACK.digest)
    crop = base64.b64encode(encoded(RED, (50, 50), kind="JPEG")).decode()
    sent = {
        "format": "pdf",
        "query": token,
        "crop": crop,
        "from": "2003",
        "to": "2005",
        "least": "0.5",
        "sort": "newest",
    }
    sheet = world.client.post("/export", data=sent, headers={"Accept-Language": "es"})
    page = PdfReader(io.BytesIO(sheet.content)).pages[0]
    text = " ".join(page.extract_text().split())
    assert "Filtros: 2003 \N{EN DASH} 2005; Similitud desde 0,50; Más recientes" in text
    assert "(1,00)" in text
    assert (50, 50) in [one.image.size for one in page.images if one.image]
    wrong = world.client.post("/export", data=sent | {"crop": "PHN2Zz4="})
    assert wrong.status_code == 400


# --- what is exported


@pytest.mark.parametrize("kind", ["csv", "zip"])
def test_only_the_selected_matches_are_exported(world: World, kind: str) -> None:
    ids = [world.points[2].face_id, world.points[4].face_id]
    response = world.get(kind, id=ids)
    if kind == "csv":
        assert {row["face_id"] for row in rows_of(response)} == set(ids)
    else:
        names = zipfile.ZipFile(io.BytesIO(response.content)).namelist()
        assert len(names) == 2
        assert "not-included.txt" not in names


def test_a_selected_face_that_is_no_match_is_left_out(world: World) -> None:
    assert rows_of(world.get("csv", id=point(99, BLUE).face_id)) == []


def test_the_filters_and_the_order_are_those_of_the_page(world: World) -> None:
    rows = rows_of(world.get("csv", **{"from": "2003", "to": "2005", "sort": "newest"}))
    assert [row["taken_at"] for row in rows] == ["2005-01-01", "2004-01-01", "2003-01-01"]


@pytest.mark.parametrize("kind", ["csv", "paths", "json", "zip", "pdf"])
def test_no_match_is_an_empty_file(world: World, kind: str) -> None:
    response = world.get(kind, **{"from": "1950", "to": "1951"})
    assert response.status_code == 200
    if kind == "zip":
        assert zipfile.ZipFile(io.BytesIO(response.content)).namelist() == []
    elif kind == "pdf":
        assert len(PdfReader(io.BytesIO(response.content)).pages) == 1
    else:
        assert response.content.count(b"\n") <= 1


def test_an_estimate_counts_what_an_archive_would_have(world: World) -> None:
    all_of_them = world.get("zip", estimate="1").json()
    assert all_of_them["text"].startswith(f"{len(HOSTILE)} ")
    assert all_of_them["files"] == len(HOSTILE)
    one = world.get("zip", estimate="1", id=world.points[0].face_id).json()
    size = len(world.contents[world.points[0].payload.path])
    assert (one["files"], one["bytes"]) == (1, size)
    assert one["text"].startswith("1 ")
    assert f"{size} bytes" in one["text"]
    previews = world.get("previews", estimate="1").json()
    assert (previews["files"], previews["bytes"]) == (len(HOSTILE), None)


def test_photographs_that_were_sent_are_exported_by_their_token(world: World) -> None:
    token = encode_query(Query(world.points[0].embedding, FAKE_PACK.threshold), FAKE_PACK.digest)
    response = world.client.post("/export", data={"query": token, "format": "csv", "id": world.points[1].face_id})
    assert [row["face_id"] for row in rows_of(response)] == [world.points[1].face_id]
    without = world.client.post("/export", data={"query": token, "format": "csv", "not": world.face_id})
    assert rows_of(without) == []


def test_many_matches_are_sent_in_order_and_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [point(10_000 + number, GREEN, taken_at=f"{1000 + number}-01-01") for number in range(1300)]
    world.index.upsert(many)
    read: list[int] = []
    retrieve = MemoryIndex.retrieve

    def counted(self: MemoryIndex, face_ids: Any, **how: Any) -> Any:
        read.append(len(face_ids))
        return retrieve(self, face_ids, **how)

    monkeypatch.setattr(MemoryIndex, "retrieve", counted)
    rows = rows_of(
        world.client.get(f"/face/{many[0].face_id}/export", params={"format": "csv", "sort": "oldest", "from": "1000"})
    )
    assert [row["taken_at"] for row in rows] == [one.payload.taken_at for one in many]
    plain = rows_of(world.client.get(f"/face/{many[0].face_id}/export", params={"format": "csv"}))
    assert {row["face_id"] for row in plain} == {one.face_id for one in many}
    assert len(plain) == len(many)
    assert max(read) <= 1000  # at a time, however many there are


def test_many_rows_are_sent_in_few_parts() -> None:
    closed = []

    def lines() -> Iterator[bytes]:
        try:
            for number in range(100_000):
                yield b"%06d\n" % number
        finally:
            closed.append(True)

    parts = list(_blocks(lines()))
    assert b"".join(parts) == b"".join(b"%06d\n" % number for number in range(100_000))
    assert len(parts) == 3
    left = _blocks(lines())
    assert next(left)
    left.close()  # type: ignore[attr-defined]
    assert closed == [True, True]


# --- errors


@pytest.mark.parametrize("kind", ["xml", "CSV", "../zip"])
def test_an_unknown_format_is_400(world: World, kind: str) -> None:
    response = world.get(kind)
    assert response.status_code == 400
    assert "Content-Disposition" not in response.headers


def test_an_unknown_face_is_404_and_a_damaged_token_400(world: World) -> None:
    assert world.client.get(f"/face/{point(98).face_id}/export").status_code == 404
    assert world.client.get("/face/no-id/export").status_code in (400, 404)
    assert world.client.post("/export", data={"query": "damaged", "format": "csv"}).status_code == 400
    assert world.client.post("/export", data={"format": "csv"}).status_code == 400
    assert world.client.get("/kept/unknown/export").status_code == 404


@pytest.mark.parametrize("kind", ["csv", "json", "paths", "zip", "previews", "pdf"])
@pytest.mark.parametrize("sort", ["similarity", "newest"])
def test_an_index_that_fails_is_503_before_the_first_byte(
    world: World, kind: str, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OceanoError("index_unavailable", "the index is away")

    monkeypatch.setattr(MemoryIndex, "search_exact", fail)
    response = world.get(kind, sort=sort, least="0.41")
    assert response.status_code == 503
    assert "Content-Disposition" not in response.headers


@pytest.mark.parametrize("kind", ["zip", "previews"])
def test_a_ledger_that_fails_is_503_and_no_empty_archive(
    world: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OceanoError("ledger_unavailable", "the ledger is away")

    monkeypatch.setattr(type(world.client.app.state.services.ledger), "files_of", fail)  # type: ignore[attr-defined]
    response = world.get(kind)
    assert response.status_code == 503
    assert "Content-Disposition" not in response.headers
