"""The history of people: what its lines say, undoes that are refused, and what other pages tell."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from app.catalog import PEOPLE, ChangeLog, NewChange
from app.core.config import Settings
from app.main import create_app
from app.web.pages import changes
from tests.support.clients import TestClient
from tests.support.face_pictures import faces_of, ids_of
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import elements
from tests.web.test_people_pages import followed, hidden_in, made, services_of, told, undone

ADA, BEN = faces_of(1, 8), faces_of(2, 4)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    index = MemoryIndex()
    index.upsert([*ADA, *BEN])
    with TestClient(create_app(settings, FakeEngine(), index), headers={"Accept": "text/html"}) as client:
        client.follow_redirects = False
        yield client


def texts(html: str) -> list[str]:
    """What the lines of the history say, without the marks around names."""
    return [re.sub(r"[\u2068\u2069]", "", one.words) for one in elements(html, of_class="change-text")]


def from_metadata(client: TestClient, person_id: str, count: int, who: str = "command ana@host") -> None:
    """Write entries as an ingest does, one for each batch."""
    log = ChangeLog(services_of(client).ledger.database)
    for number in range(count):
        with log.making(NewChange(who, "metadata"), {}) as making:
            (row,) = making.rows(PEOPLE, "id", [person_id])
            making.put(PEOPLE, [(row, row | {"notes": f"{who} {number}"})])
            making._faces.update((str(one),) for one in range(10))


def test_what_an_ingest_named_is_one_line_with_the_sum_and_its_entries_within(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:3])
    from_metadata(client, ada, 25)
    from_metadata(client, ada, 2, who="command eve@host")
    html = client.get("/changes").text
    assert texts(html)[0] == "20 faces named from the metadata of the photographs"
    assert texts(html)[3] == "250 faces named from the metadata of the photographs"
    assert len(elements(html, "details")) == 2
    assert len(texts(html)) == 2 + 2 + 25 + 1
    assert "25 entries" in [one.words for one in elements(html, of_class="change-more")]
    assert "ana@host" in [one.words for one in elements(html, "bdi")]
    assert len(elements(html, "form", "data-soft")) == 28, "each entry can be undone"
    person = client.get(f"/person/{ada}").text
    assert "Ada added with 3 faces" in texts(person), "not pushed out by the entries of one ingest"


def links(html: str) -> list[list[str]]:
    """The names of the people to whom each line of the history links."""
    return [
        [one.words for one in elements(line, "a") if one.attributes["href"].startswith("/person/")]
        for line in html.partition('<ul class="changes">')[2].split('class="change-words"')[1:]
    ]


def test_a_line_has_its_number_and_links_by_name_to_whom_it_was_about(client: TestClient) -> None:
    people = [made(client, name, [face]) for name, face in zip("DCBA", ADA[:4], strict=True)]
    for kind, ids in (("import", people), ("import", people[:1])):
        with ChangeLog(services_of(client).ledger.database).making(NewChange("command ana@host", kind), {}) as making:
            rows = making.rows(PEOPLE, "id", ids)
            making.put(PEOPLE, [(row, row | {"notes": f"{len(ids)}"}) for row in rows])
    from_metadata(client, people[2], 2)
    client.post("/faces/dismiss", json={"face_ids": ids_of(BEN[:1]), "kind": "set_aside"})
    client.delete(f"/people/{people[3]}", headers={"If-Match": '"2"'})
    html = client.get("/changes").text
    line, *parts = ["B"], [], []
    assert links(html) == [[], [], line, *parts, ["D"], ["B", "C", "D"], [], ["B"], ["C"], ["D"]]
    assert [one.words for one in elements(html, "span", of_class="change-number")] == [
        f"#{number}" for number in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)
    ]
    client.post("/changes/10/undo")
    assert links(client.get("/changes").text)[7] == ["A", "B", "C"]
    assert "</a>, …" in client.get("/changes").text


def test_the_history_of_a_person_leads_back_to_them_by_name(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:1])
    back = f'<a href="/person/{ada}"><span class="arrow" aria-hidden="true">←</span> <bdi>Ada</bdi></a>'
    assert back in client.get(f"/changes?person_id={ada}").text
    assert links(client.get(f"/changes?person_id={ada}").text) == [[]]
    client.delete(f"/people/{ada}", headers={"If-Match": '"1"'})
    html = client.get(f"/changes?person_id={ada}").text
    assert texts(html) == ["Ada deleted", "Ada added with 1 face"]
    assert f'href="/person/{ada}"' not in html


def test_a_page_of_the_history_has_many_lines_however_many_entries_an_ingest_wrote(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "CHANGES", 4)
    ada = made(client, "Ada", ADA[:1])
    for version in range(1, 6):
        client.patch(f"/people/{ada}", json={"name": f"Ada {version}", "version": version})
    from_metadata(client, ada, 11)
    html = client.get("/changes").text
    assert len(elements(html, "details")) == 1
    assert [one for one in texts(html) if "renamed" in one] == [
        "Ada 4 renamed to Ada 5", "Ada 3 renamed to Ada 4", "Ada 2 renamed to Ada 3",
    ]  # fmt: skip
    (older,) = [one.attributes["href"] for one in elements(html, "a", "rel") if one.attributes["rel"] == "next"]
    assert texts(client.get(older).text) == ["Ada 1 renamed to Ada 2", "Ada renamed to Ada 1", "Ada added with 1 face"]


def test_an_undo_that_is_refused_says_why_at_its_line(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:3])
    client.post(f"/people/{ada}/reject", json={"face_ids": ids_of(ADA[:1]), "version": 1})
    answer = client.post("/undo", data={"number": "1", "next": "/changes?person_id=" + ada})
    assert answer.headers["location"] == f"/changes?person_id={ada}&refused=1#change-1"
    html = client.get(answer.headers["location"]).text
    (line,) = elements(html, "li", "data-refused")
    assert (line.attributes["id"], "autofocus" in line.attributes) == ("change-1", True)
    (why,) = [one for one in elements(html, "p", "role") if one.attributes["role"] == "alert"]
    assert re.sub(r"[\u2068\u2069]", "", why.words) == (
        "This can't be undone, because of a later change: 1 face marked as not Ada."
    )
    assert "data-toast>" not in html


def test_an_undo_that_is_refused_elsewhere_says_so_there(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:3])
    page = client.get("/people?tab=groups&done=1").text
    client.post(f"/people/{ada}/faces", json={"face_ids": ids_of(ADA[3:4]), "version": 1})
    answer = client.post("/undo", data=hidden_in(page, "/undo"))
    assert answer.headers["location"] == "/people?tab=groups&refused=1"
    html = followed(client, answer)
    assert told(html) == "This can't be undone, because of a later change: 1 face named Ada."
    assert "refused" not in followed(client, client.post("/undo", data={"number": "2", "next": "/people?refused=1"}))
    for rubbish in ("refused=99", "refused=x", "refused=-1", "refused=" + "9" * 40):
        assert client.get(f"/people?{rubbish}").status_code == 200


def test_an_undo_that_is_refused_on_the_page_of_somebody_deleted_says_so_in_the_list(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:3])
    client.delete(f"/people/{ada}", headers={"If-Match": '"1"'})
    html = followed(client, client.post("/undo", data={"number": "1", "next": f"/person/{ada}?done=1"}))
    assert told(html).startswith("This can't be undone, because of a later change: Ada deleted")


def test_a_change_that_was_undone_meanwhile_says_so(client: TestClient) -> None:
    made(client, "Ada", ADA[:3])
    page = client.get("/people?done=1").text
    undone(client, page)
    again = followed(client, client.post("/undo", data=hidden_in(page, "/undo")))
    assert told(again) == "This was undone already."


def test_an_older_page_of_the_history_stays_when_one_of_its_changes_is_undone(client: TestClient) -> None:
    made(client, "Ada", ADA[:1])
    made(client, "Ben", BEN[:1])
    html = client.get("/changes?before=2").text
    assert hidden_in(html, "/undo")["next"] == "/changes?before=2"


def test_the_words_of_a_change_say_what_it_was(client: TestClient) -> None:
    ada = made(client, "Ada", ADA[:3])
    cover = client.get(f"/people/{ada}", headers={"Accept": "application/json"}).json()["person"]["cover"]
    other = next(one for one in ids_of(ADA[:3]) if one != cover)
    client.patch(f"/people/{ada}", json={"cover": other, "version": 1})
    for number in (2, 3, 4):
        client.post(f"/changes/{number}/undo")
    client.patch(f"/people/{ada}", json={"notes": "x", "version": 5})
    html = client.get("/changes").text
    assert texts(html) == [
        "Details of Ada changed",
        "Undone: New cover for Ada",
        "Redone: New cover for Ada",
        "Undone: New cover for Ada",
        "New cover for Ada",
        "Ada added with 3 faces",
    ]
    buttons = [one.words for one in elements(html, "button") if one.words in ("Undo", "Redo")]
    assert buttons == ["Undo", "Redo", "Redo", "Undo"], "not of what is undone"
    assert "this computer" in [one.words for one in elements(html, "bdi")]


def test_two_people_to_merge_are_both_in_the_title(client: TestClient) -> None:
    ada, ben = made(client, "Ada", ADA[:3]), made(client, "Ben", BEN)
    title = elements(client.get(f"/person/{ada}/merge?with={ben}").text, "h1")[0]
    assert title.words == "Merge Ada and Ben"
