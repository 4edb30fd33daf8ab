"""The page of one person: what a button confirms, where a wrong field is told, which orders there are, the cover."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.catalog import FaceTable, GroupedFace
from app.core.config import Settings
from app.core.types import FacePoint
from app.main import create_app
from app.service import Services
from tests.support.clients import TestClient
from tests.support.face_pictures import faces_of, ids_of, likeness, stored_face
from tests.support.fakes import FakeEngine, MemoryIndex, embedding_of
from tests.support.html import elements

ADA = faces_of(1, 6)
EVE = faces_of(3, 2)
BLURRED = faces_of(1, 3, "/photos/blurred", flaws=("blurred",))
BROWSER = {"Accept": "text/html"}


def away(number: int) -> FacePoint:
    """A face that hardly resembles Ada, but the others of its kind."""
    mixed = 0.25 * embedding_of(1) + 0.97 * likeness(7, number, 0.2)
    face = stored_face(f"/photos/away-{number}.jpg", 1)
    return replace(face, embedding=np.asarray(mixed / np.linalg.norm(mixed), np.float32))


AWAY = [away(number) for number in range(4)]


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    index = MemoryIndex()
    index.upsert([*ADA, *EVE, *BLURRED, *AWAY])
    with TestClient(create_app(settings, FakeEngine(), index), follow_redirects=False, headers=BROWSER) as client:
        yield client


def made(client: TestClient, name: str, faces: Sequence[FacePoint]) -> str:
    answer = client.post("/people", json={"name": name, "face_ids": ids_of(faces)})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["person"]["id"])


def grouped(client: TestClient, faces: Sequence[FacePoint]) -> None:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    rows = [GroupedFace(one.face_id, one.payload.image_id, faces[0].face_id, clear=True) for one in faces]
    FaceTable(services.ledger.database, services.ledger.collection).write(rows)


def suggested(html: str) -> tuple[list[Any], list[Any]]:
    """The cards above the line and those below it."""
    form = html[html.index('<form id="suggestions"') :]
    entries = elements(form[: form.index("</form>")], "li")
    line = [place for place, one in enumerate(entries) if "line" in one.attributes.get("class", "")]
    assert len(line) <= 1, "one line"
    cut = line[0] if line else len(entries)
    return entries[:cut], entries[cut + 1 :]


def test_the_button_confirms_what_is_above_the_line_and_each_card_says_why(client: TestClient) -> None:
    grouped(client, [ADA[0], ADA[1], *AWAY])
    ada = made(client, "Ada", ADA[:1])
    html = client.get(f"/person/{ada}").text
    above, below = suggested(html)
    sure = {one.attributes["value"] for one in elements(html, "input", "name") if one.attributes["name"] == "sure"}
    assert {one.attributes["data-face-id"] for one in above} == sure == {*ids_of(ADA[1:])}
    assert {one.attributes["data-face-id"] for one in below} == {*ids_of(BLURRED), *ids_of(AWAY)}
    assert f"Confirm the {len(above)} above the line" in html
    words = {one.attributes["data-face-id"]: one.words for one in above}
    assert "Same group" in words[ADA[1].face_id]
    assert all("Very similar" in words[one] for one in ids_of(ADA[2:]))
    assert not [one for one in above if "Look closely" in one.words]
    doubts = {one.attributes["data-face-id"]: one.words for one in below}
    assert all("Look closely" in doubts[one] and "unclear face" in doubts[one] for one in ids_of(BLURRED))
    assert all("Look closely" in doubts[one] and "same group" in doubts[one] for one in ids_of(AWAY))
    assert f"Less sure ({len(below)}): look at each of these" in html
    assert "Above the line: clear faces" in html


def test_the_list_says_whose_faces_wait_to_be_confirmed_until_they_are(client: TestClient) -> None:
    def waiting() -> list[str]:
        return [one.words for one in elements(client.get("/people").text, of_class="company-person")]

    ada = made(client, "Ada", ADA[:1])
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    rows = [GroupedFace(one.face_id, one.payload.image_id, ada, clear=True) for one in ADA[:4]]
    FaceTable(services.ledger.database, services.ledger.collection).write(rows)
    services.people.unnamed.forget()
    assert waiting() == ["Ada 3 faces"]
    assert "1 face · 3 to confirm" in client.get("/people").text
    client.post(f"/person/{ada}/suggestions", data={"version": 1, "yes": ADA[1].face_id})
    client.post(f"/person/{ada}/suggestions", data={"version": 2, "no": ADA[2].face_id})
    assert waiting() == ["Ada 1 face"]
    client.patch(f"/people/{ada}", json={"hidden": True, "version": 3})
    assert waiting() == []
    client.patch(f"/people/{ada}", json={"hidden": False, "version": 4})
    client.post(f"/person/{ada}/suggestions", data={"version": 5, "yes": ADA[3].face_id})
    assert waiting() == []
    assert "to confirm" not in client.get("/people").text


def test_the_group_of_somebody_without_a_face_is_an_unnamed_group(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:1])
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    rows = [GroupedFace(one.face_id, one.payload.image_id, ada, clear=True) for one in ADA[:4]]
    FaceTable(services.ledger.database, services.ledger.collection).write(rows)
    client.post(f"/people/{ada}/reject", json={"face_ids": ids_of(ADA[:1]), "version": 1})
    assert elements(client.get("/people").text, of_class="company-person") == []
    (group,) = client.get("/people/groups", headers={"Accept": "application/json"}).json()["groups"]
    assert group["faces"] == 3


def test_a_person_of_the_same_name_is_shown_and_may_be_merged(client: TestClient) -> None:
    ada, other = made(client, "Ada", ADA), made(client, "Eve", EVE)
    assert f"/merge?with={other}" not in client.get(f"/person/{ada}").text
    client.post(f"/person/{other}/edit", data={"version": 1, "name": "ADA"})
    for one, beside in ((ada, other), (other, ada)):
        html = client.get(f"/person/{one}").text
        assert f'href="/person/{one}/merge?with={beside}"' in html
        assert f'href="/person/{beside}"' in html


def test_without_a_less_sure_one_there_is_no_line(client: TestClient) -> None:
    eve = made(client, "Ada", [*ADA[:3], *BLURRED])
    html = client.get(f"/person/{eve}").text
    above, below = suggested(html)
    assert (len(above), below) == (3, [])
    assert "Confirm all 3" in html
    assert "All of these are clear faces" in html


@pytest.mark.parametrize(("lang", "told"), [("en", "is not a date"), ("es", "no es una fecha")])
def test_a_wrong_birth_date_is_told_at_the_field_in_the_open_form(client: TestClient, lang: str, told: str) -> None:
    ada = made(client, "Ada", ADA)
    client.cookies.set("lang", lang)
    sent = {"name": "Ada B.", "birth_date": "soon <b>", "notes": "at the lake", "version": "1"}
    answer = client.post(f"/person/{ada}/edit", data=sent)
    assert answer.status_code == 400
    (menu,) = elements(answer.text, "details", of_class="menu")
    assert "open" in menu.attributes
    (field,) = elements(answer.text, "input", "aria-invalid")
    assert (field.attributes["name"], field.attributes["value"]) == ("birth_date", "soon <b>")
    assert "autofocus" in field.attributes
    about = field.attributes["aria-describedby"]
    (message,) = [one for one in elements(answer.text, "span", "id") if one.attributes["id"] == about]
    assert told in message.words
    assert "soon <b>" in message.words
    assert not elements(answer.text, "section", of_class="warning"), "not told a second time above the heading"
    assert 'value="Ada B."' in answer.text
    assert "at the lake</textarea>" in answer.text


@pytest.mark.parametrize(
    ("lang", "told"),
    [("en", "The birth date 9021-05 is in the future."), ("es", "La fecha de nacimiento 9021-05 está en el futuro.")],
)
def test_a_birth_date_in_the_future_is_told_at_the_field(client: TestClient, lang: str, told: str) -> None:
    ada = made(client, "Ada", ADA)
    client.cookies.set("lang", lang)
    sent = {"name": "Ada", "birth_date": "9021-05", "notes": "", "version": "1"}
    answer = client.post(f"/person/{ada}/edit", data=sent)
    assert answer.status_code == 400
    (field,) = elements(answer.text, "input", "aria-invalid")
    about = field.attributes["aria-describedby"]
    assert told in [one.words for one in elements(answer.text, "span", "id") if one.attributes["id"] == about]


def test_orders_by_date_are_offered_only_if_a_photograph_has_one(client: TestClient) -> None:
    ada, nobody = made(client, "Ada", ADA), made(client, "Away", AWAY)
    orders = [one.words for one in elements(client.get(f"/person/{ada}").text, "a", of_class="chip")]
    assert orders == ["Newest", "Oldest", "Most similar"]
    for order in ("", "?order=oldest", "?order=similarity"):
        html = client.get(f"/person/{nobody}{order}").text
        assert elements(html, "a", of_class="chip") == []
        assert "These photographs have no date" in html
        assert len(elements(html, "input", of_class="card-select")) == len(AWAY)
    client.post(f"/people/{nobody}/faces", json={"face_ids": ids_of(EVE[:1]), "version": 1})
    assert len(elements(client.get(f"/person/{nobody}?order=similarity").text, "a", of_class="chip")) == 3


def test_pages_of_undated_faces_have_every_face_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.pages.person.FACES", 3)
    person, seen = made(client, "Away", AWAY), []
    address = f"/person/{person}"
    while address:
        html = client.get(address).text
        seen += [one.attributes["value"] for one in elements(html, "input", of_class="card-select")]
        further = [one for one in elements(html, "a", "href") if one.attributes.get("rel") == "next"]
        address = further[0].attributes["href"] if further else ""
    assert sorted(seen) == sorted(ids_of(AWAY))


def test_the_cover_stays_when_suggestions_are_confirmed(client: TestClient) -> None:
    named = max(ADA, key=lambda one: one.face_id)  # not the one with the lowest id
    ada = made(client, "Ada", [named])
    form = {"version": "1", "do": "all", "sure": [one.face_id for one in ADA if one is not named]}
    assert client.post(f"/person/{ada}/suggestions", data=form).status_code == 303
    shown = client.get(f"/people/{ada}", headers={"Accept": "application/json"}).json()["person"]
    assert (shown["faces"], shown["cover"]) == (6, named.face_id)
    (cover,) = elements(client.get(f"/person/{ada}").text, of_class="person-cover")
    assert cover.words == ""
    assert f'<span class="person-cover"><img src="/thumbs/{named.face_id}"' in client.get(f"/person/{ada}").text


def test_a_selected_face_that_somebody_took_away_is_not_sent_again(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:4])
    client.post(f"/people/{ada}/split", json={"face_ids": ids_of(ADA[:1]), "name": "Eve", "version": 1})
    form = {"version": "1", "id": ids_of(ADA[:2]), "do": "reject"}
    answer = client.post(f"/person/{ada.upper()}/faces", data=form)
    assert answer.status_code == 409
    ticked = [one.attributes["value"] for one in elements(answer.text, "input", "checked")]
    assert ticked == ids_of(ADA[1:2])
    assert ADA[0].face_id not in answer.text
