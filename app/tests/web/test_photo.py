"""The page of a photograph, without a browser and without a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from app.core.types import face_id_of
from tests.support.clients import TestClient
from tests.support.fakes import FAKE_PACK
from tests.support.html import elements
from tests.support.library import Library, ingested_library
from tests.support.matches import like


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return ingested_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def running(ingested: Library) -> Iterator[TestClient]:
    with ingested.client() as client:
        second = face_id_of(ingested.image_of("/a.jpg"), FAKE_PACK.digest, 1)
        assert client.post("/people", json={"name": "Ana <3", "face_ids": [second]}).status_code == 200
        yield client


@pytest.fixture
def library(ingested: Library, running: TestClient) -> Iterator[Library]:
    before = dict(ingested.index.points)
    yield ingested
    ingested.index.points = before


@pytest.fixture
def client(running: TestClient, library: Library) -> TestClient:
    running.cookies.clear()
    return running


def _links(html: str, name: str = "a") -> list[str]:
    return [one.attributes["href"] for one in elements(html, name, "href") if one.attributes["href"] != "#main"]


def test_the_page_shows_the_photograph_in_the_size_of_the_screen(library: Library, client: TestClient) -> None:
    image = library.image_of("/a.jpg")
    response = client.get(f"/photo/{image}")
    assert response.status_code == 200
    (picture,) = elements(response.text, "img", "data-photo")
    assert (picture.attributes["width"], picture.attributes["height"]) == ("1500", "1000")
    sources = [source.split() for source in picture.attributes["srcset"].split(",")]
    assert [width for _, width in sources] == ["640w", "1280w"]
    for address, width in sources:
        shown = client.get(address)
        assert shown.headers["content-type"] == "image/jpeg"
        assert parse_qs(urlsplit(address).query)["width"] == [width.removesuffix("w")]
    assert "a.jpg" in picture.attributes["alt"]


def test_every_face_is_outlined_and_leads_to_more_like_it(library: Library, client: TestClient) -> None:
    image = library.image_of("/a.jpg")
    html = client.get(f"/photo/{image}?face={library.face_of('/a.jpg')}").text
    (drawing,) = elements(html, "svg", "data-outlines")
    assert drawing.attributes["viewbox"] == "0 0 1500 1000"
    faces = [face_id_of(image, FAKE_PACK.digest, number) for number in (0, 1)]
    outlines = elements(html, "a", of_class="outline")
    assert [one.attributes["href"] for one in outlines] == [f"/face/{face}" for face in faces]
    assert [one.attributes["class"] for one in outlines] == ["outline is-chosen", "outline"]
    boxes = [[one.attributes[side] for side in ("x", "y", "width", "height")] for one in elements(html, "rect")]
    assert boxes[-2:] == [["375.0", "250.0", "750.0", "500.0"], ["1200.0", "100.0", "100.0", "120.0"]]
    assert [one.words for one in elements(html, "title")][1:] == ["Face 1", "Ana <3"]
    assert [one.words for one in elements(html, "text")] == ["1", "2"]  # as in the list, and in a search
    assert elements(client.get(f"/photo/{library.image_of('/c.jpg')}").text, "text") == []
    for face in faces:
        assert client.get(f"/face/{face}").status_code == 200


def test_all_files_of_the_photograph_are_listed_with_camera_and_date(library: Library, client: TestClient) -> None:
    html = client.get(f"/photo/{library.image_of('/a.jpg')}").text
    paths = [one.attributes["data-copy"] for one in elements(html, "button", "data-copy")]
    assert paths == [str(library.folder / "2019 wedding/a.jpg"), str(library.folder / "copies/a again.jpg")]
    (when,) = elements(html, "time")
    assert when.attributes["datetime"].startswith("2019-06-10T10:42")
    assert when.words == "10 Jun 2019, 10:42"
    facts = " ".join(one.words for one in elements(html, "dd"))
    assert "1500 × 1000 pixels" in facts
    assert re.search(r"\d+ kB", facts)
    assert "Canon EOS 5D" in facts


def test_the_original_can_be_opened_and_downloaded(library: Library, client: TestClient) -> None:
    image = library.image_of("/a.jpg")
    html = client.get(f"/photo/{image}").text
    original = (library.folder / "2019 wedding/a.jpg").read_bytes()
    files = [address for address in _links(html) if address.startswith(f"/images/{image}/file")]
    assert len(files) == 2
    for address in files:
        assert client.get(address).content == original
    assert "attachment" in client.get(files[1]).headers["content-disposition"]


def test_neighbours_in_the_folder_and_in_time_keep_the_way_back(library: Library, client: TestClient) -> None:
    back = f"/face/{library.face_of('/a.jpg')}?folder=%2Fp&size=l"
    html = client.get(f"/photo/{library.image_of('b <b>.jpg')}", params={"from": back}).text
    near = elements(html, of_class="near")
    assert [one.words for one in near] == ["Previousa.jpg Nextc.jpg", "Earliera.jpg Laterc.jpg"]
    pictures = [one.attributes for one in elements(html, "img", "src") if "/preview?width=640" in one.attributes["src"]]
    before, after = (f"/images/{library.image_of(name)}/preview?width=640" for name in ("/a.jpg", "/c.jpg"))
    assert [one["src"] for one in pictures if one.get("loading") == "lazy"] == [before, after] * 2
    links = [address for address in _links(html) if "lang=" not in address]
    around = [address for address in links if address.startswith("/photo/")]
    assert len(around) == 6  # the two arrows and four neighbours
    images = [urlsplit(address).path.removeprefix("/photo/") for address in around]
    assert images[2:] == [library.image_of("/a.jpg"), library.image_of("/c.jpg")] * 2
    assert {tuple(parse_qs(urlsplit(address).query)["from"]) for address in around} == {(back,)}
    assert back in _links(html)


def test_a_name_from_a_disk_is_no_markup(library: Library, client: TestClient) -> None:
    html = client.get(f"/photo/{library.image_of('b <b>.jpg')}").text
    assert "b &lt;b&gt;.jpg" in html
    assert "b <b>.jpg" not in html


def test_why_a_photograph_is_in_a_result_of_a_face_is_said_in_a_word_with_both_crops(
    library: Library, client: TestClient
) -> None:
    start, found = library.face_of("/a.jpg"), library.face_of("/c.jpg")
    other = library.index.points[found]
    library.index.points[found] = replace(other, embedding=library.index.points[start].embedding)
    html = client.get(f"/photo/{library.image_of('/c.jpg')}?face={found}&from=/face/{start}").text
    (word,) = elements(html, of_class="sureness")
    assert word.words == "Very likely"
    assert f"/help/similarity?s=1.00&a={start}&b={found}" in _links(html)
    (pair,) = [html[html.index('class="pair"') :].partition("</div>")[0]]
    assert [one.attributes["src"] for one in elements(pair, "img")] == [f"/thumbs/{start}", f"/thumbs/{found}"]


def test_the_similarity_of_the_hit_is_the_one_that_the_result_showed(library: Library, client: TestClient) -> None:
    start, found = library.face_of("/a.jpg"), library.face_of("/c.jpg")
    for origin in (f"/face/{start}", "/search/0123456789abcdef"):
        html = client.get(f"/photo/{library.image_of('/c.jpg')}?face={found}&s=0.95&from={origin}").text
        assert [one.words for one in elements(html, of_class="sureness")] == ["Very likely"]
        assert ">0.95</a>" in html
    assert elements(html, "img", "data-searched")  # the browser has the crop


@pytest.mark.parametrize("told", ["1.01", "9.99", "nan", "0.5", "-0.50", "0.50<b>"])
def test_a_similarity_that_no_result_shows_is_not_believed(library: Library, client: TestClient, told: str) -> None:
    query = {"face": library.face_of("/c.jpg"), "s": told, "from": "/search/0123456789abcdef"}
    html = client.get(f"/photo/{library.image_of('/c.jpg')}", params=query).text
    assert elements(html, of_class="sureness") == []


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com/",
        "//example.com/face/",
        "/face//example.com",
        "/kept/..//example.com",
        "/face/a\\b",
        "javascript:1",
        "/photo/x",
    ],
)
def test_the_way_back_leads_only_to_results(library: Library, client: TestClient, origin: str) -> None:
    html = client.get(f"/photo/{library.image_of('/c.jpg')}", params={"from": origin}).text
    assert elements(html, "a", "data-back") == []
    assert all(address.startswith("/") for address in _links(html))


def _alike(html: str) -> str:
    return html.partition('<section id="alike"')[2].partition("</section>")[0]


def test_near_identical_photographs_are_shown(library: Library, client: TestClient) -> None:
    image = library.image_of("/a.jpg")
    assert "near-identical" not in client.get(f"/photo/{image}").text
    first = library.index.points[library.face_of("/a.jpg")]
    twin = replace(first.payload, image_id="7" * 64, path="/elsewhere/a small.jpg")
    twin_face = face_id_of("7" * 64, FAKE_PACK.digest, 0)
    blurred = like(first.embedding, 0.6, 1)  # of a small copy, still the same person
    library.index.upsert([replace(first, face_id=twin_face, payload=twin, embedding=blurred)])
    html = client.get(f"/photo/{image}").text
    assert "1 near-identical photograph" in html
    (link,) = elements(_alike(html), "a", "href")
    assert link.attributes["href"] == f"/photo/{'7' * 64}"
    assert link.words == "a small.jpg10 Jun 2019 · elsewhere"
    assert f"/thumbs/{twin_face}" in html, "its file is not known, so it cannot be shown"
    body = client.get(f"/images/{image}").json()
    grouped = client.post(f"/faces/{first.face_id}/search", data={"group_by": "alike"}).json()["combined"]["matches"]
    assert body["alike"] == ["7" * 64]
    assert [(one["face_id"], one["group_size"]) for one in grouped] == [(first.face_id, 2)]


def test_a_near_identical_photograph_is_shown_whole(library: Library, client: TestClient) -> None:
    image, other = library.image_of("/a.jpg"), library.image_of("/c.jpg")
    first = library.index.points[library.face_of("/a.jpg")]
    face = library.face_of("/c.jpg")
    known = library.index.points[face]
    payload = replace(known.payload, phash=first.payload.phash)
    library.index.points[face] = replace(known, embedding=first.embedding, payload=payload)
    html = client.get(f"/photo/{image}").text
    assert f'src="/images/{other}/preview?width=640"' in _alike(html)


def test_a_photograph_whose_file_is_gone_says_where_it_was(library: Library, client: TestClient) -> None:
    image, face = library.image_of("/c.jpg"), library.face_of("/c.jpg")
    gone = library.folder / "2019 wedding/c.jpg"
    gone.rename(library.folder / "away")
    response = client.get(f"/photo/{image}")
    (library.folder / "away").rename(gone)
    assert response.status_code == 200
    assert f"It was {gone}" in " ".join(response.text.split())
    assert elements(response.text, "img", "data-photo") == []
    assert not any("/images/" in address for address in _links(response.text))
    assert f"/thumbs/{face}" in [one.attributes["src"] for one in elements(response.text, "img", "src")]


def test_a_photograph_outside_the_folders_that_may_be_shown_names_the_setting(library: Library) -> None:
    with library.client(library_roots=(library.folder / "copies",)) as client:
        hidden = client.get(f"/photo/{library.image_of('/c.jpg')}").text
        assert "LIBRARY_ROOTS" in hidden
        assert elements(hidden, "img", "data-photo") == []
        shown = client.get(f"/photo/{library.image_of('/a.jpg')}").text  # its copy is in a folder that may be shown
        assert elements(shown, "img", "data-photo")


@pytest.mark.parametrize("image", ["0" * 64, "no-id", "..%2F..%2Fetc%2Fpasswd"])
def test_an_unknown_photograph_is_a_page_that_says_so(client: TestClient, image: str) -> None:
    response = client.get(f"/photo/{image}", headers={"Accept": "text/html"})
    assert response.status_code == 404
    assert response.headers["content-type"].startswith("text/html")


def test_the_page_speaks_spanish(library: Library, client: TestClient) -> None:
    html = client.get(f"/photo/{library.image_of('/a.jpg')}?lang=es").text
    assert "Descargar" in html
    assert "Download" not in html
