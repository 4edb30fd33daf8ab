"""What the page of naming asks without JavaScript: other names, two faces of one picture, reloads, the way back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.core.config import Settings
from app.main import create_app
from tests.support.clients import TestClient
from tests.support.face_pictures import faces_of, ids_of, stored_face
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import elements
from tests.web.test_people_pages import asked, faces_named, followed, grouped, hidden_in, made, names, person, told

ADA, BEN = faces_of(1, 6), faces_of(2, 6)
JSON = {"Accept": "application/json"}
COLLAGE = [stored_face("/photos/collage.jpg", 3, number, place=number) for number in range(3)]


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    index = MemoryIndex()
    index.upsert([*ADA, *BEN, *COLLAGE])
    with TestClient(create_app(settings, FakeEngine(), index), headers={"Accept": "text/html"}) as client:
        client.follow_redirects = False
        yield client


def words(html: str, tag: str = "", of_class: str = "") -> list[str]:
    """The texts of elements, without the marks around names."""
    return [re.sub(r"[\u2068\u2069]", "", one.words) for one in elements(html, tag, of_class=of_class)]


def sent_by(html: str, button: str) -> dict[str, str]:
    """What the last form sends if the button with these words is pressed."""
    forms = [one for one in re.findall(r"<form.*?</form>", html, re.DOTALL) if button in one and 'name="once"' in one]
    (pressed,) = [one.attributes for one in elements(forms[-1], "button") if one.words.startswith(button)]
    return {**hidden_in(forms[-1], "/naming"), pressed.get("name", "name"): pressed.get("value", "")}


def name_of(client: TestClient, face: str) -> list[str]:
    """The people who have a face."""
    answer = client.get("/people", headers={"Accept": "application/json"}).json()["people"]
    return [one["name"] for one in answer if face in faces_named(client, one["id"])]


# --- other names


def test_a_face_with_a_name_is_renamed_in_one_step_that_says_whose_it_is(client: TestClient) -> None:
    made(client, "Leonard", ADA[:1])
    face = ADA[0].face_id
    question = asked(client, client.post("/naming", data={"id": face, "name": "Amy"}))
    assert "This face has the name Leonard." in words(question, "p")
    assert "Name it Amy instead?" in words(question, "h2")
    assert "send" not in " ".join(words(question, "main"))
    html = followed(client, client.post("/naming", data=sent_by(question, "Name it Amy")))
    assert name_of(client, face) == ["Amy"]
    assert told(html).startswith("Amy added with 1 face")


def test_the_page_that_says_whose_face_it_is_takes_another_name_without_asking_again(client: TestClient) -> None:
    made(client, "Leonard", ADA[:1])
    page = client.get(f"/naming?id={ADA[0].face_id}").text
    assert "This face has the name Leonard." in words(page, "p")
    followed(client, client.post("/naming", data={**hidden_in(page, "/naming"), "name": "Amy"}))
    assert name_of(client, ADA[0].face_id) == ["Amy"]


def test_a_known_name_and_another_name_are_asked_about_together(client: TestClient) -> None:
    made(client, "Leonard", ADA[:2])
    amy = made(client, "Amy", BEN[:1])
    form: dict[str, Any] = {"id": ids_of([*ADA[:2], BEN[1]]), "name": "amy"}
    question = asked(client, client.post("/naming", data=form))
    assert "2 of these faces already have another name." in words(question, "p")
    assert words(question, of_class="named-now") == ["Leonard 2 faces"]
    sent = {**sent_by(question, "Yes, the same person"), **form}
    followed(client, client.post("/naming", data=sent))
    assert person(client, amy).faces == 4


def test_a_face_that_got_another_name_meanwhile_is_asked_about_again(client: TestClient) -> None:
    made(client, "Leonard", ADA[:1])
    page = client.get(f"/naming?id={ADA[0].face_id}").text
    howard = made(client, "Howard")
    client.post(f"/people/{howard}/faces", json={"face_ids": ids_of(ADA[:1]), "version": 1, "replace": True})
    question = asked(client, client.post("/naming", data={**hidden_in(page, "/naming"), "name": "Amy"}))
    assert "This face has the name Howard." in words(question, "p")
    assert name_of(client, ADA[0].face_id) == ["Howard"]


def test_a_hidden_person_is_not_named_by_the_question(client: TestClient) -> None:
    secret = made(client, "Secret", ADA[:1])
    client.patch(f"/people/{secret}", json={"hidden": True, "version": 1})
    html = client.get(f"/naming?id={ADA[0].face_id}&name=Amy").text
    assert "Secret" not in html
    assert "This face belongs to a hidden person." in words(html, "p")


def test_what_somebody_rejected_is_told_before_it_gets_the_name_and_is_not_offered(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:4])
    assert "Ada" in " ".join(words(client.get(f"/naming?id={ADA[4].face_id}").text, of_class="person-choice"))
    client.post(f"/people/{ada}/reject", json={"face_ids": ids_of(ADA[4:]), "version": 1})
    assert words(client.get(f"/naming?id={ADA[4].face_id}").text, of_class="person-choice") == []
    question = asked(client, client.post("/naming", data={"id": ADA[4].face_id, "name": "ada"}))
    assert "Somebody said that this face is not Ada." in words(question, "p")
    several = {"id": [ADA[4].face_id, BEN[0].face_id], "name": "Ada"}
    question = asked(client, client.post("/naming", data=several))
    assert "Somebody said that 1 of these faces is not Ada." in words(question, "p")
    followed(client, client.post("/naming", data={**sent_by(question, "Yes, the same person"), "id": several["id"]}))
    assert person(client, ada).faces == 6


def test_somebody_hidden_who_has_the_name_is_marked(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:2])
    client.patch(f"/people/{ada}", json={"hidden": True, "version": 1})
    question = asked(client, client.post("/naming", data={"id": BEN[0].face_id, "name": "Ada"}))
    assert "Ada, 2 faces · hidden" in " ".join(words(question, of_class="person-choice"))


# --- two faces of one picture


def test_a_second_face_of_a_picture_gets_the_name_only_after_being_asked(client: TestClient) -> None:
    leo = made(client, "Leonard", COLLAGE[:1])
    form = {"id": COLLAGE[1].face_id, "name": "Leonard"}
    question = asked(client, client.post("/naming", data=form))
    assert "Leonard is already in this photograph." in words(question, "p")
    assert "Is this also Leonard?" in words(question, "h2")
    assert person(client, leo).faces == 1
    followed(client, client.post("/naming", data=sent_by(question, "Yes, the same person")))
    assert person(client, leo).faces == 2


def test_a_button_of_a_page_that_did_not_know_of_the_second_face_asks(client: TestClient) -> None:
    leo = made(client, "Leonard", COLLAGE[:1])
    question = asked(client, client.post("/naming", data={"id": COLLAGE[1].face_id, "person": f"{leo}:1"}))
    assert "Is this also Leonard?" in words(question, "h2")
    assert person(client, leo).faces == 1


def test_two_faces_of_one_picture_get_a_new_name_only_after_being_asked(client: TestClient) -> None:
    form: dict[str, Any] = {"id": ids_of([*COLLAGE, ADA[0]]), "name": "Zoe"}
    question = asked(client, client.post("/naming", data=form))
    assert "3 of these faces are in the same photograph as another one of them." in words(question, "p")
    assert names(client) == []
    followed(client, client.post("/naming", data={**sent_by(question, "Name all 4 faces Zoe"), **form}))
    assert names(client) == ["Zoe"]


def test_programs_need_a_word_to_name_two_faces_of_one_image(client: TestClient) -> None:
    leo, ids = made(client, "Leonard", COLLAGE[:1]), ids_of(COLLAGE)
    for path, body in ((f"/people/{leo}/faces", {"version": 1}), ("/people", {"name": "Zoe", "replace": True})):
        refused = client.post(path, json={**body, "face_ids": ids[:2]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "person_in_image")
        assert refused.json()["error"]["details"]["image_ids"] == [COLLAGE[0].payload.image_id]
    taken = client.post(f"/people/{leo}/faces", json={"version": 1, "face_ids": ids, "same_image": True})
    assert taken.json()["person"]["faces"] == 3
    again = client.post(f"/people/{leo}/faces", json={"version": 2, "face_ids": ids})
    assert (again.status_code, again.json()["change"]) == (200, None), "what is so already needs no word"
    assert client.post("/people", json={"name": "Zoe", "face_ids": ids, "replace": True, "same_image": True}).is_success


# --- addresses


def test_a_question_has_an_address_that_can_be_reloaded_and_changes_nothing(client: TestClient) -> None:
    made(client, "Ada", ADA[:1])
    answer = client.post("/naming", data={"id": ids_of(ADA[1:3]), "name": "Ada", "next": "/people"})
    address = answer.headers["location"]
    assert answer.status_code == 303
    assert parse_qs(urlsplit(address).query)["id"] == ids_of(ADA[1:3])
    first, second = client.get(address), client.get(address)
    assert first.status_code == second.status_code == 200
    assert person(client, made_id(client, "Ada")).faces == 1
    hand_written = f"/naming?id={ADA[1].face_id}&name=Eve&new=same&replace=1&person=&once=x"
    assert client.get(hand_written).status_code == 200
    assert names(client) == ["Ada"]
    assert client.get(f"/naming?id={ADA[1].face_id}&person=rubbish").status_code == 404


def made_id(client: TestClient, name: str) -> str:
    found = client.get("/people", params={"name": name}, headers={"Accept": "application/json"}).json()["people"]
    return str(found[0]["id"])


def test_a_question_about_too_many_faces_for_an_address_is_the_answer_itself(client: TestClient) -> None:
    many = faces_of(4, 60)
    client.app.state.services.index.upsert(many)  # type: ignore[attr-defined]
    made(client, "Ada", ADA[:1])
    answer = client.post("/naming", data={"id": ids_of(many), "name": "Ada"})
    assert (answer.status_code, "Is it the same person?" in answer.text) == (200, True)


# --- the way back


def test_the_page_leads_back_also_without_being_told_where_to(client: TestClient) -> None:
    (group,) = grouped(client, ADA)
    for query, back in ((f"id={ADA[0].face_id}", "/people"), (f"of_group={group}", f"/group/{group}")):
        html = client.get(f"/naming?{query}").text
        (way,) = elements(re.findall(r'<p class="way-back">.*?</p>', html)[0], "a")
        assert way.attributes["href"] == back


def test_naming_some_faces_of_a_group_leads_back_to_it_until_none_is_left(client: TestClient) -> None:
    (group,) = grouped(client, ADA)
    page = client.get(f"/group/{group}").text
    form = {**hidden_in(re.findall(r'<form class="selection.*?</form>', page, re.DOTALL)[0], "/naming")}
    assert form["next"] == f"/group/{group}"
    some = client.post("/naming", data={**form, "id": ids_of(ADA[1:4]), "name": "Ada"})
    assert some.headers["location"] == f"/group/{group}?done=1"
    html = followed(client, some)
    assert told(html) == "Ada added with 3 faces Undo"
    assert [one.words for one in elements(html, "a", of_class="toast-person")] == ["Go to \u2068Ada\u2069"]
    rest = {**form, "id": ids_of([ADA[0], *ADA[4:]]), "kind": "set_aside"}
    assert client.post("/dismiss", data=rest).headers["location"] == "/people?tab=groups&done=2"


def test_naming_a_whole_group_leads_to_the_next_group_and_after_the_last_one_to_the_person(client: TestClient) -> None:
    one, other = grouped(client, ADA, BEN)
    first = client.post("/naming", data={"of_group": one, "name": "Ada"})
    assert first.headers["location"] == "/people?tab=groups&done=1"
    last = client.post("/naming", data={"of_group": other, "name": "Ben"})
    assert last.headers["location"] == f"/person/{made_id(client, 'Ben')}?done=2"


# --- forms that come again, and addresses that are none


def test_a_form_that_is_sent_again_after_the_person_was_deleted_names_again(client: TestClient) -> None:
    page = client.get(f"/naming?id={ADA[0].face_id}").text
    form = {**hidden_in(page, "/naming"), "name": "Maria"}
    client.post("/naming", data=form)
    assert names(client) == ["Maria"]
    (person_id,) = [one["id"] for one in client.get("/people", headers=JSON).json()["people"]]
    client.delete(f"/people/{person_id}", headers={"If-Match": '"1"'})
    client.post("/naming", data=form)
    assert name_of(client, ADA[0].face_id) == ["Maria"]


@pytest.mark.parametrize(
    "address",
    ["//evil.example/", "https://evil.example/", "javascript:alert(1)", "/\\evil.example", "data:text/html,x"],
)
def test_the_way_back_leads_to_no_other_site(client: TestClient, address: str) -> None:
    html = client.get("/naming", params={"id": ADA[0].face_id, "next": address}).text
    assert address not in [one.attributes["href"] for one in elements(html, "a")]
    assert hidden_in(html, "/naming")["next"] == ""


@pytest.mark.parametrize("address", ["/people?q=%FF", "/people?q=%00", "/person/%00", "/person/x"])
def test_a_change_is_answered_whatever_address_follows(client: TestClient, address: str) -> None:
    answer = client.post("/dismiss", data={"id": ADA[1].face_id, "kind": "set_aside", "next": address})
    assert answer.status_code == 303
    assert followed(client, answer)
