"""The page as HTML: without a browser, without a model."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.types import FLAWS, Face, FaceFilter, FaceMatches, FacePayload, Match, Picture, SearchResult
from app.main import create_app
from app.service import Search, Services
from app.service.monitor import Monitor
from app.web.i18n import LANGUAGES, translator
from app.web.pages import search as pages
from app.web.pages import views
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex, embedding_of, picture_of
from tests.support.pictures import encoded, point

Post = Callable[..., httpx.Response]
FETCH = {"X-Requested-With": "fetch"}
EVIL = "<script>alert(1)</script>"
STATIC = Path(pages.__file__).parents[2] / "static"


class Found:
    """Stands in for the search: answers or fails as told, and remembers how it was asked."""

    def __init__(self) -> None:
        self.faces: tuple[FaceMatches, ...] = ()
        self.error: OceanoError | None = None
        self.limit = 0
        self.threshold = 0.0
        self.where: FaceFilter | None = None

    async def run(
        self,
        picture: Picture,
        *,
        limit: int,
        threshold: float,
        max_faces: int | None = None,
        where: FaceFilter | None = None,
        took_ms: dict[str, float] | None = None,
    ) -> SearchResult:
        self.limit, self.threshold, self.where = limit, threshold, where
        if self.error:
            raise self.error
        return SearchResult(picture.width, picture.height, threshold, self.faces, {"total": 41.0})


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Elements(HTMLParser):
    """Every element of a page in document order, with the text directly within it."""

    all: list[Element] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.all.append(element)
        self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1].text += data


def elements(html: str, tag: str = "", attribute: str = "") -> list[Element]:
    """Those of a tag, or with an attribute, or all."""
    parser = Elements()
    parser.feed(html)
    return [one for one in parser.all if tag in ("", one.tag) and (not attribute or attribute in one.attributes)]


def matches(*similarities: float, path: str = "/photos/2019/beach.jpg", person: str | None = None) -> tuple[Match, ...]:
    payload = FacePayload("a" * 64, path, (), (0, 0, 9, 9), (), 99, 99, 0.9, 0.8, person, None, "2026-01-01T00:00:00")
    return tuple(Match(f"face-{place}", similarity, payload) for place, similarity in enumerate(similarities))


def face(place: int, found: tuple[Match, ...]) -> FaceMatches:
    x = 10.0 + 60 * place
    detected = Face((x, 20, x + 40, 70), ((x, 30),) * 5, 0.91, 0.8, "direct", embedding_of(place))
    return FaceMatches(place, detected, found)


@pytest.fixture(scope="module")
def photograph() -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.full((100, 200, 3), 140, np.uint8)).save(written, "PNG")
    return written.getvalue()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    with TestClient(create_app(settings, FakeEngine(), MemoryIndex())) as client:
        yield client


@pytest.fixture
def client(running: TestClient) -> TestClient:
    """A visitor who has never been here."""
    running.cookies.clear()
    return running


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are faces in the index."""
    monkeypatch.setattr(Monitor, "faces_indexed", 1234567)


@pytest.fixture
def found(filled: None, monkeypatch: pytest.MonkeyPatch) -> Found:
    stand_in = Found()
    monkeypatch.setattr(Search, "run", stand_in.run)
    return stand_in


@pytest.fixture
def post(client: TestClient, found: Found, photograph: bytes) -> Post:
    """Sends the photograph as the form does, or as page.js does."""

    def send(
        *, fetch: bool = False, data: bytes = photograph, address: str = "/?lang=en", **fields: str
    ) -> httpx.Response:
        return client.post(address, files={"image": ("p.png", data)}, data=fields, headers=FETCH if fetch else {})

    return send


# --- the start


def test_the_slider_starts_at_the_models_threshold(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "pack", replace(FakeEngine.pack, threshold=0.55))
    assert 'value="0.55"' in client.get("/").text


def test_the_start_page_asks_for_a_photograph(client: TestClient, filled: None) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    (form,) = elements(response.text, "form")
    assert form.attributes | {"method": "post", "enctype": "multipart/form-data"} == form.attributes
    (chooser,) = elements(response.text, "input", "accept")
    assert chooser.attributes["name"] == "image"
    assert chooser.attributes["data-max-bytes"] == "15000000"
    assert "1,234,567 faces indexed" in response.text
    assert "data-outcome" not in response.text


def test_the_footer_names_the_model_and_leads_to_status_metrics_and_api(client: TestClient, filled: None) -> None:
    html = client.get("/").text
    assert "Model fake" in html
    links = {link.attributes["href"] for link in elements(html, "a")}
    assert {"/status", "/metrics", "/openapi.json"} <= links


def test_every_field_has_a_label_and_every_button_a_name(client: TestClient, filled: None) -> None:
    html = client.get("/").text
    labelled = {label.attributes["for"] for label in elements(html, "label")}
    fields = [one for tag in ("input", "select") for one in elements(html, tag)]
    assert len(fields) == 4
    assert {one.attributes["id"] for one in fields} == labelled
    assert all(one.text.strip() or "aria-label" in one.attributes for one in elements(html, "button"))


def test_an_empty_index_shows_how_to_fill_it(client: TestClient) -> None:
    html = client.get("/").text
    assert "Nothing is indexed yet" in html
    assert "./quick-start.sh ingest FOLDER" in html


def test_a_filled_index_does_not(client: TestClient, filled: None) -> None:
    assert "oceano ingest" not in client.get("/").text


def test_an_index_out_of_reach_is_said_and_not_called_empty(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Monitor, "faces_indexed", None)
    html = client.get("/").text
    assert "Index unavailable" in html
    assert "Nothing is indexed yet" not in html


@pytest.mark.parametrize(("lang", "license"), [("en", "non-commercial research"), ("es", "no comercial")])
def test_the_demo_says_so_and_how_to_get_the_real_model(
    client: TestClient, filled: None, monkeypatch: pytest.MonkeyPatch, lang: str, license: str
) -> None:
    assert "oceano models install" not in client.get("/").text
    monkeypatch.setattr(Services, "demo", True)
    html = client.get("/", params={"lang": lang}).text
    assert "<code>.venv/bin/oceano models install opencv</code>" in html
    assert "<code>.venv/bin/oceano models install antelopev2</code>" in html
    assert license in html


# --- languages


def test_the_language_follows_the_browser_the_cookie_and_the_address(client: TestClient, filled: None) -> None:
    spanish = client.get("/", headers={"Accept-Language": "es-MX,es;q=0.9"})
    assert '<html lang="es">' in spanish.text
    assert spanish.headers["content-language"] == "es"
    assert "set-cookie" not in spanish.headers

    chosen = client.get("/", params={"lang": "es"})
    assert re.match(r"lang=es;.*HttpOnly.*SameSite=lax", chosen.headers["set-cookie"])
    assert '<html lang="es">' in client.get("/", headers={"Accept-Language": "en"}).text


def test_an_unknown_language_changes_nothing(client: TestClient, filled: None) -> None:
    response = client.get("/", params={"lang": EVIL})
    assert '<html lang="en">' in response.text
    assert "set-cookie" not in response.headers


def test_the_answer_keeps_the_language_of_the_form(post: Post, found: Found) -> None:
    found.faces = (face(0, matches(0.7)),)
    assert "1 rostro encontrado" in post(address="/?lang=es").text
    assert "1 rostro encontrado" in post(address="/?lang=es", fetch=True).text
    assert "1 rostro encontrado" in post(address="/", lang="es").text


# --- results


def test_the_whole_page_includes_just_what_page_js_fetches(post: Post, found: Found) -> None:
    found.faces = (face(0, matches(0.9, 0.7)), face(1, matches(0.5)))
    page, part = (re.sub(r"\d+ ms", "", text) for text in (post().text, post(fetch=True).text))
    assert "<html" in page
    assert "<html" not in part
    assert len(part) > 1000
    assert part.strip() in page


def test_each_face_is_outlined_in_the_pictures_own_coordinates(post: Post, found: Found) -> None:
    found.faces = (face(0, matches(0.9)), face(1, matches(0.8)))
    html = post().text
    (picture,) = [one for one in elements(html, "svg") if one.attributes.get("class") == "picture"]
    assert picture.attributes["viewbox"] == "0 0 200 100"
    (shown,) = elements(html, "image")
    assert shown.attributes["href"].startswith("data:image/webp;base64,UklGR")
    outlines = [one for one in elements(html, "a") if one.attributes.get("class") == "outline"]
    assert [one.attributes["href"] for one in outlines] == ["#face-1", "#face-2"]
    sections = {one.attributes["id"] for one in elements(html, "section", "data-face")}
    assert sections == {"face-1", "face-2"}
    boxes = [one.attributes for one in elements(html, "rect") if "x" in one.attributes]
    places = [[float(box[name]) for name in ("x", "y", "width", "height")] for box in boxes]
    assert places == [[10, 20, 40, 50], [70, 20, 40, 50]]


def test_a_match_shows_thumbnail_similarity_name_folder_and_person(post: Post, found: Found) -> None:
    found.faces = (face(0, matches(0.7149, path="/photos/2019/beach.jpg", person="Ana")),)
    html = post().text
    (thumb,) = elements(html, "img", "loading")
    assert thumb.attributes["src"] == "/thumbs/face-0"
    assert "<b>0.71</b>" in html
    assert "<bdi>Ana</bdi>" in html
    assert re.sub("<wbr>", "", html).count("<bdi>beach.jpg</bdi>") == 1
    assert '<bdi dir="ltr">/photos/2019</bdi>' in html
    assert elements(html, "button", "data-copy")[0].attributes["data-copy"] == "/photos/2019/beach.jpg"


def test_without_javascript_the_server_applies_the_chosen_threshold(post: Post, found: Found) -> None:
    post(threshold="0.55", limit="50")
    assert (found.threshold, found.limit) == (0.55, 50)


def test_for_page_js_the_server_fetches_all_and_hides_what_is_below(post: Post, found: Found) -> None:
    found.faces = (face(0, matches(0.9, 0.55, 0.5499, 0.3)),)
    html = post(fetch=True, threshold="0.55").text
    assert found.threshold == views.THRESHOLD_MIN
    shown = {one.attributes["data-similarity"]: "hidden" not in one.attributes for one in elements(html, "li")}
    assert shown == {"0.90": True, "0.55": True, "0.54": False, "0.30": False}
    counts = {one.text for one in elements(html, "", "data-count")}
    assert counts == {"2 matches"}


def test_what_shows_as_the_threshold_passes_it() -> None:
    for cents in range(20, 91):
        threshold = cents / 100
        exact = views.face_view(face(0, matches(float(np.float32(threshold)))), _result(), views.SearchForm(threshold))
        assert exact.matches[0].similarity == threshold
        assert not exact.matches[0].hidden
        below = views.face_view(face(0, matches(threshold - 0.0001)), _result(), views.SearchForm(threshold))
        assert below.matches[0].similarity == pytest.approx(threshold - 0.01)
        assert below.matches[0].hidden


def _result() -> SearchResult:
    return SearchResult(200, 100, 0.2, (), {})


def test_a_face_without_matches_says_so_and_how_close_the_closest_is(post: Post, found: Found) -> None:
    found.faces = (face(0, matches(0.9)), face(1, matches(0.37, 0.3)))
    html = post(fetch=True).text
    notes = elements(html, "div", "data-none")
    assert ["hidden" in one.attributes for one in notes] == [True, False]
    assert "The closest is at 0.37." in html
    assert [one.attributes["data-lower"] for one in elements(html, "button", "data-lower")] == ["0.90", "0.37"]


def test_without_javascript_a_face_without_matches_suggests_a_lower_similarity(post: Post, found: Found) -> None:
    found.faces = (face(0, ()),)
    html = post(threshold="0.60").text
    assert "Search again with a lower similarity" in html
    assert [one.text for one in elements(html, "span", "data-least")] == ["0.60"]


def test_results_over_an_empty_index_say_how_to_fill_it(client: TestClient, photograph: bytes) -> None:
    response = client.post("/", files={"image": photograph}, headers=FETCH)
    assert response.status_code == 200
    assert "./quick-start.sh ingest FOLDER" in response.text
    assert elements(response.text, "", "data-none") == []


def test_a_cut_list_says_that_there_are_more_and_gives_no_exact_number(post: Post, found: Found) -> None:
    whole = face(0, matches(0.9, 0.8, 0.7))
    found.faces = (whole,)
    assert "data-full" not in post(limit="3").text
    assert ">3 matches<" in post(limit="3").text
    found.faces = (replace(whole, next="cursor"),)
    cut = post(limit="3").text
    assert "data-full" in cut
    assert ">3 or more matches<" in cut
    assert "3 or more matches at 0.40 or above<" in cut
    assert ">3 matches<" not in cut


def test_a_cut_list_has_a_form_that_shows_more_without_the_picture(post: Post, found: Found) -> None:
    found.faces = (replace(face(0, matches(0.9, 0.8, 0.7)), next="cursor-7"),)
    html = post(limit="3", threshold="0.55", clear="1").text
    (form,) = elements(html, "form", "data-full")
    assert form.attributes["action"].startswith("/more?lang=")
    sent = {one.attributes["name"]: one.attributes["value"] for one in elements(html, "input", "value")}
    assert sent["after"] == "cursor-7"
    assert (sent["face"], sent["limit"], sent["clear"]) == ("1", "3", "1")
    assert "hidden" not in form.attributes


def _read_to_the_end(client: TestClient, html: str, headers: dict[str, str]) -> tuple[list[str], list[str]]:
    """Press "Show more" until there is no such button; return the faces shown, and the pages."""
    pages = [html]
    shown = re.findall(r"/thumbs/([0-9a-f-]{36})", html)
    while forms := elements(pages[-1], "form", "data-full"):
        fields = {
            one.attributes["name"]: one.attributes["value"]
            for one in elements(pages[-1], "input")
            if one.attributes["type"] == "hidden"
        }
        response = client.post(forms[0].attributes["action"], data=fields, headers=headers)
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"
        pages.append(response.text)
        shown += re.findall(r"/thumbs/([0-9a-f-]{36})", response.text)
    return shown, pages


@pytest.mark.parametrize("headers", [{}, FETCH], ids=["plain", "page.js"])
def test_show_more_leads_to_the_last_match(tmp_path: Path, headers: dict[str, str]) -> None:
    index = MemoryIndex()
    index.upsert([point(number) for number in range(350)])
    with TestClient(create_app(Settings(_env_file=None, data_dir=tmp_path), FakeEngine(), index)) as client:
        answer = client.post("/?lang=en", files={"image": encoded()}, data={"limit": "20"}, headers=headers)
        shown, pages = _read_to_the_end(client, answer.text, headers)
    assert sorted(shown) == sorted(index.points)
    assert len(pages) == 5
    assert "20 or more matches" in pages[0]
    assert "Matches 21 to 120 of 350" in pages[1]
    assert "Matches 321 to 350 of 350" in pages[-1]
    assert ("<html" in pages[1]) is not bool(headers)
    assert elements(pages[1], "", "data-known")[0].attributes["data-known"] == "350"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"after": "rubbish"}, "cursor_invalid"),
        ({}, "cursor_invalid"),
        ({"after": "x", "face": "no"}, "invalid_request"),
    ],
)
def test_a_page_that_cannot_be_shown_says_so(client: TestClient, fields: dict[str, str], code: str) -> None:
    for headers in ({}, FETCH):
        response = client.post("/more?lang=es", data=fields, headers=headers)
        assert response.status_code == 400
        assert f'data-code="{code}"' in response.text
    assert client.get("/more").status_code == 405


def test_the_form_keeps_what_was_asked(post: Post, found: Found) -> None:
    for error in (None, OceanoError("timeout", "the answer took too long")):
        found.faces, found.error = (face(0, ()),), error
        html = post(threshold="0.62", limit="7").text
        (slider,) = [one for one in elements(html, "input") if one.attributes["type"] == "range"]
        assert slider.attributes["value"] == "0.62"
        (chosen,) = elements(html, "option", "selected")
        assert chosen.text == "7"


def test_hostile_names_and_paths_are_text(post: Post, found: Found) -> None:
    path = f'/photos/" onload="x/{EVIL}.jpg'
    found.faces = (face(0, matches(0.9, path=path, person=EVIL)),)
    html = post(fetch=True).text
    assert elements(html, "script") == []
    assert elements(html, "", "onload") == []
    assert "&lt;script&gt;" in html
    assert elements(html, "button", "data-copy")[0].attributes["data-copy"] == path


def test_a_path_that_is_no_unicode_can_be_shown(post: Post, found: Found) -> None:
    found.faces = (face(0, matches(0.9, path="/photos/caf\udce9/\udcff.jpg", person="\udcff")),)
    response = post()
    assert response.status_code == 200
    assert "caf\N{REPLACEMENT CHARACTER}" in response.text


@pytest.mark.parametrize("path", ["a", "/", "/a", "/photos/IMG_2019-08 14.edited.jpg", "/photos/.hidden", "/x/___.jpg"])
def test_a_name_broken_into_parts_is_still_the_name(path: str) -> None:
    view = views.face_view(face(0, matches(0.9, path=path)), _result(), views.SearchForm(0.4))
    assert "".join(view.matches[0].name_parts) == (Path(path).name or path)


@pytest.mark.parametrize(("width", "height"), [(1, 4000), (4000, 1), (1, 1), (5000, 3000)])
def test_a_picture_of_any_shape_has_a_preview_that_is_not_too_large(width: int, height: int) -> None:
    shown = views.preview(picture_of(np.zeros((height, width, 3), np.uint8)))
    assert (shown.width, shown.height) == (width, height)
    assert min(shown.shown_width, shown.shown_height) >= 1
    assert max(shown.shown_width, shown.shown_height) == 1024


def test_badges_stay_within_the_picture() -> None:
    detected = Face((-3, -3, 12, 12), ((0, 0),) * 5, 0.9, 0.8, "border", embedding_of(0))
    view = views.face_view(FaceMatches(0, detected, ()), _result(), views.SearchForm(0.4))
    x, y, radius = view.badge
    assert radius <= x <= 200 - radius
    assert radius <= y <= 100 - radius


# --- errors


@pytest.mark.parametrize("fetch", [False, True])
def test_an_error_is_the_page_with_its_status_and_never_json(post: Post, found: Found, fetch: bool) -> None:
    found.error = OceanoError("index_unavailable", "the index does not answer", retry_after=3)
    response = post(fetch=fetch)
    assert response.status_code == 503
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["retry-after"] == "3"
    assert ("<html" in response.text) is not fetch
    assert "The index does not answer." in response.text
    codes = [one.text for one in elements(response.text, "dd", "data-problem-code")]
    assert codes[0] == "index_unavailable"
    assert response.headers["x-request-id"] in response.text
    assert elements(response.text, "button", "data-retry")


def test_an_error_speaks_the_visitors_language(post: Post, found: Found) -> None:
    found.error = OceanoError("index_unavailable", "the index does not answer")
    assert "No se puede acceder al índice" in post(address="/?lang=es", fetch=True).text


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [(b"", 400, "invalid_request"), (b"hello", 415, "unsupported_image"), (b"\xff\xd8\xff rest", 400, "invalid_image")],
)
def test_an_upload_that_is_no_picture_is_turned_away(post: Post, data: bytes, status: int, code: str) -> None:
    response = post(fetch=True, data=data)
    assert response.status_code == status
    assert elements(response.text, "section", "data-code")[0].attributes["data-code"] == code
    assert elements(response.text, "button", "data-retry") == []


def test_an_upload_that_is_too_large_is_turned_away_as_html(post: Post) -> None:
    response = post(fetch=True, data=b"\xff\xd8\xff" + bytes(15_100_000))
    assert response.status_code == 413
    assert "15 MB" in response.text
    assert elements(response.text, "div", "data-outcome")


def test_without_a_face_the_picture_is_shown_with_what_helps(post: Post, found: Found) -> None:
    found.error = OceanoError("face_not_found", "no face was found in the picture")
    response = post(fetch=True)
    assert response.status_code == 422
    assert elements(response.text, "image")[0].attributes["href"].startswith("data:image/webp;base64,")
    assert [one for one in elements(response.text, "a") if one.attributes.get("class") == "outline"] == []
    assert "What helps" in response.text


@pytest.mark.parametrize(
    "fields",
    [{"threshold": "0.1"}, {"threshold": "nan"}, {"threshold": EVIL}, {"limit": "0"}, {"limit": "1001"}],
)
def test_values_out_of_range_are_refused(post: Post, found: Found, fields: dict[str, str]) -> None:
    response = post(**fields)
    assert response.status_code == 400
    assert "must be a number from" in response.text
    assert found.limit == 0
    assert EVIL not in response.text


def test_an_error_is_counted_once(client: TestClient, post: Post, found: Found) -> None:
    registry = client.app.state.metrics.registry
    found.error = OceanoError("index_model_mismatch", "the index was made by another model")
    post()
    assert registry.get_sample_value("oceano_errors_total", {"code": "index_model_mismatch"}) == 1


def test_the_page_holds_the_errors_that_page_js_shows_itself(client: TestClient, filled: None) -> None:
    kept = {one.attributes["id"] for one in elements(client.get("/").text, "template")}
    asked_for = set(re.findall(r'"#?((?:problem-[a-z]+|loading))"', (STATIC / "page.js").read_text()))
    by_code = {f"problem-{code}" for code in re.findall(r'problem\("(\w+)"\)', (STATIC / "page.js").read_text())}
    assert asked_for | by_code == {"loading", "problem-unexpected", "problem-image_too_large", "problem-network"}
    assert asked_for | by_code | {"problem-overloaded"} == kept


# --- what the Content-Security-Policy asks for


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(
    client: TestClient, post: Post, found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Services, "demo", True)
    found.faces = (face(0, matches(0.9, 0.1, person="Ana")), face(1, ()))
    answers = [client.get("/").text, post().text, post(fetch=True).text]
    found.error = OceanoError("face_not_found", "no face was found in the picture")
    for html in [*answers, post().text]:
        everything = elements(html)
        assert len(everything) > 20
        assert [one for one in everything if one.tag == "style"] == []
        assert [
            one for one in everything if one.tag == "script" and (one.text.strip() or "src" not in one.attributes)
        ] == []
        assert [one for one in everything for name in one.attributes if name == "style" or name.startswith("on")] == []
        links = [
            one.attributes[name] for one in everything for name in ("src", "href", "action") if name in one.attributes
        ]
        assert [link for link in links if not re.match(r"/[^/]|/$|#|data:image/webp", link)] == []


def test_static_files_are_served_under_the_names_the_page_uses(client: TestClient, filled: None) -> None:
    html = client.get("/").text
    links = [value for one in elements(html) for value in one.attributes.values() if value.startswith("/static/")]
    assert len(links) == 3
    for link in links:
        assert client.get(link).status_code == 200
    assert all(re.search(r"\?v=[0-9a-f]{8}$", link) for link in links)
    assert client.get("/static/contours.svg").status_code == 200


def test_the_page_is_not_part_of_the_apis_schema(client: TestClient) -> None:
    assert all(not route.include_in_schema for route in pages.router().routes)


def test_answers_to_a_photograph_are_never_cached(client: TestClient, post: Post, found: Found) -> None:
    assert post().headers["cache-control"] == "no-store"
    assert "Cookie" in client.get("/").headers["vary"]


@pytest.mark.parametrize("fetch", [False, True])
def test_only_clear_faces_are_searched_when_that_is_asked_for(post: Post, found: Found, fetch: bool) -> None:
    found.faces = (face(0, matches(0.8)),)
    assert post(fetch=fetch).status_code == 200
    assert found.where is None
    html = post(fetch=fetch, clear="1").text
    assert found.where == FaceFilter(without=FLAWS)
    boxes = [one for one in elements(html, "input") if one.attributes.get("id") == "clear"]
    assert ["checked" in one.attributes for one in boxes] == ([] if fetch else [True])


@pytest.mark.parametrize(("lang", "said"), [("en", "small · blurred"), ("es", "pequeño · borroso")])
def test_what_a_face_lacks_is_said(post: Post, found: Found, lang: str, said: str) -> None:
    clear, flawed = face(0, matches(0.8)), face(1, matches(0.8))
    flaws = replace(flawed.face, flaws=("face_too_small", "blurred"))
    found.faces = (clear, replace(flawed, face=flaws))
    html = post(address=f"/?lang={lang}").text
    assert html.count(said) == 1


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_flaw_has_words(lang: str) -> None:
    assert all(translator(lang)(f"flaw.{flaw}") for flaw in FLAWS)
    assert len(FLAWS) == 4


def test_a_match_on_a_further_page_of_its_file_names_the_page(tmp_path: Path) -> None:
    index = MemoryIndex()
    index.upsert([point(1), point(2, page=4)])
    with TestClient(create_app(Settings(_env_file=None, data_dir=tmp_path), FakeEngine(), index)) as client:
        assert re.findall(r"page \d+", client.post("/?lang=en", files={"image": encoded()}).text) == ["page 5"]
        assert "página 5" in client.post("/?lang=es", files={"image": encoded()}).text
        found = client.post("/search", files={"image": encoded()}).json()["faces"][0]["matches"]
        assert sorted(match["page"] for match in found) == [0, 4]
