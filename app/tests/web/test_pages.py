"""The shell of the pages as HTML: start page, languages, errors, and what the Content-Security-Policy asks for."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.catalog import Job, Jobs, Totals
from app.core.config import Settings
from app.core.errors import OceanoError
from app.core.texts import LANGUAGES, translator
from app.core.types import FLAWS
from app.library import SharedProgress
from app.main import create_app
from app.service import Results, Services
from app.service.monitor import Monitor
from app.web.pages import kept, results, search
from app.web.pages.status_page import _duration
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.html import elements
from tests.support.jobs import FixedSnapshot, job
from tests.support.pictures import BLACK, RED, encoded, point

FETCH = {"X-Requested-With": "fetch"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
EVIL = "<script>alert(1)</script>"
STATIC = Path(search.__file__).parents[2] / "static"


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
def failing(filled: None, monkeypatch: pytest.MonkeyPatch) -> list[OceanoError]:
    """Searches fail with the error in this list."""
    errors: list[OceanoError] = []

    async def page(*_: object, **__: object) -> None:
        raise errors[0]

    monkeypatch.setattr(Results, "page", page)
    return errors


# --- the start


def test_the_start_page_asks_for_photographs(client: TestClient, filled: None) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    (form,) = [one for one in elements(response.text, "form") if one.attributes.get("id") == "search"]
    assert form.attributes | {"method": "post", "enctype": "multipart/form-data"} == form.attributes
    (chooser,) = elements(response.text, "input", "accept")
    assert chooser.attributes["name"] == "image"
    assert "multiple" in chooser.attributes
    assert "1,234,567 faces indexed" in response.text


def test_the_start_page_counts_faces_and_photographs(
    client: TestClient, filled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = FixedSnapshot(totals=Totals(done=1_999_000, no_face=1_000, failed=7, duplicate=9, faces=1_234_567))
    monkeypatch.setattr(services_of(client).monitor, "snapshot", counted)
    assert size_of_index(client.get("/").text) == "1,234,567 faces in 2,000,000 photographs"
    spanish = client.get("/?lang=es").text
    assert size_of_index(spanish) == "1 234 567 rostros en 2 000 000 fotografías"
    client.cookies.clear()
    for unknown in (
        FixedSnapshot(totals=None),
        FixedSnapshot(totals=Totals()),
    ):  # the ledger fails, or is not that of the index
        monkeypatch.setattr(services_of(client).monitor, "snapshot", unknown)
        assert size_of_index(client.get("/").text) == "1,234,567 faces in the index"


def test_the_start_page_tells_how_far_an_ingest_is(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.library.progress.WRITE_SECONDS", 0.0)
    monkeypatch.setattr("app.library.progress.COUNT_AFTER_SECONDS", 60.0)
    with SharedProgress(services_of(client).settings.state_dir, list) as told:
        told.update(1234)
        assert size_of_index(client.get("/").text) == "Import running, 1,234 files so far"
        told.total = 2869
        told.update(1234)
        assert size_of_index(client.get("/").text) == "Import running, 43 %"
        assert size_of_index(client.get("/?lang=es").text) == "Importación en curso, 43 %"
        client.cookies.clear()
    assert size_of_index(client.get("/").text) == ""


def test_the_start_page_tells_how_far_the_ingests_of_other_machines_are(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(*jobs: Job) -> str:
        monkeypatch.setattr(services_of(client).monitor, "snapshot", FixedSnapshot(jobs=jobs))
        return size_of_index(client.get("/").text)

    one = job(state="running", phase="files", workers=2, counts={"files": 2000, "done": 800, "skipped": 60})
    other = job(state="stopping", phase="files", workers=1, counts={"files": 1000, "no_face": 700})
    listing = job(state="running", workers=1, counts={"files": 90, "done": 1})
    assert shown(one) == "Import running, 43 %"
    assert shown(one, other) == "Import running, 52 %"
    assert shown(one, listing) == "Import running, 861 files so far"
    assert shown(job(counts={"files": 2000, "done": 800}, phase="files")) == "", "no worker is there"
    alone = job(state="running", shared=False, workers=1, counts={"done": 5})
    assert shown(alone) == "", "it runs on this machine, and its own file says so until it is killed"
    monkeypatch.setattr(services_of(client).ledger.database, "has_many_writers", True)
    assert shown(alone) == "Import running, 5 files so far"
    monkeypatch.setattr("app.library.progress.COUNT_AFTER_SECONDS", 60.0)
    with SharedProgress(services_of(client).settings.state_dir, list):
        assert shown(one) == "Import running, 0 files so far", "the ingest of this machine, which is known exactly"


def test_a_view_of_the_start_page_asks_the_catalog_for_no_jobs(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def noted(self: Jobs) -> list[Job]:
        threads.append(threading.current_thread().name)
        return []

    monkeypatch.setattr(Jobs, "running", noted)
    for path in ("/", "/status", "/metrics"):
        assert client.get(path).status_code == 200
    asyncio.run(services_of(client).monitor.check_jobs())
    assert {name.rpartition("_")[0] for name in threads} == {"monitor-jobs"}


def test_the_status_page_has_a_line_for_each_import(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(language: str = "en") -> dict[str, str]:
        html = client.get("/status", params={"lang": language}, headers=BROWSER).text
        names, values = ([one.words for one in elements(html, tag)] for tag in ("dt", "dd"))
        return {name: value.replace("\N{NO-BREAK SPACE}", " ") for name, value in zip(names, values, strict=True)}

    started = datetime.now(UTC) - timedelta(seconds=60)
    running = job(
        folder="/photos/<b>", state="running", phase="files", workers=3, problems=1, message="no connection",
        counts={"files": 2000, "done": 800, "skipped": 60}, started_at=started.isoformat(),
    )  # fmt: skip
    ended = job(folder="/stopping", state="stopping", workers=1, counts={"done": 1}, started_at=started.isoformat())
    monkeypatch.setattr(
        services_of(client).monitor, "snapshot", FixedSnapshot(jobs=(running, ended, job(folder="/waits")))
    )
    english = rows()
    assert re.fullmatch(
        r"running, 43 %, 860 of 2,000 files, 1[23]\.\d photographs/s, 3 workers, 1 file failed, started by ann@one\. "
        "no connection",
        english["/photos/<b>"],
    )
    assert english["/stopping"] == "stopping, 1 file so far, 0.0 photographs/s, 1 worker, started by ann@one"
    assert english["/waits"] == "waits for a worker, started by ann@one"
    spanish = rows("es")
    assert spanish["/waits"] == "espera un proceso, iniciada por ann@one"
    assert re.match(
        r"en curso, 43 %, 860 de 2 000 archivos, 1[23],\d fotografías/s, 3 procesos", spanish["/photos/<b>"]
    )
    many = tuple(job(folder=f"/many/{number}") for number in range(60))
    monkeypatch.setattr(services_of(client).monitor, "snapshot", FixedSnapshot(jobs=many))
    assert (len([name for name in rows() if name.startswith("/many/")]), rows()["Others that wait"]) == (50, "10")
    monkeypatch.setattr(services_of(client).monitor, "snapshot", FixedSnapshot(jobs=()))
    assert "Ingests" not in client.get("/status", params={"lang": "en"}, headers=BROWSER).text


def services_of(client: TestClient) -> Services:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    return services


def size_of_index(html: str) -> str:
    return " ".join(one.words for one in elements(html, of_class="size-of-index")).replace("\N{NO-BREAK SPACE}", " ")


def test_the_footer_names_the_model_and_leads_to_the_status_which_leads_to_metrics_and_api(
    client: TestClient, filled: None
) -> None:
    html = client.get("/").text
    assert "Model fake" in html
    links = {link.attributes["href"] for link in elements(html, "a", "href")}
    assert "/status" in links
    assert not {"/metrics", "/openapi.json"} & links
    status = client.get("/status", headers=BROWSER).text
    assert {"/metrics", "/openapi.json"} <= {link.attributes["href"] for link in elements(status, "a", "href")}


def test_the_status_is_a_page_for_browsers_and_json_for_programs(client: TestClient) -> None:
    for lang, words in (
        ("en", ("Status", "Model", "Ingested files")),
        ("es", ("Estado", "Modelo", "Archivos incorporados")),
    ):
        page = client.get("/status", params={"lang": lang}, headers=BROWSER)
        assert page.headers["content-type"].startswith("text/html")
        titles = [one.words for one in elements(page.text) if one.tag in ("h1", "h2")]
        assert set(words) <= set(titles)
        rows = dict(zip(*([one.words for one in elements(page.text, tag)] for tag in ("dt", "dd")), strict=True))
        assert "fake" in rows.values()
        assert "Accept" in page.headers["vary"].replace(",", " ").split()
    for accept in ("*/*", "application/json"):
        told = client.get("/status", headers={"Accept": accept})
        assert told.headers["content-type"] == "application/json"
        assert told.json()["model"]["name"] == "fake"
        assert "Accept" in told.headers["vary"]


def test_the_status_page_says_what_does_not_work(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Everything works." in client.get("/status", headers=BROWSER).text
    monkeypatch.setattr(
        services_of(client).monitor, "snapshot", FixedSnapshot(index=None, index_error="connection refused")
    )
    html = client.get("/status", headers=BROWSER).text
    assert "Something does not work." in html
    assert "connection refused" in html


@pytest.mark.parametrize(
    ("seconds", "told"), [(5, "1 minute"), (7_260, "2 hours, 1 minute"), (180_000, "2 days, 2 hours")]
)
def test_a_time_is_told_in_its_two_largest_units(seconds: float, told: str) -> None:
    assert _duration(seconds, translator("en")) == told


def test_every_field_has_a_label_and_every_button_a_name(client: TestClient, filled: None) -> None:
    html = client.get("/").text
    labelled = {label.attributes.get("for") for label in elements(html, "label")}
    fields = [one for tag in ("input", "select") for one in elements(html, tag)]
    assert fields
    assert all("aria-label" in one.attributes or one.attributes.get("id") in labelled for one in fields)
    assert all(one.words or "aria-label" in one.attributes for one in elements(html, "button"))


def test_an_empty_index_shows_how_to_fill_it(client: TestClient) -> None:
    html = client.get("/").text
    assert "Nothing is indexed yet" in html
    assert "./quick-start.sh ingest FOLDER" in html


def test_results_over_an_empty_index_say_how_to_fill_it(client: TestClient) -> None:
    response = client.post("/", files={"image": encoded(RED)})
    assert response.status_code == 200
    assert "./quick-start.sh ingest FOLDER" in response.text


def test_a_filled_index_does_not(client: TestClient, filled: None) -> None:
    assert "quick-start.sh ingest" not in client.get("/").text


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
    assert '<html lang="es"' in spanish.text
    assert spanish.headers["content-language"] == "es"
    assert "set-cookie" not in spanish.headers

    chosen = client.get("/", params={"lang": "es"})
    assert re.match(r"lang=es;.*HttpOnly.*SameSite=lax", chosen.headers["set-cookie"])
    assert '<html lang="es"' in client.get("/", headers={"Accept-Language": "en"}).text


def test_an_unknown_language_changes_nothing(client: TestClient, filled: None) -> None:
    response = client.get("/", params={"lang": EVIL})
    assert '<html lang="en"' in response.text
    assert "set-cookie" not in response.headers


def test_another_language_of_a_page_keeps_its_filters(tmp_path: Path) -> None:
    index = MemoryIndex()
    index.upsert([point(1)])
    face_id = point(1).face_id
    with TestClient(create_app(Settings(_env_file=None, data_dir=tmp_path), FakeEngine(), index)) as client:
        html = client.get(f"/face/{face_id}", params={"clear": "1"}).text
    (spanish,) = elements(html, "a", "hreflang")[1:]
    assert spanish.attributes["href"] == f"/face/{face_id}?clear=1&lang=es"


# --- errors


@pytest.mark.parametrize("headers", [{}, FETCH])
def test_an_error_is_a_page_with_its_status_and_never_json(
    client: TestClient, failing: list[OceanoError], headers: dict[str, str]
) -> None:
    failing.append(OceanoError("index_unavailable", "the index does not answer", retry_after=3))
    response = client.post("/?lang=en", files={"image": encoded(RED)}, headers=headers)
    assert response.status_code == 503
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["retry-after"] == "3"
    assert ("<html" in response.text) is not bool(headers)
    assert "The index does not answer." in response.text
    codes = [one.words for one in elements(response.text, "dd", "data-problem-code")]
    assert codes[0] == "index_unavailable"
    assert response.headers["x-request-id"] in response.text
    assert elements(response.text, "button", "data-retry")


def test_an_error_speaks_the_visitors_language(client: TestClient, failing: list[OceanoError]) -> None:
    failing.append(OceanoError("index_unavailable", "the index does not answer"))
    response = client.post("/results?lang=es", files={"image": encoded(RED)}, headers=FETCH)
    assert "No se puede acceder al índice" in response.text


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [(b"", 400, "invalid_request"), (b"hello", 415, "unsupported_image"), (b"\xff\xd8\xff rest", 400, "invalid_image")],
)
def test_an_upload_that_is_no_picture_is_turned_away(client: TestClient, data: bytes, status: int, code: str) -> None:
    response = client.post("/results", files={"image": ("p.png", data)}, headers=FETCH)
    assert response.status_code == status
    assert elements(response.text, "section", "data-code")[0].attributes["data-code"] == code
    assert elements(response.text, "button", "data-retry") == []


def test_an_upload_that_is_too_large_is_turned_away_as_html(client: TestClient) -> None:
    data = b"\xff\xd8\xff" + bytes(15_100_000)
    response = client.post("/results", files={"image": ("p.jpg", data)}, headers=FETCH)
    assert response.status_code == 413
    assert "15 MB" in response.text
    assert elements(response.text, "div", "data-outcome")


@pytest.mark.parametrize(
    ("picture", "code"), [(encoded(BLACK), "face_not_found"), (b"no picture", "unsupported_image")]
)
@pytest.mark.parametrize("headers", [{}, FETCH])
def test_an_error_of_a_photograph_leads_to_another_one_and_back(
    client: TestClient, picture: bytes, code: str, headers: dict[str, str]
) -> None:
    html = client.post("/results?lang=en", files={"image": picture}, headers=headers).text
    html = html.split("<template")[0]
    assert [one.words for one in elements(html, "dd", "data-problem-code")] == [code]
    assert [one.words for one in elements(html, "button", "data-choose")][-1] == "Choose another photograph"
    assert "Back to the search" in [one.words for one in elements(html, "a", "href")]


def test_an_error_of_the_service_asks_for_no_other_photograph(client: TestClient, failing: list[OceanoError]) -> None:
    failing.append(OceanoError("index_unavailable", "the index does not answer"))
    html = client.post("/results?lang=en", files={"image": encoded(RED)}, headers=FETCH).text
    assert elements(html, "button", "data-choose") == []
    assert "Back to the search" in [one.words for one in elements(html, "a", "href")]


def test_an_error_is_counted_once(client: TestClient, failing: list[OceanoError]) -> None:
    registry = client.app.state.metrics.registry  # type: ignore[attr-defined]
    failing.append(OceanoError("index_model_mismatch", "the index was made by another model"))
    client.post("/", files={"image": encoded(RED)})
    assert registry.get_sample_value("oceano_errors_total", {"code": "index_model_mismatch"}) == 1


def test_a_page_holds_the_errors_that_its_scripts_show_themselves(client: TestClient, filled: None) -> None:
    html = client.get("/search/abcdef0123456789").text
    kept_here = {one.attributes["id"] for one in elements(html, "template", "id")}
    script = (STATIC / "results.js").read_text()
    by_id = set(re.findall(r'"#((?:problem-[a-z]+|loading|gone))"', script))
    by_code = {f"problem-{code}" for code in re.findall(r'problem\("(\w+)"\)', script)}
    assert by_id | by_code == {"loading", "gone", "problem-unexpected", "problem-image_too_large", "problem-network"}
    assert by_id | by_code | {"problem-overloaded"} <= kept_here


# --- what the Content-Security-Policy asks for


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Services, "demo", True)
    pages = [client.get("/"), client.get("/search/abcdef0123456789"), client.get("/face/x")]
    pages += [
        client.post("/", files={"image": encoded(colour)}, headers=how)
        for colour in (RED, BLACK)
        for how in ({}, FETCH)
    ]
    for html in (page.text for page in pages):
        everything = elements(html)
        assert len(everything) > 10
        assert [one for one in everything if one.tag == "style"] == []
        assert [one for one in everything if one.tag == "script" and (one.words or "src" not in one.attributes)] == []
        assert [one for one in everything for name in one.attributes if name == "style" or name.startswith("on")] == []
        links = [
            one.attributes[name] for one in everything for name in ("src", "href", "action") if name in one.attributes
        ]
        assert [link for link in links if not re.match(r"/[^/]|/$|#|data:image/(webp|jpeg);base64,", link)] == []


def test_static_files_are_served_under_the_names_the_page_uses(client: TestClient, filled: None) -> None:
    html = client.get("/").text + client.get("/search/abcdef0123456789").text
    links = {value for one in elements(html) for value in one.attributes.values() if value.startswith("/static/")}
    assert {re.sub(r".*/|\?.*", "", link) for link in links} >= {"style.css", "favicon.svg", "store.js", "results.js"}
    for link in links:
        assert client.get(link).status_code == 200
        assert re.search(r"\?v=[0-9a-f]{8}$", link)
    assert client.get("/static/contours.svg").status_code == 200


def test_the_scripts_are_small(client: TestClient) -> None:
    assert sum(path.stat().st_size for path in STATIC.glob("*.js")) < 60_000


def test_the_pages_are_not_part_of_the_apis_schema() -> None:
    for pages in (search, results, kept):
        assert all(not route.include_in_schema for route in pages.router().routes)  # type: ignore[attr-defined]


def test_answers_to_a_photograph_are_never_cached(client: TestClient) -> None:
    assert client.post("/", files={"image": encoded(RED)}).headers["cache-control"] == "no-store"
    assert "Cookie" in client.get("/").headers["vary"]


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


def test_the_exact_similarity_starts_at_the_models_threshold(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "pack", replace(FakeEngine.pack, threshold=0.55))
    html = client.post("/", files={"image": encoded(RED)}).text
    (slider,) = [one for one in elements(html, "input") if one.attributes.get("type") == "range"]
    assert slider.attributes["value"] == "0.55"
