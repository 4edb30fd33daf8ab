"""Signing in with OpenID Connect, against a real provider in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from app.core.config import Settings
from app.core.errors import OceanoError
from app.main import create_app
from app.security import Begun, OidcSettings, open_oidc, roles_of_groups
from app.service import Services
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.running import free_port

HTML = {"Accept": "text/html"}
USERS = (
    {"sub": "1", "email": "ana@example.org", "groups": ["staff", "photo-admins"]},
    {"sub": "2", "email": "eva@example.org", "groups": ["staff"]},
    {"sub": "3", "email": "leo@example.org", "groups": ["guests"]},
    {"sub": "4", "email": "no-groups@example.org"},
)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    port = free_port()
    users = [part for user in USERS for part in ("--user-claims", json.dumps(user))]
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port), *users]
    provider = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                httpx.get(f"{address}/.well-known/openid-configuration").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield address
    finally:
        provider.terminate()
        provider.wait()


def _client(settings: Settings, issuer: str) -> TestClient:
    oidc = {
        "oidc_issuer": issuer, "oidc_client_id": "oceano", "oidc_client_secret": "secret", "oidc_name": "Example",
        "oidc_roles": "staff=search, photo-admins=admin",
    }  # fmt: skip
    app = create_app(settings.model_copy(update=oidc), engine=FakeEngine(), index=MemoryIndex())
    return TestClient(app, follow_redirects=False)


@pytest.fixture
def client(settings: Settings, issuer: str) -> Iterator[TestClient]:
    with _client(settings, issuer) as client:
        yield client


def _come_back(client: TestClient, subject: str, next_: str = "/account") -> str:
    """Sign in at the provider; the address to which it sends the browser back."""
    begun = client.get("/sign-in/oidc", params={"next": next_}, headers=HTML)
    assert begun.status_code == 303
    query = parse_qs(urlsplit(begun.headers["location"]).query)
    assert query["code_challenge_method"] == ["S256"]
    back = httpx.post(begun.headers["location"], data={"sub": subject}).headers["location"]
    assert back.startswith("http://localhost/sign-in/oidc/callback?")
    return back


def test_with_a_provider_everything_is_closed_and_the_page_leads_to_it(client: TestClient) -> None:
    assert client.get("/status").status_code == 401
    page = client.get("/sign-in?next=%2Fkeys", headers=HTML).text
    assert 'href="/sign-in/oidc?next=%2Fkeys"' in page
    assert "Sign in with Example" in page


@pytest.mark.parametrize(("subject", "who", "role"), [("1", "ana", "admin"), ("2", "eva", "search")])
def test_a_person_signs_in_with_the_role_of_their_groups(client: TestClient, subject: str, who: str, role: str) -> None:
    answer = client.get(_come_back(client, subject), headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    account = client.get("/account", headers=HTML).text
    assert f"oidc {who}@example.org ({subject})" in account
    assert client.get("/keys", headers=HTML).status_code == (200 if role == "admin" else 403)
    client.post("/sign-out/everywhere", headers={"Sec-Fetch-Site": "same-origin"})
    assert client.get("/account", headers=HTML).status_code == 303


@pytest.mark.parametrize("target", ["/\\evil.example", "//evil.example", "https://evil.example", "/a\nb"])
def test_the_way_back_leads_to_no_other_site(client: TestClient, target: str) -> None:
    answer = client.get(_come_back(client, "1", target), headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize("subject", ["3", "4"])
def test_a_person_without_a_group_that_has_a_role_is_refused(client: TestClient, subject: str) -> None:
    page = client.get(_come_back(client, subject), headers=HTML)
    assert (page.status_code, "None of your groups" in page.text) == (403, True)
    assert "oceano_session" not in client.cookies


def test_an_answer_counts_once_and_for_the_browser_that_began_only(client: TestClient) -> None:
    back = _come_back(client, "1")
    kept = dict(client.cookies)
    client.cookies.clear()
    assert client.get(back, headers=HTML).status_code == 401, "another browser"
    for name, value in kept.items():
        client.cookies.set(name, value, path="/sign-in/oidc")
    forged = back.replace("state=", "state=x")
    assert client.get(forged, headers=HTML).status_code == 401
    assert client.get(back, headers=HTML).status_code == 303
    again = client.get(back)
    assert (again.status_code, again.json()["error"]["code"]) == (401, "sign_in_failed")


def test_a_refusal_of_the_provider_is_said(client: TestClient) -> None:
    begun = client.get("/sign-in/oidc", headers=HTML)
    back = httpx.post(begun.headers["location"], data={"action": "deny"}).headers["location"]
    page = client.get(back, headers=HTML)
    assert (page.status_code, "<code" not in page.text) == (401, True)


@pytest.mark.parametrize("cookie", ["", "x", "e30=", "W10=", "é"])
def test_a_changed_cookie_signs_nobody_in(client: TestClient, cookie: str) -> None:
    headers = {"Cookie": f"oceano_oidc={cookie}".encode()}
    assert client.get("/sign-in/oidc/callback?code=x&state=", headers=headers).status_code == 401  # type: ignore[arg-type]


def test_a_provider_that_is_down_is_a_page_and_keys_still_work(settings: Settings) -> None:
    settings = settings.model_copy(update={"api_keys": ("a-key-of-some-length",)})
    with _client(settings, f"http://127.0.0.1:{free_port()}") as client:
        page = client.get("/sign-in/oidc", headers=HTML)
        assert (page.status_code, page.headers["retry-after"]) == (503, "5")
        assert "sign-in service" in page.text
        assert client.get("/status", headers={"X-API-Key": "a-key-of-some-length"}).status_code == 200


def test_an_id_token_for_another_client_or_of_another_sign_in_is_refused(issuer: str) -> None:
    own = open_oidc(OidcSettings(issuer, "oceano", "secret", "groups", {"staff": "search"}))
    callback = "http://localhost/sign-in/oidc/callback"
    begun = own.begin(callback)
    back = httpx.post(begun.url, data={"sub": "2"}).headers["location"]
    answer = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    with pytest.raises(OceanoError, match="not valid") as caught:
        own.finish(Begun("", begun.state, "another nonce", begun.verifier), callback, answer)
    assert caught.value.code == "sign_in_failed"
    begun = own.begin(callback)
    back = httpx.post(begun.url, data={"sub": "2"}).headers["location"]
    answer = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    assert own.finish(begun, callback, answer).who == "oidc eva@example.org (2)"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"oidc_issuer": "https://id.example"}, "OIDC_CLIENT_ID"),
        ({"oidc_client_id": "x", "oidc_roles": "a=admin"}, "OIDC_ISSUER"),
        ({"oidc_issuer": "https://id.example", "oidc_client_id": "x", "oidc_roles": "a=root"}, "OIDC_ROLES"),
        ({"oidc_issuer": "https://id.example", "oidc_client_id": "x", "oidc_roles": "admin"}, "OIDC_ROLES"),
    ],
)
def test_a_setting_that_is_missing_or_malformed_is_named(
    settings: Settings, values: dict[str, str], named: str
) -> None:
    app = create_app(settings.model_copy(update=values), engine=FakeEngine(), index=MemoryIndex())
    with pytest.raises(OceanoError, match=named) as caught, TestClient(app):
        pass
    assert caught.value.code == "invalid_setting"


def test_group_names_may_contain_an_equals_sign() -> None:
    assert roles_of_groups("cn=staff=search , b = admin,") == {"cn=staff": "search", "b": "admin"}


def test_services_without_a_provider_have_no_such_page(settings: Settings) -> None:
    with TestClient(create_app(settings, engine=FakeEngine(), index=MemoryIndex())) as client:
        services: Services = client.app.state.services  # type: ignore[attr-defined]
        assert services.oidc is None
        assert client.get("/sign-in/oidc").status_code == 404
