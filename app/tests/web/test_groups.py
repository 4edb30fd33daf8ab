"""Headings of groups on the result page: what they say, and where they lead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.types import FacePoint, face_id_of
from app.main import create_app
from tests.support.clients import TestClient
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.html import elements
from tests.support.pictures import point

NAMES = ("Ana <3", "Zoë", None)


def stored() -> list[FacePoint]:
    """240 matches: two faces on each of 120 photographs, which are named in turn, on 30 days or without a date."""
    points = []
    for number in range(1, 121):
        payload = {
            "path": f"/photos/{number:03d}.jpg",
            "taken_at": f"2021-05-{1 + number % 30:02d}T10:00:00" if number % 4 else None,
        }
        first = point(number, **payload)
        second = face_id_of(first.payload.image_id, FAKE_PACK.digest, 1)
        beside = replace(first.payload, bbox=(300.0, 2.0, 330.5, 40.25))
        points += [first, replace(first, face_id=second, payload=beside)]
    return points


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    index = MemoryIndex()
    index.upsert(stored())
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    with TestClient(create_app(settings, FakeEngine(), index), follow_redirects=False) as running:
        for name in filter(None, NAMES):
            of_name = [one.face_id for number, one in enumerate(stored()) if NAMES[(number // 2 + 1) % 3] == name]
            person = {"name": name, "face_ids": of_name, "same_image": True}
            assert running.post("/people", json=person).status_code == 200
        yield running


@pytest.fixture
def ana(client: TestClient) -> str:
    """The id of a person."""
    return str(client.get("/people", params={"name": "Ana"}).json()["people"][0]["id"])


@pytest.fixture
def address() -> str:
    return f"/face/{stored()[0].face_id}"


def shown(html: str) -> list[str]:
    return [one.attributes["data-face-id"] for one in elements(html, "li", "data-face-id")]


def headings(html: str) -> list[str]:
    return [one.words for one in elements(html, of_class="group")]


def test_a_photograph_is_named_counted_and_linked(client: TestClient, address: str) -> None:
    html = client.get(address, params={"group": "image"}).text
    assert len(headings(html)) == len(shown(html)) == 100
    assert set(headings(html)) <= {f"{number:03d}.jpg All 2 matches" for number in range(1, 121)}
    name = headings(html)[0].split()[0]
    image_id = f"{int(name[:3]):064x}"
    (photograph,) = [one for one in elements(html, "a") if one.words == name]
    assert photograph.attributes["href"].startswith(f"/photo/{image_id}?from=")
    assert client.get(photograph.attributes["href"]).status_code == 200


def test_the_link_of_a_group_shows_all_of_its_matches(client: TestClient, address: str) -> None:
    for group, label, count in (
        ("image", "All 2 matches: 001.jpg", 2),
        ("person", "All 80 matches: Ana <3", 80),
        ("day", "All 8 matches: 6 May 2021", 8),
    ):
        pages = [client.get(address, params={"group": group}).text]
        while following := elements(pages[-1], "a", "data-more"):
            pages.append(client.get(following[0].attributes["href"]).text)
        links = [one for html in pages for one in elements(html, "a") if one.attributes.get("aria-label") == label]
        assert len(links) == 1, group
        html = client.get(links[0].attributes["href"]).text
        assert len(shown(html)) == count
        assert headings(html) == []


def test_a_person_without_a_name_is_a_group_of_one_match(client: TestClient, address: str) -> None:
    html = client.get(address, params={"group": "person"}).text
    assert sorted(set(headings(html))) == ["Ana <3 All 80 matches", "No name yet 1 match", "Zoë All 80 matches"]
    spanish = client.get(address, params={"group": "person", "lang": "es"}).text
    client.cookies.clear()
    assert set(headings(spanish)) >= {"Aún sin nombre 1 coincidencia", "Zoë Las 80 coincidencias"}


def test_a_day_has_one_heading_in_every_order(client: TestClient, address: str) -> None:
    for order in ("similarity", "newest"):
        html = client.get(address, params={"group": "day", "sort": order}).text
        dated = [one for one in headings(html) if "2021" in one]
        assert "6 May 2021 All 8 matches" in dated
        assert len(dated) == len(set(dated))
        assert elements(html, of_class="day") == []


def test_pages_of_groups_have_every_group_once(client: TestClient, address: str) -> None:
    first = client.get(address, params={"group": "image"}).text
    (more,) = elements(first, "a", "data-more")
    second = client.get(more.attributes["href"]).text
    assert elements(second, "a", "data-more") == []
    found = [one.split()[0] for one in headings(first) + headings(second)]
    assert sorted(found) == [f"{number:03d}.jpg" for number in range(1, 121)]


def test_the_filter_of_a_group_is_a_chip_and_a_field_of_the_rail(client: TestClient, address: str, ana: str) -> None:
    html = client.get(address, params={"named": ana, "photo": f"{3:064x}"}).text
    assert len(shown(html)) == 2
    assert {one.words for one in elements(html, of_class="chip")} == {"One photograph ×", "Ana <3 ×"}
    kept = {
        one.attributes["name"]: one.attributes["value"]
        for one in elements(html, "input")
        if one.attributes.get("name") in ("named", "photo")
    }
    assert kept == {"named": ana, "photo": f"{3:064x}"}


@pytest.mark.parametrize(("name", "value"), [("photo", "x"), ("photo", "F" * 64), ("named", "Ana <3")])
def test_a_filter_of_a_group_that_names_nothing_is_400(client: TestClient, address: str, name: str, value: str) -> None:
    response = client.get(address, params={name: value})
    assert response.status_code == 400
    assert "invalid_request" in response.text


def test_a_name_with_hidden_signs_is_shown_escaped_and_copied_as_it_is(tmp_path: Path) -> None:
    folder = "/photos/\N{RIGHT-TO-LEFT ISOLATE}2021"
    name = "a\N{RIGHT-TO-LEFT OVERRIDE}gpj.\nexe\N{ZERO WIDTH JOINER}.jpg"
    index = MemoryIndex()
    index.upsert([point(1, path=f"{folder}/{name}", folder=("/", "/photos", folder))])
    settings = Settings(_env_file=None, data_dir=tmp_path)
    shown_name = "a\\u202egpj.\\nexe\N{ZERO WIDTH JOINER}.jpg"
    with TestClient(create_app(settings, FakeEngine(), index), follow_redirects=False) as running:
        person = {"name": "\N{LEFT-TO-RIGHT MARK}Zoë", "face_ids": [point(1).face_id]}
        assert running.post("/people", json=person).status_code == 200
        query = {"facets": "1", "folder": folder, "group": "image"}
        html = running.get(f"/face/{point(1).face_id}", params=query).text
        photo = running.get(f"/photo/{point(1).payload.image_id}").text
    assert headings(html) == [f"{shown_name} 1 match"]
    assert "\\u200eZoë" in html
    copied = [one.attributes["data-copy"] for page in (html, photo) for one in elements(page, "button", "data-copy")]
    assert copied == [f"{folder}/{name}"] * 2
    chip = next(one for one in elements(html, of_class="chip"))
    assert (chip.words, chip.attributes["aria-label"]) == ("photos/\\u20672021 ×", "Remove: /photos/\\u20672021")
    for page in (html, photo):
        left = {one.text for one in elements(page) if "\N{RIGHT-TO-LEFT OVERRIDE}" in one.text}
        assert left == set()


def test_a_named_person_together_with_someone_of_another_name_is_found(
    client: TestClient, address: str, ana: str
) -> None:
    companion = client.get(address, params={"named": ana, "with": stored()[2].face_id}).text
    assert len(shown(companion)) == 80
