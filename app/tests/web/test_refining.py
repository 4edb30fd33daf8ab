"""Filters of the result page: what is typed wrong, folders, sureness, persons together, and what an empty page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from app.core.config import Settings
from app.core.paths import folders_of
from app.core.types import FacePoint, Strangers
from app.main import create_app
from app.service import Services, bands_of
from tests.support.clients import TestClient
from tests.support.fakes import FAKE_PACK, FakeEngine, MemoryIndex
from tests.support.html import Element, elements
from tests.support.matches import ADA, BOB, stored

PACK = replace(FAKE_PACK, strangers=Strangers(0.05, 0.12, measured=True))
BANDS = bands_of(PACK, 100)
SIMILARITY = {
    "very_likely": BANDS.very_likely + 0.02,
    "likely": (BANDS.likely + BANDS.very_likely) / 2,
    "look_closely": (BANDS.threshold + BANDS.likely) / 2,
}
PLACES = ("/lib/2019/Paris", "/lib/2021/Paris", "/lib/Groups", "/lib/Groups/Small")
FETCH = {"X-Requested-With": "fetch"}


def face(number: int, similarity: float, folder: str, **payload: object) -> FacePoint:
    path = f"{folder}/{number:03d}.jpg"
    return stored(number, ADA, similarity, path=path, folder=folders_of(path), **payload)


def archive() -> list[FacePoint]:
    """Ada herself, 12 more faces of her in four folders and three bands, some dated; Bob beside her twice and alone."""
    points = [face(1, 1.0, PLACES[0])]
    for number in range(12):
        similarity = list(SIMILARITY.values())[number % 3]
        taken = f"2021-0{1 + number % 4}-01T10:00:00" if number < 5 else None
        points.append(face(10 + number, similarity, PLACES[number % 4], taken_at=taken))
    for number in (1, 10):
        points.append(stored(number, BOB, 0.9, place=1, path=points[0].payload.path, folder=("/", "/lib")))
    path = "/lib/Family/ñandú.jpg"
    points.append(stored(90, BOB, 0.9, path=path, folder=folders_of(path)))
    points.append(face(91, 0.3, PLACES[2]))  # below the threshold: perhaps somebody else
    return points


class Banded(FakeEngine):
    """Has a model with which a small index has all three surenesses."""

    pack = PACK


ADDRESS = f"/face/{archive()[0].face_id}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    index = MemoryIndex()
    index.upsert(archive())
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    with TestClient(create_app(settings, Banded(), index), follow_redirects=False) as client:
        yield client


@pytest.fixture
def client(running: TestClient) -> TestClient:
    running.cookies.clear()
    return running


def page(client: TestClient, address: str = ADDRESS, **fields: object) -> str:
    response = client.get(address, params=fields or None)  # type: ignore[arg-type]
    assert response.status_code == 200, response.text
    return response.text


def cards(html: str) -> list[str]:
    return [one.attributes["data-face-id"] for one in elements(html, "li", "data-face-id")]


def by_id(html: str, name: str) -> list[Element]:
    return [one for one in elements(html, attribute="id") if one.attributes["id"] == name]


def field(html: str, name: str) -> Element:
    return [one for one in elements(html, "input") if one.attributes.get("name") == name][-1]


# --- what is typed wrong


def test_a_part_of_a_name_offers_the_folders_beside_the_field_and_the_result_stays(client: TestClient) -> None:
    html = page(client, folder="par", clear="1")
    assert len(cards(html)) == 13
    (told,) = by_id(html, "folder-wrong")
    assert told.words == "“par” is in the names of several folders. Choose one: 2019/Paris 2021/Paris"
    shown = field(html, "folder")
    assert (shown.attributes["value"], shown.attributes["aria-invalid"]) == ("par", "true")
    assert shown.attributes["aria-describedby"] == "folder-wrong"
    links = [one.attributes["href"] for one in elements(html, "a", "href") if one.words == "2021/Paris"]
    assert parse_qs(urlsplit(links[0]).query) == {"clear": ["1"], "folder": ["/lib/2021/Paris"]}
    assert len(cards(page(client, links[0]))) == 3


@pytest.mark.parametrize(
    ("typed", "folder"),
    [("GROUPS", "/lib/Groups"), ("fam", "/lib/Family"), ("2019/paris", PLACES[0]), ("sma", PLACES[3])],
)
def test_a_text_that_names_one_folder_is_that_folder(client: TestClient, typed: str, folder: str) -> None:
    html = page(client, folder=typed)
    assert by_id(html, "folder-wrong") == []
    assert folder in [
        one.attributes["value"] for one in elements(html, "input", "value") if one.attributes["name"] == "folder"
    ]
    assert cards(html) == cards(page(client, folder=folder))


def test_an_unknown_folder_is_told_with_similar_ones(client: TestClient) -> None:
    html = page(client, folder="Gruops")
    (told,) = by_id(html, "folder-wrong")
    assert told.words == "No folder with photographs is called “Gruops”. Similar ones: Groups"
    html = page(client, folder=["/lib/nowhere", PLACES[0]], lang="es")
    assert by_id(html, "folder-wrong")[0].words.startswith("Ninguna carpeta con fotografías se llama «/lib/nowhere».")
    assert cards(html) == cards(page(client, folder=PLACES[0]))


def test_from_later_than_to_is_told_beside_the_fields_in_both_languages(client: TestClient) -> None:
    html = page(client, **{"from": "2021-03", "to": "2021-02", "folder": PLACES[1]})
    assert cards(html) == cards(page(client, folder=PLACES[1]))
    assert [one.words for one in by_id(html, "date-wrong")] == ["“From” is later than “To”."]
    assert [field(html, name).attributes["value"] for name in ("from", "to")] == ["2021-03", "2021-02"]
    assert [field(html, name).attributes["aria-invalid"] for name in ("from", "to")] == ["true", "true"]
    spanish = page(client, **{"from": "2021-03", "to": "2021-02", "lang": "es"})
    assert by_id(spanish, "date-wrong")[0].words == "«Desde» es posterior a «Hasta»."


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("from", "20", "“20” is not a date."), ("min_face", "0", "1 to 10000"), ("least", "2", "“2” is not a similarity")],
)
def test_a_number_or_date_that_is_none_is_told_and_left_out(
    client: TestClient, name: str, value: str, told: str
) -> None:
    html = page(client, **{name: value})
    assert told in " ".join(one.words for one in elements(html, of_class="wrong"))
    assert len(cards(html)) == 13


def test_other_fields_that_are_wrong_say_which_in_spanish(client: TestClient) -> None:
    response = client.get(ADDRESS, params={"sort": "size", "lang": "es"})
    assert response.status_code == 400
    assert "El campo sort tiene un valor no permitido: size." in response.text


def test_the_address_of_photographs_in_the_browser_and_counts_read_the_same_filters(client: TestClient) -> None:
    assert (
        client.get("/search/abcdef0123456789", params={"folder": "par", "from": "2022", "to": "2021"}).status_code
        == 200
    )
    counts = client.get(f"{ADDRESS}/facets", params={"folder": "fam"}, headers=FETCH).text
    assert ">0 matches<" in counts


# --- folders


def test_a_folder_counts_the_matches_that_its_filter_shows_and_parents_are_suggested(client: TestClient) -> None:
    html = page(client, facets="1")
    links = elements(html, of_class="folder-link")
    assert [one.words for one in links] == ["Groups 6", "2019/Paris 4", "2021/Paris 3", "Small 3"]
    for link in links:
        count = int(link.words.split()[-1])
        assert len(cards(page(client, link.attributes["href"]))) == count
    suggested = [one.attributes["value"] for one in elements(html, "option") if "label" in one.attributes]
    assert {"/lib/2019", "/lib/2021", *PLACES} == set(suggested)


def test_cards_and_chips_tell_folders_of_one_name_apart(client: TestClient) -> None:
    html = page(client)
    assert {one.words for one in elements(html, of_class="card-title")} == {
        "2019/Paris",
        "2021/Paris",
        "Groups",
        "Small",
    }
    alone = page(client, folder=PLACES[1])
    assert {one.words for one in elements(alone, of_class="card-title")} == {"Paris"}
    assert [one.words for one in elements(alone, of_class="chip")] == ["2021/Paris ×"]


# --- sureness


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        (["look_closely"], 4),
        (["likely"], 4),
        (["very_likely"], 5),
        (["very_likely", "look_closely"], 9),
        (["likely", "look_closely"], 8),
        (["look_closely", "likely", "very_likely"], 13),
    ],
)
@pytest.mark.parametrize("sort", ["similarity", "oldest"])
def test_any_combination_of_surenesses_is_shown_and_counted(
    client: TestClient, chosen: list[str], count: int, sort: str
) -> None:
    html = page(client, sureness=chosen, sort=sort, facets="1")
    shown = [
        one.attributes["class"].rpartition("sureness-")[2]
        for one in elements(html, "span", "title")
        if "sureness" in one.attributes.get("class", "")
    ]
    assert (len(shown), set(shown)) == (count, set(chosen))
    assert elements(html, of_class="count")[0].words == f"{count} matches"
    ticks = elements(html, of_class="tick-link")
    assert [(one.attributes["data-pressed"], int(re.sub(r"\D", "", one.words))) for one in ticks] == [
        (str(name in chosen).lower(), n) for name, n in (("very_likely", 5), ("likely", 4), ("look_closely", 4))
    ]
    rest = client.post(f"/faces/{archive()[0].face_id}/search", data={"sureness": ",".join(chosen), "sort": sort})
    matches = rest.json()["combined"]["matches"]
    assert {one["face_id"] for one in matches} == set(cards(html))
    assert {one["sureness"] for one in matches} == set(chosen)


def test_a_tick_changes_only_its_own_sureness_and_the_last_one_stays(client: TestClient) -> None:
    ticks = elements(page(client), of_class="tick-link")
    asked = [parse_qs(urlsplit(one.attributes["href"]).query)["sureness"] for one in ticks]
    assert asked == [["likely", "look_closely"], ["very_likely", "look_closely"], ["very_likely", "likely"]]
    ticks = elements(page(client, sureness="likely"), of_class="tick-link")
    assert [one.tag for one in ticks] == ["a", "span", "a"]
    ticks = elements(page(client, sureness=["likely", "look_closely"]), of_class="tick-link")
    assert ticks[0].attributes["href"] == ADDRESS, "all three are no filter"


def test_an_unknown_sureness_is_refused(client: TestClient) -> None:
    assert client.get(ADDRESS, params={"sureness": "perhaps"}).status_code == 400
    response = client.post(f"/faces/{archive()[0].face_id}/search", data={"sureness": "perhaps"})
    assert "very_likely, likely, look_closely" in response.json()["error"]["message"]


def test_pages_of_a_sureness_have_every_match_once_although_the_index_grows(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = MemoryIndex()
    points = [face(n, 0.46 + n / 1000, PLACES[0]) for n in range(150)]
    index.upsert([face(999, 1.0, PLACES[0]), *points])
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    with TestClient(create_app(settings, Banded(), index)) as client:
        address = f"/face/{face(999, 1.0, PLACES[0]).face_id}"
        first = page(client, address, sureness=["likely", "look_closely"])
        before = bands_of(PACK, 151)
        later = replace(before, likely=before.likely + 0.03, very_likely=before.very_likely + 0.03)
        monkeypatch.setattr(Services, "bands", property(lambda _: later))
        (more,) = elements(first, "a", "data-more")
        asked = parse_qs(urlsplit(more.attributes["href"]).query)
        assert asked["bands"] == [f"{before.likely:.6g},{before.very_likely:.6g}"]
        second = page(client, more.attributes["href"])
    found = cards(first) + cards(second)
    expected = {one.face_id for n, one in enumerate(points) if 0.46 + n / 1000 < before.very_likely}
    assert (len(found), set(found)) == (len(expected), expected)


# --- persons together


def test_a_match_that_is_the_person_searched_for_is_not_offered_as_a_second_person(client: TestClient) -> None:
    assert "Together with this person" not in page(client)
    html = page(client, least="0.2")
    assert (len(cards(html)), html.count("Together with this person")) == (14, 1)


def test_the_photograph_offers_the_others_together_with_the_person_searched_for(client: TestClient) -> None:
    ada, bob = archive()[0], archive()[13]
    origin = f"{ADDRESS}?clear=1&after=abc&bands=0.5%2C0.6"
    html = page(client, f"/photo/{ada.payload.image_id}", face=ada.face_id, **{"from": origin})
    (offered,) = [one for one in elements(html, of_class="people-together") if "/naming" not in one.attributes["href"]]
    address = urlsplit(offered.attributes["href"])
    assert (address.path, parse_qs(address.query)) == (ADDRESS, {"clear": ["1"], "with": [bob.face_id]})
    found = page(client, offered.attributes["href"])
    assert cards(found) == [ada.face_id, archive()[1].face_id]
    alone = elements(page(client, f"/photo/{ada.payload.image_id}"), of_class="people-together")
    assert [one for one in alone if "/naming" not in one.attributes["href"]] == []


def test_a_card_shows_the_face_of_the_other_person_too(client: TestClient) -> None:
    bob = archive()[13]
    html = page(client, **{"with": bob.face_id})
    shown = re.findall(r'class="card-others"><img src="/thumbs/([0-9a-f-]+)"', html)
    assert shown == [bob.face_id, archive()[14].face_id]


# --- what an empty page says


def test_an_empty_result_names_one_reason_and_counts_only_matches_without_a_date(client: TestClient) -> None:
    html = page(client, facets="1", **{"from": "2030"})
    (empty,) = elements(html, of_class="empty")
    assert empty.words == "No photograph meets all filters. Remove all filters"
    undated = len(cards(page(client, undated="1")))
    (link,) = [one for one in elements(html, "a", "href") if one.words.endswith("without a date")]
    assert link.words == f"Show {undated} without a date"
    assert len(cards(page(client, link.attributes["href"]))) == undated


def test_persons_who_are_never_together_have_no_closest_similarity(client: TestClient) -> None:
    html = page(client, folder="/lib/2021", **{"with": archive()[13].face_id})
    assert "closest" not in elements(html, of_class="empty")[0].words


# --- groups


def test_persons_are_a_group_only_if_somebody_has_a_name(
    client: TestClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert "Best of each person" not in page(client)
    index = MemoryIndex()
    index.upsert([face(1, 1.0, PLACES[0], person="Ada")])
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    with TestClient(create_app(settings, Banded(), index)) as named:
        assert "Best of each person" in page(named)


def test_photographs_without_a_date_are_one_group_of_days(client: TestClient) -> None:
    html = page(client, group="day")
    assert elements(html, of_class="count")[0].words == "5 matches, the best of each day"
    (undated,) = [one for one in elements(html, of_class="group") if "Without a date" in one.words]
    assert undated.words == "Without a date All 8 matches"
    (link,) = [one for one in elements(html, "a", "href") if "Without a date" in one.attributes.get("aria-label", "")]
    assert len(cards(page(client, link.attributes["href"]))) == 8
