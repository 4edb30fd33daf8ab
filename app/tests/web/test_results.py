"""The result page as HTML: of an indexed face, of photographs, and of tokens; without a browser, without a model."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from app.core.config import Settings
from app.core.types import Face, FacePoint, Picture
from app.main import create_app
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import Element, elements, fields_of
from tests.support.pictures import BLACK, BLUE, GREEN, RED, encoded, point

FETCH = {"X-Requested-With": "fetch"}
PLACES = ("/photos/2019 wedding", "/photos/2021 beach")


class SideBySide(FakeEngine):
    """Sees a face in the left and one in the right half of a picture that is wider than twice its height."""

    def analyze(self, pictures: Sequence[Picture], timings: dict[str, float] | None = None) -> list[list[Face]]:
        return [self._both(picture) for picture in pictures]

    def _both(self, picture: Picture) -> list[Face]:
        half = picture.width // 2
        if picture.width <= 2 * picture.height:
            return self._faces(picture)
        halves = [picture.pixels[:, :half], picture.pixels[:, half:]]
        found = []
        for place, pixels in enumerate(halves):
            for face in self._faces(replace(picture, pixels=np.ascontiguousarray(pixels), width=half)):
                x1, y1, x2, y2 = face.bbox
                grown = 2 * place  # the right one is larger
                box = (x1 + place * half - grown, y1 - grown, x2 + place * half + grown, y2 + grown)
                found.append(replace(face, bbox=box))
        return found


def both(left: tuple[int, int, int], right: tuple[int, int, int]) -> bytes:
    picture = Image.new("RGB", (300, 100), left)
    picture.paste(Image.new("RGB", (150, 100), right), (150, 0))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def stored() -> list[FacePoint]:
    """130 photographs of the red person, 5 of the green one, who is in 3 of them together with the red one."""
    points = [
        point(
            number,
            RED,
            path=f"{PLACES[number % 2]}/{number:03d}.jpg",
            folder=("/", "/photos", PLACES[number % 2]),
            taken_at=f"{2019 + 2 * (number % 2)}-05-{1 + number % 28:02d}T10:00:00" if number % 10 else None,
            flaws=("blurred",) if number % 5 == 0 else (),
        )
        for number in range(1, 131)
    ]
    points += [point(number, GREEN, path=f"/photos/green/{number}.jpg") for number in (201, 202)]
    for number in (1, 2, 3):
        other = point(300 + number, GREEN, path=points[number - 1].payload.path)
        points.append(replace(other, payload=replace(other.payload, image_id=points[number - 1].payload.image_id)))
    return points


@pytest.fixture(scope="module")
def points() -> list[FacePoint]:
    return stored()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, points: list[FacePoint]) -> Iterator[TestClient]:
    index = MemoryIndex()
    index.upsert(points)
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    with TestClient(create_app(settings, SideBySide(), index), follow_redirects=False) as client:
        yield client


@pytest.fixture
def client(running: TestClient) -> TestClient:
    running.cookies.clear()
    return running


@pytest.fixture
def face(points: list[FacePoint]) -> str:
    return points[0].face_id


def cards(html: str) -> list[str]:
    return [one.attributes["data-face-id"] for one in elements(html, "li", "data-face-id")]


def link(html: str, words: str) -> str:
    """The address of the link with these words, or this name for readers."""
    (found,) = [one for one in elements(html, "a", "href") if words in (one.words, one.attributes.get("aria-label"))]
    return found.attributes["href"]


def of_class(html: str, name: str) -> list[Element]:
    return elements(html, of_class=name)


# --- a result is an address


def test_a_face_has_a_result_page_that_needs_no_script(client: TestClient, face: str) -> None:
    response = client.get(f"/face/{face}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    shown = cards(response.text)
    assert len(shown) == len(set(shown)) == 100
    assert of_class(response.text, "count")[0].words == "100+ matches"
    (form,) = [one for one in elements(response.text, "form") if one.attributes.get("id") == "rail"]
    assert (form.attributes["method"], form.attributes["action"]) == ("get", f"/face/{face}")


def test_links_lead_from_page_to_page_until_the_last_match(
    client: TestClient, face: str, points: list[FacePoint]
) -> None:
    first = client.get(f"/face/{face}").text
    (more,) = elements(first, "a", "data-more")
    second = client.get(more.attributes["href"]).text
    assert elements(second, "a", "data-more") == []
    seen = cards(first) + cards(second)
    assert len(seen) == len(set(seen)) == 130
    assert set(seen) == {one.face_id for one in points[:130]}
    assert "Matches 101 to 130" in second


def test_every_link_of_a_filter_keeps_the_others(client: TestClient, face: str) -> None:
    html = client.get(f"/face/{face}", params={"folder": PLACES[0], "clear": "1", "sort": "newest"}).text
    (chip,) = [one for one in of_class(html, "chip") if one.attributes["aria-label"] == "Remove: Only clear faces"]
    query = parse_qs(urlsplit(chip.attributes["href"]).query)
    assert query == {"folder": [PLACES[0]], "sort": ["newest"]}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"folder": PLACES[0]}, lambda number: number % 2 == 0),
        ({"clear": "1"}, lambda number: number % 5 != 0),
        ({"from": "2021", "to": "2021"}, lambda number: number % 2 == 1 and number % 10 != 0),
        ({"undated": "1"}, lambda number: number % 10 == 0),
    ],
)
def test_a_filter_shows_what_meets_it(
    client: TestClient,
    face: str,
    points: list[FacePoint],
    filters: dict[str, str],
    expected: object,
) -> None:
    assert callable(expected)
    wanted = {one.face_id for number, one in enumerate(points[:130], 1) if expected(number)}
    html = client.get(f"/face/{face}", params=filters).text
    more = elements(html, "a", "data-more")
    shown = cards(html) + (cards(client.get(more[0].attributes["href"]).text) if more else [])
    assert set(shown) == wanted


def test_only_photographs_of_both_persons_are_shown(client: TestClient, face: str, points: list[FacePoint]) -> None:
    green = points[130].face_id
    html = client.get(f"/face/{face}", params={"with": green}).text
    assert set(cards(html)) == {one.face_id for one in points[:3]}
    assert of_class(html, "count")[0].words == "3 matches"


def test_who_resembles_another_person_more_is_left_out(client: TestClient, face: str, points: list[FacePoint]) -> None:
    html = client.get(f"/face/{face}", params={"not": points[1].face_id}).text
    assert cards(html) == []
    assert "No photograph meets all filters." in html


def test_a_list_by_time_has_headings(client: TestClient, face: str) -> None:
    html = client.get(f"/face/{face}", params={"sort": "newest"}).text
    headings = [one.words for one in of_class(html, "day")]
    assert headings[0] == "28 May 2021"
    assert len(headings) == len(set(headings))
    assert of_class(client.get(f"/face/{face}").text, "day") == []


def test_a_face_that_is_not_in_the_index_is_explained(client: TestClient) -> None:
    for wrong in ("00000000-0000-5000-8000-000000000000", "x", "%00"):
        response = client.get(f"/face/{wrong}")
        assert response.status_code == 404
        assert response.headers["content-type"].startswith("text/html")
    assert "face_unknown" in client.get("/face/x").text
    assert "data-request-id" in client.get("/face/x").text


def test_a_position_of_another_result_is_refused(client: TestClient, face: str, points: list[FacePoint]) -> None:
    (more,) = elements(client.get(f"/face/{face}").text, "a", "data-more")
    after = parse_qs(urlsplit(more.attributes["href"]).query)["after"][0]
    response = client.get(f"/face/{points[130].face_id}", params={"after": after})
    assert (response.status_code, "cursor_invalid" in response.text) == (400, True)


# --- the cards


def test_a_card_shows_event_day_and_sureness_and_leads_to_the_photograph(
    client: TestClient, face: str, points: list[FacePoint]
) -> None:
    html = client.get(f"/face/{face}", params={"sort": "newest", "clear": "1"}).text
    card = of_class(html, "card-link")[0]
    first = cards(html)[0]
    shown = next(one for one in points if one.face_id == first)
    address = urlsplit(card.attributes["href"])
    assert address.path == f"/photo/{shown.payload.image_id}"
    query = parse_qs(address.query)
    assert query["face"] == [shown.face_id]
    assert query["from"] == [f"/face/{face}?clear=1&sort=newest"]
    name = shown.payload.path.rsplit("/", 1)[1]
    assert card.words == f"2021 beach 28 May 2021 · {name} Very likely, Similarity 1.00"
    assert of_class(html, "card-meta")[0].attributes["title"] == f"{name}, 28 May 2021"
    assert "%" not in card.words


def test_a_card_leads_on_to_other_questions(client: TestClient, face: str, points: list[FacePoint]) -> None:
    html = client.get(f"/face/{face}", params={"clear": "1"}).text
    menu = [one for one in elements(html, "a", "href") if points[1].face_id in one.attributes["href"]]
    questions = {one.words: one.attributes["href"] for one in menu if "photo/" not in one.attributes["href"]}
    other = points[1].face_id
    assert questions["More like this face"] == f"/face/{other}"
    assert parse_qs(urlsplit(questions["Leave out faces like this"]).query) == {"clear": ["1"], "not": [other]}


def test_only_a_flaw_is_told(client: TestClient, face: str) -> None:
    html = client.get(f"/face/{face}", params={"folder": PLACES[0]}).text
    assert {one.words for one in of_class(html, "badge")} == {"blurred"}
    assert "same photograph" in {one.words for one in of_class(client.get(f"/face/{face}").text, "badge")}


def test_names_of_files_cannot_add_markup(tmp_path_factory: pytest.TempPathFactory) -> None:
    index = MemoryIndex()
    evil = '/photos/<script>alert(1)</script>"onload="x/\udcff.jpg'
    index.upsert([point(1, RED, path=evil, folder=("/", "/photos"))])
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    with TestClient(create_app(settings, FakeEngine(), index)) as client:
        person = {"name": "<b>Ana</b>", "face_ids": [point(1, RED).face_id]}
        assert client.post("/people", json=person).status_code == 200
        html = client.get(f"/face/{point(1, RED).face_id}").text
    assert "<script>alert" not in html
    assert "<b>Ana" not in html
    assert '"onload="x' not in html
    assert "&lt;b&gt;Ana&lt;/b&gt;" in html


# --- counts


def test_counts_come_as_a_part_of_the_page(client: TestClient, face: str) -> None:
    html = client.get(f"/face/{face}/facets", headers=FETCH).text
    assert "<html" not in html
    parts = {one.attributes["data-into"]: one.words for one in elements(html, "div", "data-into")}
    assert parts["total"] == "130 matches"
    assert "13 without a date" in parts["years"]
    years = {one.attributes["aria-label"] for one in elements(html, of_class="bar")}
    assert {"2019: 52", "2020: 0", "2021: 65"} <= years
    folders = {one.attributes["aria-label"] for one in elements(html, of_class="folder-link")}
    assert f"{PLACES[0]}: 65" in folders


def test_without_a_script_a_link_shows_the_counts(client: TestClient, face: str) -> None:
    html = client.get(f"/face/{face}").text
    assert of_class(html, "bar") == []
    counted = client.get(link(html, "Show years and folders with their numbers")).text
    assert len(of_class(counted, "bar")) == 3
    assert of_class(counted, "count")[0].words == "130 matches"


def test_a_chosen_year_can_be_left_and_the_other_years_stay(client: TestClient, face: str) -> None:
    html = client.get(f"/face/{face}", params={"from": "2019", "to": "2019", "facets": "1"}).text
    assert link(html, "2019: 52") == f"/face/{face}"
    assert link(html, "2021: 65").endswith("?from=2021&to=2021")


# --- photographs without a script


def post(client: TestClient, *photographs: bytes, address: str = "/?lang=en", **fields: object) -> str:
    files = [("image", (f"{number}.png", data)) for number, data in enumerate(photographs)]
    response = client.post(address, files=files, data=fields)
    assert response.status_code == 200, response.text
    return response.text


def send(client: TestClient, html: str, button: Element | None = None, **changed: str) -> str:
    """Send the rail's form as a browser without a script does."""
    fields: dict[str, list[str]] = {}
    for name, value in fields_of(html, "rail"):
        fields.setdefault(name, []).append(value)
    fields |= {name: [value] for name, value in changed.items()}
    if button is not None:
        fields.setdefault(button.attributes["name"], []).append(button.attributes["value"])
    response = client.post("/results", data=fields)
    assert response.status_code == 200, response.text
    return response.text


def test_a_photograph_shows_the_matches_of_its_face(client: TestClient, points: list[FacePoint]) -> None:
    html = post(client, encoded(GREEN))
    assert set(cards(html)) == {one.face_id for one in points[130:]}
    (picture,) = [one for one in elements(html, "svg") if "asked-picture" in one.attributes.get("class", "")]
    assert picture.attributes["viewbox"] == "0 0 64 48"
    (outline,) = [one for one in elements(html, "rect") if one.attributes.get("x") == "16.0"]
    assert (outline.attributes["width"], outline.attributes["height"]) == ("32.0", "24.0")


def test_filters_are_sent_with_a_token_and_not_with_the_photograph(client: TestClient) -> None:
    html = post(client, encoded(RED))
    detected = client.app.state.services.engine  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detected, "analyze", lambda *_: pytest.fail("the photograph was searched again"))
        filtered = send(client, html, folder=PLACES[1])
    assert of_class(filtered, "count")[0].words == "65 matches"
    assert "asked-picture" not in filtered
    assert len(of_class(filtered, "example")) == 1


def test_buttons_lead_on_where_a_result_has_no_address(client: TestClient) -> None:
    html = post(client, encoded(RED))
    assert elements(html, "a", "data-more") == []
    (more,) = elements(html, "button", "data-more")
    second = send(client, html, more)
    assert len(cards(second)) == 30
    assert not set(cards(second)) & set(cards(html))
    (first,) = [one for one in elements(second, "button") if one.words == "To the first matches"]
    assert cards(send(client, second, first)) == cards(html)


def test_one_of_several_faces_is_chosen_and_another_can_be(client: TestClient, points: list[FacePoint]) -> None:
    html = post(client, both(GREEN, RED))
    tabs = of_class(html, "face-tab")
    assert [one.words for one in tabs] == ["Face 1", "Face 2"]
    assert [one.attributes.get("aria-current") for one in tabs] == [None, "true"]  # the larger one
    assert set(cards(html)) <= {one.face_id for one in points[:130]}
    green = send(client, html, tabs[0])
    assert set(cards(green)) == {one.face_id for one in points[130:]}
    assert of_class(green, "face-tab")[0].attributes["aria-current"] == "true"


def test_photographs_of_both_faces_together_can_be_asked_for(client: TestClient, points: list[FacePoint]) -> None:
    html = post(client, both(GREEN, RED))
    (together,) = [one for one in of_class(html, "chip") if one.words == "2 and 1 together"]
    assert set(cards(send(client, html, together))) == {one.face_id for one in points[:3]}


def test_two_faces_together_keep_their_tab_have_a_chip_and_say_why_they_are_not_kept(client: TestClient) -> None:
    html = post(client, both(GREEN, RED))
    (together,) = [one for one in of_class(html, "chip") if one.words == "2 and 1 together"]
    html = send(client, html, together)
    (tab,) = [one for one in of_class(html, "face-tab") if "aria-current" in one.attributes]
    assert tab.words.startswith("Face 2")
    (chip,) = [one for one in of_class(html, "chip") if one.words == "2 and 1 together ×"]
    assert "A kept search is for one person." in html
    assert [one for one in elements(html, "form") if one.attributes.get("id") == "keep"] == []
    assert len(of_class(html, "card-others")) == 3
    assert len(cards(send(client, html, chip))) == 100


def test_several_photographs_are_one_person_and_another_one_is_told(client: TestClient) -> None:
    html = post(client, encoded(RED), encoded(RED, (80, 60)), encoded(BLUE))
    assert len(of_class(html, "example")) == 3
    assert [one.words for one in of_class(html, "doubt")] == ["Perhaps someone else"]
    (third,) = [one for one in of_class(html, "remove") if one.attributes["aria-label"] == "Remove example 3"]
    without = send(client, html, third)
    assert len(of_class(without, "example")) == 2
    assert of_class(without, "doubt") == []


def test_examples_of_two_people_are_told_with_the_way_to_search_each_alone(
    client: TestClient, points: list[FacePoint]
) -> None:
    html = post(
        client, *(encoded(RED, (90, 60 + n)) for n in range(3)), *(encoded(GREEN, (90, 60 + n)) for n in range(2))
    )
    (warning,) = [one for one in of_class(html, "warning") if "people" in one.words]
    assert warning.words.startswith("These look like 2 people.")
    alone = elements(html, "form", "data-only")
    assert [one.attributes["data-only"] for one in alone] == ["0 1 2", "3 4"]
    assert [one.words for one in alone] == ["Only person 1 3 photographs", "Only person 2 2 photographs"]
    second = html[html.index('data-only="3 4"') :].split("</form>")[0]
    tokens = [one.attributes["value"] for one in elements(second, "input") if one.attributes["name"] == "query"]
    shown = client.post("/results", data={"query": tokens}).text
    assert set(cards(shown)) == {one.face_id for one in points[130:]}
    assert "people" not in "".join(one.words for one in of_class(shown, "warning"))


def test_indexed_examples_of_two_people_lead_to_the_result_of_each(client: TestClient, points: list[FacePoint]) -> None:
    red, green = [one.face_id for one in points[:2]], [one.face_id for one in points[130:132]]
    html = client.get(f"/face/{red[0]}", params={"example": [red[1], *green], "clear": "1"}).text
    links = [one.attributes["href"] for one in elements(html, "a", "href") if one.words.startswith("Only person")]
    assert links == [f"/face/{first}?clear=1&example={other}" for first, other in (red, green)]


def test_one_person_is_not_called_several(client: TestClient, face: str) -> None:
    for html in (client.get(f"/face/{face}").text, post(client, encoded(RED), encoded(RED, (80, 60)), encoded(BLUE))):
        assert [one for one in of_class(html, "warning") if "hidden" not in one.attributes] == []


def test_the_page_can_tell_which_photographs_were_too_many(client: TestClient) -> None:
    html = post(client, encoded(RED), encoded(RED, (80, 60)))
    (told,) = elements(html, "p", "data-dropped")
    assert told.attributes["data-one"] == "At most 10 photographs are searched together. {n} was left out: {names}."
    (form,) = [one for one in elements(html, "form") if one.attributes.get("id") == "add"]
    assert form.attributes["data-room"] == "8"


def test_the_faces_of_a_photograph_are_numbered_from_left_to_right(client: TestClient) -> None:
    html = post(client, both(GREEN, RED))
    assert [one.words for one in of_class(html, "outline")] == ["1", "2"]
    assert "Faces are numbered from left to right." in html
    assert "numbered" not in post(client, encoded(RED)).split("<template")[0]


def test_a_person_who_is_not_meant_says_how_many_matches_are_left_out(
    client: TestClient, points: list[FacePoint]
) -> None:
    face = points[0].face_id
    total = int(of_class(client.get(f"/face/{face}/facets").text, "")[0].words.split()[0].replace(",", ""))
    asked = {"not": points[129].face_id}
    counts = client.get(f"/face/{face}/facets", params=asked).text
    (left_out,) = [one for one in elements(counts, "div", "data-into") if one.attributes["data-into"] == "left-out"]
    (shown,) = [one for one in elements(counts, "div", "data-into") if one.attributes["data-into"] == "total"]
    assert int(left_out.words.split()[0]) == total - int(shown.words.split()[0]) > 0
    assert left_out.words.endswith("left out")
    (place,) = [
        one
        for one in elements(client.get(f"/face/{face}", params=asked).text, "li", "data-facet")
        if one.attributes["data-facet"] == "left-out"
    ]
    assert place.words == ""
    whole = client.get(f"/face/{face}", params=asked | {"facets": "1"}).text
    assert left_out.words in [one.words for one in elements(whole, "li", "data-facet")]


def test_in_a_group_the_face_that_resembles_the_others_is_taken(client: TestClient, points: list[FacePoint]) -> None:
    html = post(client, encoded(GREEN), both(GREEN, RED))
    assert of_class(html, "doubt") == []
    assert set(cards(html)) == {one.face_id for one in points[130:]}


def test_a_photograph_is_added_to_an_indexed_face(client: TestClient, face: str) -> None:
    html = client.get(f"/face/{face}").text
    fields = dict(fields_of(html, "add"))
    assert fields == {"example": face}
    added = post(client, encoded(RED), address="/results", **fields)
    assert len(of_class(added, "example")) == 2


def test_an_example_of_the_index_can_be_removed_again(client: TestClient, points: list[FacePoint]) -> None:
    one, other = points[0].face_id, points[1].face_id
    html = client.get(f"/face/{one}", params={"example": other, "clear": "1"}).text
    assert link(html, "Remove example 1") == f"/face/{other}?clear=1"
    assert link(html, "Remove example 2") == f"/face/{one}?clear=1"


def test_the_script_gets_the_part_that_the_page_has(client: TestClient, face: str) -> None:
    page, part = (client.get(f"/face/{face}", headers=headers).text for headers in ({}, FETCH))
    page, part = (re.sub(r"\d+ ms", "", text) for text in (page, part))
    assert "<html" not in part
    assert part.strip() in page


def test_a_photograph_that_the_browser_keeps_has_links(client: TestClient) -> None:
    files = {"image": ("p.png", encoded(RED))}
    html = client.post("/results", files=files, data={"key": "abcdef0123456789", "clear": "1"}, headers=FETCH).text
    (more,) = elements(html, "a", "data-more")
    assert more.attributes["href"].startswith("/search/abcdef0123456789?clear=1&after=")
    assert "kept in this browser only" in html
    evil = client.post("/results", files=files, data={"key": '"><script>'}, headers=FETCH).text
    assert "<script" not in evil
    assert "kept in this browser only" not in evil


def test_the_address_of_a_kept_photograph_explains_itself_without_it(client: TestClient) -> None:
    response = client.get("/search/abcdef0123456789")
    assert response.status_code == 200
    assert "This address needs JavaScript" in response.text
    assert "The photograph of this search is not in this browser" in response.text
    assert client.get("/search/no!").status_code == 404


# --- nothing found, errors


def test_a_person_who_is_not_there_is_told_with_the_closest(client: TestClient) -> None:
    html = post(client, encoded(BLUE))
    assert cards(html) == []
    assert "No face in the index resembles this one." in html


def test_a_high_similarity_that_nobody_reaches_leads_to_the_closest(tmp_path_factory: pytest.TempPathFactory) -> None:
    index = MemoryIndex()
    red, other = point(1, RED), point(2, GREEN)
    mixed = red.embedding + 1.2 * other.embedding
    index.upsert([red, replace(other, embedding=(mixed / np.linalg.norm(mixed)).astype(np.float32))])
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    with TestClient(create_app(settings, FakeEngine(), index)) as client:
        html = client.get(f"/face/{other.face_id}", params={"not": other.face_id}).text
        assert cards(html) == []
        html = post(client, encoded(GREEN), least="0.90")
        assert "No photograph reaches 0.90." in html
        closest = re.search(r"The closest is at (0\.\d\d)\.", html)
        assert closest is not None
        (lower,) = [one for one in elements(html, "button") if one.words == f"Show from {closest[1]}"]
        assert len(cards(send(client, html, lower))) == 1


def test_a_photograph_without_a_face_is_shown_with_what_helps(client: TestClient) -> None:
    response = client.post("/", files={"image": encoded(BLACK)}, data={"lang": "en"})
    assert response.status_code == 422
    assert "face_not_found" in response.text
    assert "What helps" in response.text
    assert len([one for one in elements(response.text, "img", "src") if one.attributes["src"].startswith("data:")]) == 1
    part = client.post("/results", files={"image": encoded(BLACK)}, headers=FETCH)
    assert (part.status_code, "<html" in part.text) == (422, False)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "invalid_request"),
        ({"query": "x"}, "cursor_invalid"),
        ({"query": "x" * 70_000}, "cursor_invalid"),
        ({"face": "two"}, "invalid_request"),
        ({"go": "least=7"}, "invalid_request"),
        ({"crop": "x", "query": ""}, "invalid_request"),
    ],
)
def test_a_form_that_is_wrong_is_refused_on_a_page(client: TestClient, fields: dict[str, str], code: str) -> None:
    response = client.post("/results", data=fields)
    assert response.status_code == 400
    assert f">{code}<" in response.text


def test_a_crop_that_is_no_picture_does_not_reach_the_page(client: TestClient) -> None:
    token = dict(fields_of(post(client, encoded(RED)), "rail"))["query"]
    response = client.post("/results", data={"query": token, "crop": '" onerror="x'})
    assert response.status_code == 400


def test_more_than_ten_photographs_are_refused(client: TestClient) -> None:
    files = [("image", (f"{number}.png", encoded(RED))) for number in range(11)]
    assert client.post("/results", files=files).status_code == 400


def test_results_are_spanish_in_spanish(client: TestClient, face: str) -> None:
    html = client.get(f"/face/{face}", params={"lang": "es"}).text
    assert of_class(html, "count")[0].words == "100+ coincidencias"
    assert "Muy probable" in html
    assert '<html lang="es"' in html
