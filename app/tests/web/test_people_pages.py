"""The pages of people, as a browser without JavaScript uses them: links and forms."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from httpx import Response

from app.catalog import FaceTable, GroupedFace
from app.core.config import Settings
from app.core.texts import LANGUAGES, translator
from app.core.types import FacePoint
from app.main import create_app
from app.security import add_key, checked_grant
from app.service import Services
from app.web.pages import people
from app.web.pages.change_views import change_words, with_done
from tests.support.clients import TestClient
from tests.support.face_pictures import faces_of, ids_of, stored_face
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import elements

ADA, BEN, EVE = faces_of(1, 12), faces_of(2, 6), faces_of(3, 4)
BROWSER = {"Accept": "text/html"}
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def index() -> MemoryIndex:
    index = MemoryIndex()
    index.upsert([*ADA, *BEN, *EVE])
    return index


@pytest.fixture
def client(settings: Settings, index: MemoryIndex) -> Iterator[TestClient]:
    app = create_app(settings, FakeEngine(), index)
    with TestClient(app, follow_redirects=False, headers=BROWSER) as client:
        yield client


def services_of(client: TestClient) -> Services:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    return services


def grouped(client: TestClient, *groups: Sequence[FacePoint]) -> list[str]:
    """Make groups of unnamed faces; return their ids."""
    ledger = services_of(client).ledger
    table = FaceTable(ledger.database, ledger.collection)
    ids = [faces[0].face_id for faces in groups]
    table.write(
        [
            GroupedFace(one.face_id, one.payload.image_id, group_id, clear=True)
            for group_id, faces in zip(ids, groups, strict=True)
            for one in faces
        ]
    )
    return ids


def made(client: TestClient, name: str, faces: Sequence[FacePoint] = ()) -> str:
    """Add a person over REST; return the id."""
    answer = client.post("/people", json={"name": name, "face_ids": ids_of(faces)})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["person"]["id"])


@dataclass(frozen=True)
class Seen:
    """What REST says of a person."""

    name: str
    faces: int
    version: int


def person(client: TestClient, person_id: str) -> Seen:
    one = client.get(f"/people/{person_id}", headers={"Accept": "application/json"}).json()["person"]
    return Seen(one["name"], one["faces"], one["version"])


def faces_named(client: TestClient, person_id: str) -> set[str]:
    found = client.get(f"/people/{person_id}/faces", params={"limit": 100}, headers={"Accept": "application/json"})
    return {one["face_id"] for one in found.json()["faces"]}


def names(client: TestClient) -> list[str]:
    found = client.get("/people", params={"order": "name"}, headers={"Accept": "application/json"}).json()["people"]
    return [one["name"] for one in found]


def followed(client: TestClient, answer: Response) -> str:
    """The page that a form leads to."""
    assert answer.status_code == 303, answer.text
    page = client.get(answer.headers["location"])
    assert page.status_code == 200
    return str(page.text)


def asked(client: TestClient, answer: Response) -> str:
    """The page of a question, which a form leads to."""
    assert urlsplit(answer.headers["location"]).path == "/naming"
    return followed(client, answer)


def told(html: str) -> str:
    """What the toast says, with its buttons, without the link to the person and the marks around names."""
    (toast,) = elements(html, "div", "data-toast")
    words = toast.words.removesuffix("×").strip()
    for link in elements(html, "a", of_class="toast-person"):
        words = words.replace(f"{link.words} ", "")
    return re.sub(r"[\u2068\u2069]", "", words)


def hidden_in(html: str, action: str) -> dict[str, str]:
    """The hidden fields of the first form with an action."""
    form = re.search(rf'<form[^>]*action="{re.escape(action)}[?"].*?</form>', html, re.DOTALL)
    assert form, action
    fields = elements(form[0], "input", "name")
    return {
        one.attributes["name"]: one.attributes.get("value", "")
        for one in fields
        if one.attributes.get("type") == "hidden"
    }


def undone(client: TestClient, html: str) -> str:
    """Press Undo in the toast of a page; return the next page."""
    return followed(client, client.post("/undo", data=hidden_in(html, "/undo")))


# --- lists


def test_the_list_has_everybody_with_a_name_a_count_and_a_link(client: TestClient) -> None:
    ada, other = made(client, "Ada", ADA), made(client, EVIL, BEN[:2])
    html = client.get("/people").text
    tiles = [(one.attributes["href"], one.words) for one in elements(html, "a", of_class="card-link")]
    assert tiles == [(f"/person/{ada}", "Ada 12 faces"), (f"/person/{other}", f"{EVIL} 2 faces")]
    assert EVIL not in html
    assert client.get("/people", headers={"Accept": "application/json"}).headers["content-type"] == "application/json"
    assert "Accept" in client.get("/people").headers["vary"]


def test_names_are_searched_ordered_and_paged_by_links(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "PEOPLE", 2)
    for number, name in enumerate(("Zoë", "álvaro", "Alba", "Ben")):
        made(client, name, ADA[3 * number : 3 * number + 3 - number // 2])

    def shown(address: str) -> list[str]:
        """The names of all pages."""
        found: list[str] = []
        while address:
            html = client.get(address).text
            found += [one.words.split()[0] for one in elements(html, "a", of_class="card-link")]
            following = [one for one in elements(html, "a", "rel") if one.attributes["rel"] == "next"]
            address = following[0].attributes["href"] if following else ""
        return found

    assert shown("/people?order=name") == ["Alba", "álvaro", "Ben", "Zoë"]
    assert set(shown("/people")[:2]) == {"Zoë", "álvaro"}
    assert shown("/people?q=AL&order=name") == ["Alba", "álvaro"]
    assert "Nobody is called “nobody”" in client.get("/people?q=nobody").text
    assert client.get("/people?after=rubbish").status_code == 400
    assert "text/html" in client.get("/people?after=rubbish").headers["content-type"]


def test_an_empty_list_offers_no_search_and_no_order(client: TestClient) -> None:
    def tools(address: str) -> tuple[int, int]:
        html = client.get(address).text
        return len(elements(html, "form", "role")), len(elements(html, "p", of_class="orders"))

    assert tools("/people") == tools("/people?tab=hidden") == (0, 0)
    made(client, "Ada", ADA)
    assert tools("/people") == (1, 1)
    assert tools("/people?q=nobody") == (1, 0)


def test_hidden_people_are_in_a_list_of_their_own(client: TestClient) -> None:
    ada = made(client, "Ada", ADA)
    page = client.get(f"/person/{ada}").text
    html = followed(client, client.post(f"/person/{ada}/hide", data=hidden_in(page, f"/person/{ada}/hide")))
    assert told(html) == "Ada hidden Undo"
    assert "Nobody has a name yet" in client.get("/people").text
    assert f'href="/person/{ada}"' in client.get("/people?tab=hidden").text
    undone(client, html)
    assert f'href="/person/{ada}"' in client.get("/people").text


def test_frequent_people_are_on_the_start_page(client: TestClient) -> None:
    assert "people-title" not in client.get("/").text
    ids = [made(client, f"Person {number}", [face]) for number, face in enumerate(ADA[:9])]
    links = [one.attributes["href"] for one in elements(client.get("/").text, "a", "href")]
    assert sum(f"/person/{one}" in links for one in ids) == 8


# --- groups of unnamed faces


def test_a_group_is_named_and_the_toast_undoes_it(client: TestClient) -> None:
    group, _ = grouped(client, ADA, BEN)
    html = client.get("/people?tab=groups").text
    assert [one.words for one in elements(html, "a", of_class="card-link")] == ["12 faces", "6 faces"]
    sent = hidden_in(html, "/naming")
    assert sent["of_group"] == group
    page = followed(client, client.post("/naming", data={**sent, "name": " Ada  Lovelace "}))
    assert told(page) == "Ada Lovelace added with 12 faces Undo"
    assert [one.words for one in elements(page, "a", of_class="card-link")] == ["6 faces"]
    again = undone(client, page)
    assert told(again) == "Undone: Ada Lovelace added with 12 faces Redo"
    assert names(client) == []
    again = undone(client, again)
    assert told(again) == "Redone: Ada Lovelace added with 12 faces Undo"
    assert names(client) == ["Ada Lovelace"]


def test_a_name_that_somebody_has_merges_nothing_without_being_asked(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:6])
    (group,) = grouped(client, ADA[6:])
    form = {"of_group": group, "name": "ada", "next": "/people?tab=groups"}
    question = asked(client, client.post("/naming", data=form))
    assert "There is already somebody called “ada”. Is it the same person?" in question
    assert person(client, ada).faces == 6
    (choice,) = [one for one in elements(question, "button") if one.attributes.get("name") == "person"]
    assert choice.words == "Yes, the same person Ada, 6 faces"
    followed(client, client.post("/naming", data={**form, "person": choice.attributes["value"]}))
    assert (person(client, ada).faces, names(client)) == (12, ["Ada"])


def test_a_group_that_has_grown_since_is_shown_again_before_it_is_named(client: TestClient) -> None:
    group, *_ = grouped(client, ADA)
    sent = {**hidden_in(client.get("/people?tab=groups").text, "/naming"), "faces": "5", "name": "Ada"}
    again = hidden_in(asked(client, client.post("/naming", data=sent)), "/naming")
    assert names(client) == []
    assert (again["of_group"], again["faces"]) == (group, "12")
    followed(client, client.post("/naming", data={**again, "name": "Ada"}))
    assert names(client) == ["Ada"]


def test_two_people_may_have_one_name(client: TestClient) -> None:
    made(client, "Ada", ADA[:6])
    (group,) = grouped(client, ADA[6:])
    followed(client, client.post("/naming", data={"of_group": group, "name": "Ada", "new": "1"}))
    assert names(client) == ["Ada", "Ada"]


def test_a_form_that_is_sent_twice_makes_one_change_and_another_one_after_it_was_undone(client: TestClient) -> None:
    faces = {"id": ids_of(ADA)}
    form = {
        **hidden_in(asked(client, client.post("/naming", data=faces)), "/naming"),
        **faces,
        "name": "Ada",
        "new": "1",
    }
    first, second = (client.post("/naming", data=form).headers["location"] for _ in range(2))
    assert first == second
    assert names(client) == ["Ada"]
    undone(client, client.get(first).text)
    assert names(client) == []
    followed(client, client.post("/naming", data=form))
    assert names(client) == ["Ada"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [("set_aside", "12 faces set aside Undo"), ("not_a_face", "12 faces marked as not a face Undo")],
)
def test_a_group_that_is_set_aside_or_no_face_is_not_asked_about_again(
    client: TestClient, kind: str, text: str
) -> None:
    grouped(client, ADA, BEN)
    sent = hidden_in(client.get("/people?tab=groups").text, "/dismiss")
    page = followed(client, client.post("/dismiss", data={**sent, "kind": kind}))
    assert told(page) == text
    assert [one.words for one in elements(page, "a", of_class="card-link")] == ["6 faces"]
    assert len(elements(undone(client, page), "a", of_class="card-link")) == 2


def test_some_faces_of_a_group_are_named(client: TestClient) -> None:
    (group,) = grouped(client, [*ADA[:4], *BEN[:1]])
    html = client.get(f"/group/{group}").text
    assert len(elements(html, "li", "data-face-id")) == 5
    assert client.get("/group/none").status_code == 404
    assert "Whose faces are these?" in asked(client, client.post("/naming", data={"id": ids_of(ADA[:4])}))
    page = followed(client, client.post("/naming", data={"id": ids_of(ADA[:4]), "name": "Ada"}))
    assert told(page) == "Ada added with 4 faces Undo"


# --- a person


def test_the_page_of_a_person_has_faces_in_three_orders_and_pages(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.pages.person.FACES", 5)
    ada = made(client, "Ada", ADA)

    def shown(address: str) -> list[str]:
        found: list[str] = []
        while address:
            html = client.get(address).text
            found += [one.attributes["data-face-id"] for one in elements(html, "li", "data-face-id")]
            following = [one for one in elements(html, "a", "rel") if one.attributes["rel"] == "next"]
            address = following[0].attributes["href"] if following else ""
        return found

    times = [one.payload.taken_at or "" for one in ADA]
    by_time = [face for _, face in sorted(zip(times, ids_of(ADA), strict=True))]
    assert shown(f"/person/{ada}?order=oldest") == by_time
    assert shown(f"/person/{ada}") == by_time[::-1]
    assert sorted(shown(f"/person/{ada}?order=similarity")) == sorted(ids_of(ADA))
    assert client.get("/person/none").status_code == 404
    assert client.get(f"/person/{ada}?after=rubbish").status_code == 400


def test_suggestions_are_confirmed_rejected_and_confirmed_all_at_once(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:4])
    html = client.get(f"/person/{ada}").text
    assert "Maybe also (8)" in html
    offered = [one.attributes["data-face-id"] for one in elements(html, "li", of_class="suggestion")]
    assert set(offered) == set(ids_of(ADA[4:]))
    where = f"/person/{ada}/suggestions"
    html = followed(client, client.post(where, data={**hidden_in(html, where), "yes": offered[0]}))
    assert told(html) == "1 face confirmed as Ada Undo"
    html = followed(client, client.post(where, data={**hidden_in(html, where), "no": offered[1]}))
    assert told(html) == "1 face marked as not Ada Undo"
    assert "Maybe also (6)" in html
    sure = [one.attributes["value"] for one in elements(html, "input") if one.attributes.get("name") == "sure"]
    version = str(person(client, ada).version)
    html = followed(client, client.post(where, data={"version": version, "sure": sure, "do": "all"}))
    assert told(html) == f"{len(sure)} faces confirmed as Ada Undo"
    assert faces_named(client, ada) == {*ids_of(ADA[:4]), offered[0], *sure}
    assert offered[1] not in faces_named(client, ada)


def test_only_the_selected_faces_are_moved_rejected_or_made_cover(client: TestClient) -> None:
    both = made(client, "Ada", [*ADA[:5], *BEN[:3]])
    where = f"/person/{both}/faces"
    sent = hidden_in(client.get(f"/person/{both}").text, where)
    html = followed(client, client.post("/naming", data={**sent, "id": ids_of(BEN[:2]), "name": "Ben"}))
    assert told(html) == "Ben added with 2 faces Undo"
    assert "<bdi>Ada</bdi></h1>" in html
    assert faces_named(client, both) == {*ids_of(ADA[:5]), *ids_of(BEN[2:3])}
    html = followed(client, client.post(where, data={"version": "2", "id": ids_of(BEN[2:3]), "do": "reject"}))
    assert told(html) == "1 face marked as not Ada Undo"
    assert faces_named(client, both) == set(ids_of(ADA[:5]))
    followed(client, client.post(where, data={"version": "3", "id": ADA[3].face_id, "do": "cover"}))
    assert f"/thumbs/{ADA[3].face_id}" in elements(client.get("/people").text, "img")[0].attributes["src"]
    assert client.post(where, data={"version": "4", "id": [], "do": "reject"}).status_code == 400
    assert client.post(where, data={"version": "4", "id": ADA[0].face_id, "do": "everything"}).status_code == 400


def test_faces_are_moved_to_somebody_with_a_name_after_being_asked_and_never_without_a_name(client: TestClient) -> None:
    both, ben = made(client, "Ada", [*ADA[:5], *BEN[:3]]), made(client, "Ben", BEN[3:])
    sent = hidden_in(client.get(f"/person/{both}").text, f"/person/{both}/faces") | {"id": ids_of(BEN[:3])}
    for name, question in (
        ("", "Whose faces are these?"),
        ("ben", "There is already somebody called “ben”. Is it the same person?"),
    ):
        html = followed(client, client.post("/naming", data={**sent, "name": name}))
        assert question in [one.words for one in elements(html) if one.tag in ("h1", "h2")]
        assert len(faces_named(client, both)) == 8
    answer = hidden_in(html, "/naming") | {"id": ids_of(BEN[:3]), "person": f"{ben}:{person(client, ben).version}"}
    html = followed(client, client.post("/naming", data=answer))
    assert "<bdi>Ada</bdi></h1>" in html
    assert (len(faces_named(client, both)), faces_named(client, ben)) == (5, set(ids_of(BEN)))


def test_a_wrong_name_is_taken_off_on_the_photograph(client: TestClient) -> None:
    ada = made(client, "Ada", [*ADA[:5], BEN[0]])
    photograph = f"/photo/{BEN[0].payload.image_id}"
    html = client.get(photograph).text
    form = hidden_in(html, f"/person/{ada}/faces")
    html = followed(client, client.post(f"/person/{ada}/faces", data={**form, "do": "reject"}))
    assert told(html) == "1 face marked as not Ada Undo"
    assert elements(html, "main")[0].attributes["data-image"] == BEN[0].payload.image_id
    assert faces_named(client, ada) == set(ids_of(ADA[:5]))
    assert f"/person/{ada}/faces" not in html


def test_a_form_of_an_old_page_changes_nothing_says_what_happened_and_keeps_what_was_typed(client: TestClient) -> None:
    ada = made(client, "Ada", ADA)
    version = person(client, ada).version
    client.patch(f"/people/{ada}", json={"name": "Augusta", "version": version})
    typed = {"name": "Ada King", "birth_date": "1815-12-10", "notes": "met <b>here</b>"}
    answer = client.post(f"/person/{ada}/edit", data={**typed, "version": version})
    assert (answer.status_code, person(client, ada).name) == (409, "Augusta")
    assert "Ada renamed to Augusta" in re.sub(r"[\u2068\u2069]", "", answer.text)
    assert 'value="Ada King"' in answer.text
    assert "met &lt;b&gt;here&lt;/b&gt;" in answer.text
    fresh = hidden_in(answer.text, f"/person/{ada}/edit")
    assert fresh["version"] == str(version + 1)
    followed(client, client.post(f"/person/{ada}/edit", data={**typed, **fresh}))
    assert person(client, ada).name == "Ada King"
    selected = {"version": version, "id": ids_of(ADA[:2]), "do": "reject"}
    answer = client.post(f"/person/{ada}/faces", data=selected)
    assert answer.status_code == 409
    checked = [one.attributes["value"] for one in elements(answer.text, "input", "checked")]
    assert sorted(checked) == sorted(ids_of(ADA[:2]))
    assert person(client, ada).faces == 12


def test_a_date_that_is_none_is_told_beside_what_was_typed(client: TestClient) -> None:
    ada = made(client, "Ada", ADA)
    sent = {"name": "Ada", "birth_date": "soon", "notes": "", "version": "1"}
    answer = client.post(f"/person/{ada}/edit", data=sent)
    assert answer.status_code == 400
    assert 'value="soon"' in answer.text
    assert "text/html" in answer.headers["content-type"]


def test_two_people_are_merged_after_both_were_shown(client: TestClient) -> None:
    ada, ben = made(client, "Ada", ADA), made(client, "Ben", BEN)
    assert f"/person/{ada}/merge?with={ben}" in client.get(f"/person/{ada}/merge?q=ben").text
    question = client.get(f"/person/{ada}/merge?with={ben}").text
    shown = [one.words for one in elements(question, "label", of_class="person-choice")]
    assert shown == ["Ada 12 faces", "Ben 6 faces"]
    form = hidden_in(question, f"/person/{ada}/merge")
    client.patch(f"/people/{ben}", json={"notes": "somebody else", "version": 1})
    stale = client.post(f"/person/{ada}/merge", data={**form, "keep": ada})
    assert (stale.status_code, names(client)) == (409, ["Ada", "Ben"])
    form = hidden_in(stale.text, f"/person/{ada}/merge")
    html = followed(client, client.post(f"/person/{ada}/merge", data={**form, "keep": ben}))
    assert told(html) == "Ada merged into Ben Undo"
    assert (names(client), person(client, ben).faces) == (["Ben"], 18)
    undone(client, html)
    assert (names(client), person(client, ada).faces, person(client, ben).faces) == (["Ada", "Ben"], 12, 6)


def test_a_person_is_deleted_after_being_asked_and_comes_back(client: TestClient) -> None:
    ada = made(client, "Ada", ADA)
    question = client.get(f"/person/{ada}/delete")
    assert (question.status_code, names(client)) == (200, ["Ada"])
    form = hidden_in(question.text, f"/person/{ada}/delete")
    stale = client.post(f"/person/{ada}/delete", data={"version": "0"})
    assert (stale.status_code, names(client)) == (409, ["Ada"])
    html = followed(client, client.post(f"/person/{ada}/delete", data=form))
    assert (told(html), names(client)) == ("Ada deleted Undo", [])
    undone(client, html)
    assert faces_named(client, ada) == set(ids_of(ADA))


def test_who_is_in_the_same_pictures_is_listed_with_a_search_for_both(client: TestClient, index: MemoryIndex) -> None:
    beside = [stored_face(face.payload.path, 9, number, place=1) for number, face in enumerate(ADA[:3])]
    index.upsert(beside)
    ada, friend = made(client, "Ada", ADA), made(client, "Friend", beside)
    html = client.get(f"/person/{ada}").text
    (company,) = elements(html, "ul", of_class="company")
    assert company.words == "Friend 3 photographs"
    (search,) = [one for one in elements(html, "a", "href") if "?with=" in one.attributes["href"]]
    assert client.get(search.attributes["href"]).status_code == 200
    assert f'href="/person/{friend}"' in html


# --- history


def test_the_history_undoes_any_change_once(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:3])
    client.patch(f"/people/{ada}", json={"name": "Eva", "version": 1})
    html = client.get("/changes").text
    texts = [re.sub(r"[\u2068\u2069]", "", one.words) for one in elements(html, of_class="change-text")]
    assert texts == ["Ada renamed to Eva", "Ada added with 3 faces"]
    form = {"number": "2", "next": "/changes"}
    followed(client, client.post("/undo", data=form))
    assert names(client) == ["Ada"]
    again = client.post("/undo", data=form)
    assert again.headers["location"] == "/changes?refused=2#change-2"
    assert "This was undone already." in client.get("/changes?refused=2").text
    assert names(client) == ["Ada"]
    assert client.post("/undo", data={"number": "99"}).status_code == 404
    assert client.post("/undo", data={"number": "x"}).status_code == 400


def test_after_a_person_is_undone_the_page_is_not_one_that_is_gone(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:3])
    html = client.get(f"/person/{ada}?done=1").text
    assert told(html) == "Ada added with 3 faces Undo"
    answer = client.post("/undo", data=hidden_in(html, "/undo"))
    assert urlsplit(answer.headers["location"]).path == "/people"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_kind_of_change_has_words(lang: str) -> None:
    t = translator(lang)
    cases: list[tuple[str, dict[str, Any]]] = [
        *((kind, {"name": "Ana"}) for kind in ("create", "edit", "delete", "assign", "confirm", "reject", "new_kind")),
        ("edit", {"name": "Ana", "new": "Eva"}), ("edit", {"name": "Ana", "hidden": 1}),
        ("edit", {"name": "", "hidden": 0}), ("merge", {"name": "Ana", "merged": ["Eva", ""]}),
        ("split", {"name": "Ana", "new": ""}), ("dismiss", {"to": "set_aside"}), ("dismiss", {"to": "not_a_face"}),
        ("dismiss", {"to": None}), ("undo", {"undone": "assign", "name": "Ana"}), ("undo", {"undone": "undo"}),
        ("undo", {"undone": "assign", "name": "Ana", "again": True}), ("edit", {"name": "Ana", "changed": ["cover"]}),
    ]  # fmt: skip
    words = [change_words(kind, details, 3, t) for kind, details in cases]
    assert len(set(words)) == len(words)
    assert all("None" not in one and "{" not in one for one in words)


def test_a_change_is_told_in_an_address_once() -> None:
    assert with_done("/people?tab=groups&done=3#x", None) == "/people?tab=groups#x"
    assert with_done("/person/a", None) == "/person/a"


# --- naming from the results of a search


def test_a_match_leads_to_its_person_and_to_naming_it(client: TestClient) -> None:
    ada = made(client, "Ada | <3", ADA[:6])
    html = client.get(f"/face/{ADA[0].face_id}").text
    named = elements(html, "a", of_class="card-person")
    assert {(one.attributes["href"], one.words) for one in named} == {(f"/person/{ada}", "Ada | <3")}
    assert len(named) == 6
    (asked,) = elements(html, of_class="asked-name")
    assert asked.words == "Ada | <3"
    links = [one for one in elements(html, "a", "href") if one.words == "Name this face…"]
    assert len(links) == 6
    question = client.get(links[0].attributes["href"])
    assert (question.status_code, "Who is this?" in question.text) == (200, True)
    assert "Probably this person Ada | <3, 6 faces" in [one.words for one in elements(question.text, "button")]
    assert hidden_in(question.text, "/naming")["next"].startswith(f"/face/{ADA[0].face_id}")


def test_a_selection_is_named_and_leads_back_to_the_result(client: TestClient) -> None:
    result = f"/face/{ADA[0].face_id}?clear=1"
    html = client.get(result).text
    (button,) = [one for one in elements(html, "button", "formaction") if one.attributes.get("class") == "button"]
    where = button.attributes["formaction"]
    assert parse_qs(urlsplit(where).query)["next"] == [result]
    question = asked(client, client.post(where, data={"id": ids_of(ADA[:5]), "format": "zip", "clear": "1"}))
    assert "Whose faces are these?" in question
    form = hidden_in(question, "/naming")
    answer = client.post("/naming", data={**form, "id": ids_of(ADA[:5]), "name": "Ada"})
    assert answer.headers["location"] == f"{result}&done=1"
    assert told(client.get(answer.headers["location"]).text) == "Ada added with 5 faces Undo"


def test_all_unnamed_matches_above_a_similarity_are_counted_and_then_named(client: TestClient) -> None:
    made(client, "Ben", ADA[:2])
    page = client.get(f"/face/{ADA[4].face_id}").text
    form = {**hidden_in(page, "/naming"), "above": "0.6"}
    question = asked(client, client.post("/naming", data=form))
    assert "10 unnamed matches have a similarity of 0.60 or more" in question
    (named,) = re.findall(r'<form class="name-form.*?</form>', question, re.DOTALL)
    sent = hidden_in(named, "/naming")
    made(client, "Eve", ADA[5:6])  # one less than was told
    changed = asked(client, client.post("/naming", data={**sent, "name": "Ada"}))
    assert "9 unnamed matches" in changed
    assert names(client) == ["Ben", "Eve"]
    (named,) = re.findall(r'<form class="name-form.*?</form>', changed, re.DOTALL)
    html = followed(client, client.post("/naming", data={**hidden_in(named, "/naming"), "name": "Ada"}))
    assert told(html) == "Ada added with 9 faces Undo"
    assert client.post("/naming", data={**form, "above": "2"}).status_code == 400
    nothing = asked(client, client.post("/naming", data={**form, "above": "0.6"}))
    assert "There are no faces left to name." in nothing


def test_of_each_photograph_only_the_most_similar_match_is_named(client: TestClient, index: MemoryIndex) -> None:
    index.upsert([stored_face(face.payload.path, 1, 50 + n, place=1) for n, face in enumerate(ADA[:3])])
    form = {**hidden_in(client.get(f"/face/{ADA[4].face_id}").text, "/naming"), "above": "0.6"}
    assert "12 unnamed matches" in asked(client, client.post("/naming", data=form))


def test_faces_with_another_name_are_asked_about(client: TestClient) -> None:
    ben = made(client, "Ben", ADA[:2])
    form = {"id": ids_of(ADA[:4]), "name": "Ada"}
    question = asked(client, client.post("/naming", data=form))
    assert person(client, ben).faces == 2
    assert "2 of these faces already have another name." in question
    assert "Name all of them Ada instead?" in question
    assert "replace`" not in question
    sent = {**hidden_in(question, "/naming"), **form, "new": "1"}
    followed(client, client.post("/naming", data=sent))
    assert (person(client, ben).faces, sorted(names(client))) == (0, ["Ada", "Ben"])


def test_thousands_of_selected_faces_fit_into_a_form(client: TestClient, index: MemoryIndex) -> None:
    many = faces_of(4, 300)
    index.upsert(many)
    html = followed(client, client.post("/naming", data={"id": ids_of(many), "name": "Many"}))
    assert told(html) == "Many added with 300 faces Undo"


def test_only_unnamed_matches_can_be_shown(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:6])
    html = client.get(f"/face/{ADA[0].face_id}?unnamed=1").text
    assert {one.attributes["data-face-id"] for one in elements(html, "li", "data-face-id")} == set(ids_of(ADA[6:]))
    assert "Without a name ×" in [one.words for one in elements(html, of_class="chip")]
    html = client.get(f"/face/{ADA[0].face_id}?named={ada}").text
    assert {one.attributes["data-face-id"] for one in elements(html, "li", "data-face-id")} == set(ids_of(ADA[:6]))


def test_a_form_leads_to_no_other_site(client: TestClient) -> None:
    sent = {"id": ids_of(ADA[:1]), "name": "Ada", "next": "https://evil.example/"}
    assert client.post("/naming", data=sent).headers["location"].startswith("/")
    assert not client.post("/undo", data={"number": "1", "next": "//evil.example"}).headers["location"].startswith("//")


@pytest.mark.parametrize("path", ["/naming", "/dismiss"])
def test_faces_that_are_not_there_are_an_error_page(client: TestClient, path: str) -> None:
    for face, status in (("x", 404), ("0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d", 404)):
        answer = client.post(path, data={"id": face, "name": "Ada", "kind": "set_aside"})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")


# --- rights


def test_who_may_only_search_sees_people_and_no_way_to_change_them(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:6])
    group, _ = grouped(client, ADA[6:], BEN)
    keys = services_of(client).keys
    for role in ("admin", "search"):
        client.headers["X-API-Key"] = add_key(keys, checked_grant(role, role), "tests")[1]
        services_of(client).authenticator.find_whether_key_is_needed()
    for path in (
        "/people",
        "/people?tab=groups",
        f"/group/{group}",
        f"/person/{ada}",
        f"/face/{ADA[0].face_id}?done=1",
    ):
        html = client.get(path).text
        for form in elements(html, "form"):
            assert not re.search(r"/(naming|dismiss|undo|person/.*)", form.attributes.get("action", "")), path
        assert 'href="/naming' not in html
        assert 'href="/changes' not in html
        assert "data-toast>" not in html
    assert "Ada" in client.get(f"/person/{ada}").text
    assert client.get("/changes").status_code == 403
