"""Signing in and out on the page, and the keys page."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event

import pytest
from httpx import Response

from app.core.config import Settings
from app.main import create_app
from app.security import Authenticator, Grant, add_key, add_user, audit_filter, secrets
from app.service import Services
from app.web.auth import COOKIE
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex

PASSWORD = "correct horse battery"
HTML = {"Accept": "text/html"}


@pytest.fixture
def client(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A closed service; passwords have a quick hash, else 22 of them could take longer than the minute of the limit."""
    monkeypatch.setattr(secrets, "_OF_PASSWORDS", secrets._OF_KEYS)
    with TestClient(create_app(settings, engine=FakeEngine(), index=MemoryIndex()), follow_redirects=False) as client:
        services = _services(client)
        add_user(services.keys, Grant("ana", "admin"), PASSWORD, "tests")
        services.authenticator.find_whether_key_is_needed()
        yield client


def _services(client: TestClient) -> Services:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    return services


def _sign_in(client: TestClient, name: str = "ana", secret: str = PASSWORD, **fields: str) -> Response:
    return client.post("/sign-in", data={"name": name, "secret": secret, **fields}, headers=HTML)


def test_a_page_leads_to_the_sign_in_and_back(client: TestClient) -> None:
    refused = client.get("/account?lang=es", headers=HTML)
    assert refused.headers["location"] == "/sign-in?next=%2Faccount%3Flang%3Des"
    form = client.get(refused.headers["location"], headers=HTML)
    assert (form.status_code, 'value="/account?lang=es"' in form.text) == (200, True)
    answer = _sign_in(client, next="/account?lang=es")
    assert (answer.status_code, answer.headers["location"]) == (303, "/account?lang=es")
    assert client.get("/account", headers=HTML).status_code == 200
    assert client.get("/sign-in", headers=HTML).headers["location"] == "/", "one who has signed in need not again"


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(client: TestClient) -> None:
    cookie = _sign_in(client).headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {"httponly", "path=/", "samesite=strict"}
    client.cookies.clear()
    secure = client.post(
        "/sign-in",
        data={"name": "ana", "secret": PASSWORD},
        headers={"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/oceano"},
    )
    parts = {part.strip().lower() for part in secure.headers["set-cookie"].split(";")[1:]}
    trusted = client.app.state.settings.trusted_proxies  # type: ignore[attr-defined]
    assert ("secure" in parts) == ("testclient" in trusted or "*" in trusted)


@pytest.mark.parametrize(
    ("name", "secret"), [("ana", "not-the-one"), ("nobody", PASSWORD), ("", "no-key"), ("ana", "")]
)
@pytest.mark.parametrize(("lang", "title"), [("en", "Sign in"), ("es", "Iniciar sesión")])
def test_a_wrong_password_is_said_in_both_languages(
    client: TestClient, name: str, secret: str, lang: str, title: str
) -> None:
    headers = {**HTML, "Accept-Language": lang}
    page = client.post("/sign-in", data={"name": name, "secret": secret, "next": "/keys"}, headers=headers)
    assert page.status_code == 401
    assert f"<h1>{title}</h1>" in page.text
    assert 'role="alert"' in page.text
    assert 'value="/keys"' in page.text
    assert secret == "" or secret not in page.text
    assert "set-cookie" not in page.headers


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example/",
        "https://evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:x",
        "/a\nb",
        "",
        "x",
    ],
)
def test_a_sign_in_leads_to_no_other_site(client: TestClient, target: str) -> None:
    assert _sign_in(client, next=target).headers["location"] == "/"


def test_signing_out_ends_the_session_and_clears_the_browser(client: TestClient) -> None:
    _sign_in(client)
    token = client.cookies[COOKIE]
    answer = client.post("/sign-out", headers={**HTML, "Sec-Fetch-Site": "same-origin"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert answer.headers["clear-site-data"] == '"cache", "storage"'
    assert client.get("/account", headers=HTML).status_code == 303
    client.cookies.set(COOKIE, token)
    ended = client.get("/account", headers=HTML)
    assert ended.headers["location"].endswith("&ended=1"), "a copy of the cookie does not work any more"
    assert "session has ended" in client.get(ended.headers["location"], headers=HTML).text


def test_signing_out_everywhere_ends_the_sessions_of_other_browsers(client: TestClient) -> None:
    _sign_in(client)
    other = client.cookies[COOKIE]
    client.cookies.clear()
    _sign_in(client)
    page = client.get("/account", headers=HTML).text
    assert page.count("<td>testclient</td>") == 2
    client.post("/sign-out/everywhere", headers={"Sec-Fetch-Site": "same-origin"})
    client.cookies.clear()
    client.cookies.set(COOKIE, other)
    assert client.get("/status").status_code == 401


def test_a_form_of_a_session_needs_its_token_where_the_browser_names_no_origin(client: TestClient) -> None:
    _sign_in(client)
    assert client.post("/sign-out").json()["error"]["details"] == {"cause": "other_site"}
    token = re.search(r"/sign-out\?form_token=([\w-]+)", client.get("/account", headers=HTML).text)
    assert token is not None
    assert client.post(f"/sign-out?form_token={token[1][:-1]}x").status_code == 403
    assert client.post("/sign-out", headers={"X-Form-Token": token[1]}).status_code == 303


def test_every_form_that_is_sent_has_the_token(client: TestClient) -> None:
    _sign_in(client)
    for path in ("/", "/account", "/keys"):
        page = client.get(path, headers=HTML).text
        forms = re.findall(r'<form[^>]*method="post"[^>]*>', page)
        assert forms, path
        assert all("form_token=" in form for form in forms), forms


def test_after_a_link_on_another_site_the_page_loads_itself_again(client: TestClient) -> None:
    """The browser withholds the cookie (SameSite=Strict) from the first request."""
    headers = {**HTML, "Sec-Fetch-Site": "cross-site"}
    page = client.get("/sign-in?next=%2Faccount", headers=headers)
    assert '<meta http-equiv="refresh" content="0;url=/sign-in?next=%2Faccount">' in page.text
    assert "http-equiv" not in client.get("/sign-in", headers={**HTML, "Sec-Fetch-Site": "same-origin"}).text


def test_a_key_signs_in_without_a_name(client: TestClient) -> None:
    _, key = add_key(_services(client).keys, Grant("search only", "search"), "tests")
    assert _sign_in(client, "", key).headers["location"] == "/"
    assert client.get("/keys", headers=HTML).status_code == 403
    account = client.get("/account", headers=HTML).text
    assert "key search only" in account


def test_a_key_is_added_shown_once_and_revoked(client: TestClient) -> None:
    _sign_in(client)
    own = {**HTML, "Sec-Fetch-Site": "same-origin"}
    fields = {"name": "<b>nightly</b>", "role": "search", "folders": "/photos/a\n/photos/b", "days": "30"}
    page = client.post("/keys", data=fields, headers=own)
    assert page.headers["cache-control"] == "no-store"
    found = re.search(r"<code data-new-key>(oceano_\w+_[\w-]+)</code>", page.text)
    assert found is not None
    assert "<b>nightly</b>" not in page.text
    listed = client.get("/keys", headers=HTML).text
    assert found[1] not in listed
    assert "/photos/a" in listed
    key = {"X-API-Key": found[1]}
    assert client.get("/metrics", headers=key).status_code == 403, "a key with folders sees no global numbers"
    (stored,) = [one for one in _services(client).keys.all() if one.kind == "key"]
    assert (stored.created_by, stored.folders) == ("user ana", ("/photos/a", "/photos/b"))
    assert client.post(f"/keys/{stored.id}/revoke", headers=own).headers["location"] == "/keys"
    client.cookies.clear()
    assert client.get("/status", headers=key).status_code == 401


def test_a_user_gets_a_password_that_signs_in(client: TestClient) -> None:
    _sign_in(client)
    page = client.post(
        "/keys", data={"name": "eva", "role": "curate", "user": "1"}, headers={**HTML, "Sec-Fetch-Site": "same-origin"}
    )
    found = re.search(r"<code data-new-key>([\w-]+)</code>", page.text)
    assert found is not None
    client.cookies.clear()
    assert _sign_in(client, "eva", found[1]).status_code == 303


@pytest.mark.parametrize(
    "fields",
    [{"role": "search"}, {"name": "x", "role": "root"}, {"name": "x", "role": "search", "folders": "photos"},
     {"name": "x", "role": "search", "days": "x"}, {"name": "ana", "role": "search", "user": "1"}],
)  # fmt: skip
def test_a_wrong_field_adds_nothing_and_keeps_what_was_entered(client: TestClient, fields: dict[str, str]) -> None:
    _sign_in(client)
    page = client.post("/keys", data=fields, headers={**HTML, "Sec-Fetch-Site": "same-origin"})
    assert (page.status_code, 'role="alert"' in page.text) == (400, True)
    assert len(_services(client).keys.all()) == 1
    assert f'value="{fields["name"]}"' in page.text if "name" in fields else True


def test_at_most_so_many_wrong_passwords_are_compared_even_if_they_arrive_at_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def by_password(_: object, name: str, secret: str) -> None:
        time.sleep(0.02)
        compared.append(secret)

    monkeypatch.setattr(Authenticator, "by_password", by_password)
    with ThreadPoolExecutor(60) as together:
        answers = list(together.map(lambda number: _sign_in(client, secret=f"wrong {number}").status_code, range(60)))
    assert sorted(answers) == [401] * 20 + [429] * 40
    assert len(compared) == 20


def test_a_flood_of_sign_ins_from_everywhere_waits_in_a_short_queue_of_its_own(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = Event()
    monkeypatch.setattr(Authenticator, "by_password", lambda *_: go_on.wait(30) and None)
    _services(client).settings  # noqa: B018 - the service has started
    rates = client.app.state.rates  # type: ignore[attr-defined]
    with ExitStack() as waiting:
        for number in range(64):
            waiting.enter_context(rates.attempt(f"10.0.0.{number}"))
        refused = _sign_in(client)
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert client.get("/status", headers={"X-API-Key": "no-key"}).status_code == 503
        assert client.get("/account", headers=HTML).status_code == 303, "other requests are answered"
    go_on.set()


def test_wrong_passwords_are_counted_by_address(client: TestClient) -> None:
    codes = [_sign_in(client, secret=f"wrong {number}").status_code for number in range(22)]
    assert codes == [401] * 20 + [429] * 2
    refused = _sign_in(client)
    assert (refused.status_code, refused.headers["content-type"]) == (429, "text/html; charset=utf-8")
    assert int(refused.headers["retry-after"]) >= 1


def test_signing_in_and_out_and_keys_are_in_the_audit_log(client: TestClient) -> None:
    _sign_in(client, secret="not the one")
    _sign_in(client)
    own = {**HTML, "Sec-Fetch-Site": "same-origin"}
    page = client.post("/keys", data={"name": "nightly", "role": "search"}, headers=own)
    (key,) = [one for one in _services(client).keys.all() if one.kind == "key"]
    client.post(f"/keys/{key.id}/revoke", headers=own)
    client.post("/sign-out", headers=own)
    entries = [(one.action, one.who) for one in _services(client).audit.log.all(audit_filter())]
    assert entries == [
        ("sign_in.failed", "-"), ("sign_in", "user ana"), ("key.added", "user ana"), ("key.revoked", "user ana"),
        ("sign_out", "user ana"),
    ]  # fmt: skip
    secret = re.search(r"oceano_\w+_[\w-]+", page.text)
    assert secret is not None
    told = " ".join(one.details for one in _services(client).audit.log.all(audit_filter()))
    assert "nightly" in told
    assert secret[0] not in told
    assert PASSWORD not in told


def test_over_tls_the_cookie_is_sent_over_tls_only(settings: Settings) -> None:
    app = create_app(settings, engine=FakeEngine(), index=MemoryIndex())
    with TestClient(app, "https://localhost", follow_redirects=False) as client:
        add_user(_services(client).keys, Grant("ana", "admin"), PASSWORD, "tests")
        _services(client).authenticator.find_whether_key_is_needed()
        assert "Secure" in _sign_in(client).headers["set-cookie"]
        assert client.get("/account", headers=HTML).status_code == 200


def test_below_the_path_of_a_proxy_everything_stays_below_it(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"root_path": "/oceano"}), engine=FakeEngine(), index=MemoryIndex())
    with TestClient(app, follow_redirects=False) as client:
        add_user(_services(client).keys, Grant("ana", "admin"), PASSWORD, "tests")
        _services(client).authenticator.find_whether_key_is_needed()
        refused = client.get("/oceano/account", headers=HTML)
        assert refused.headers["location"] == "/oceano/sign-in?next=%2Faccount"
        form = client.get(refused.headers["location"], headers=HTML).text
        assert 'action="/oceano/sign-in"' in form
        fields = {"name": "ana", "secret": PASSWORD, "next": "/account"}
        answer = client.post("/oceano/sign-in", data=fields, headers=HTML)
        assert answer.headers["location"] == "/oceano/account"
        assert "Path=/oceano;" in answer.headers["set-cookie"]
        own = {**HTML, "Sec-Fetch-Site": "same-origin"}
        assert client.post("/oceano/sign-out", headers=own).headers["location"] == "/oceano/sign-in"
