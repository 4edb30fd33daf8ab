"""Signing in and out in a real browser, in both languages, with a service and users of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browsing import is_as_wide_as_the_screen, opened
from tests.support.dying import wait_for
from tests.support.running import environment, oceano, service
from tests.system.browser.test_pages import require_that_axe_finds_nothing_serious

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Closed:
    """A service with a user `ana`, who is an admin, and a key that may search.

    Attributes:
        address: of the service.
        key: the key.
        catalog: the file with the sessions.
    """

    address: str
    key: str
    catalog: Path


@pytest.fixture(scope="module")
def closed(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    data = tmp_path_factory.mktemp("closed")
    env = environment(data, MODEL_NAME=demo_models / "demo", DET_SIZE="320,320")
    with service(env) as client:  # the first user closes it while it runs
        added = oceano("keys", "add", "ana", "--user", "--role", "admin", env=env, stdin=f"{PASSWORD}\n")
        assert added.returncode == 0, added.stderr
        key = oceano("keys", "add", "only search", env=env).stdout.strip()
        wait_for(lambda: client.get("/status").status_code == 401)  # the service looks every 5 seconds
        yield Closed(str(client.base_url), key, data / "state" / "catalog.sqlite3")


@pytest.fixture(params=["en", "es"])
def visitor(request: pytest.FixtureRequest, browser: Browser, closed: Closed) -> Iterator[Page]:
    with opened(browser, closed.address, locale=request.param) as page:
        yield page


def _sign_in(page: Page, secret: str, name: str = "") -> None:
    page.locator("input[name=name]").fill(name)
    page.locator("input[name=secret]").fill(secret)
    page.locator("main form button[type=submit]").click()


def _words(page: Page, english: str, spanish: str) -> str:
    return spanish if page.locator("html").get_attribute("lang") == "es" else english  # waits while a page loads


def test_a_visitor_is_refused_signs_in_and_signs_out_everywhere(
    visitor: Page, browser: Browser, closed: Closed
) -> None:

    visitor.goto("/keys")
    expect(visitor).to_have_url(f"{closed.address}/sign-in?next=%2Fkeys")
    require_that_axe_finds_nothing_serious(visitor)
    assert is_as_wide_as_the_screen(visitor)
    _sign_in(visitor, "not the password", "ana")
    wrong = _words(visitor, "The name or the password is wrong.", "El nombre o la contraseña no son correctos.")
    expect(visitor.get_by_role("alert")).to_have_text(wrong)
    expect(visitor.locator("input[name=name]")).to_have_value("ana")
    _sign_in(visitor, PASSWORD, "ana")
    expect(visitor).to_have_url(f"{closed.address}/keys")
    require_that_axe_finds_nothing_serious(visitor)
    with opened(browser, closed.address) as other:
        other.goto("/")
        _sign_in(other, PASSWORD, "ana")
        expect(other.locator("#search")).to_be_visible()
        visitor.goto("/account")
        require_that_axe_finds_nothing_serious(visitor)
        assert visitor.locator("tbody tr").count() >= 2
        visitor.get_by_role("button", name=_words(visitor, "Sign out everywhere", "Cerrar todas las sesiones")).click()
        expect(visitor).to_have_url(f"{closed.address}/sign-in")
        other.reload()
        expect(other).to_have_url(f"{closed.address}/sign-in?next=%2F&ended=1")
        expect(other.get_by_role("status")).to_have_text("Your session has ended. Sign in again.")


def test_a_role_sees_only_what_it_may(visitor: Page, closed: Closed) -> None:
    visitor.goto("/")
    _sign_in(visitor, closed.key)
    expect(visitor.locator("#search")).to_be_visible()
    assert visitor.locator('a[href="/keys"]').count() == 0
    visitor.goto("/keys")
    spanish = "Hace falta el rol «administración»; el tuyo es «búsqueda»."
    needed = _words(visitor, "This needs the role admin; yours is search.", spanish)
    expect(visitor.locator("[data-message]")).to_have_text(needed)


def test_a_session_that_has_expired_leads_back_to_where_one_was(visitor: Page, closed: Closed) -> None:
    visitor.goto("/account")
    _sign_in(visitor, PASSWORD, "ana")
    expect(visitor).to_have_url(f"{closed.address}/account")
    with sqlite3.connect(closed.catalog) as catalog:
        catalog.execute("UPDATE sessions SET expires_at = '2020-01-01T00:00:00+00:00'")
    visitor.wait_for_timeout(5500)  # the service looks every 5 seconds
    visitor.goto("/help/similarity")
    expect(visitor).to_have_url(f"{closed.address}/sign-in?next=%2Fhelp%2Fsimilarity&ended=1")
    _sign_in(visitor, PASSWORD, "ana")
    expect(visitor).to_have_url(f"{closed.address}/help/similarity")


def test_a_key_that_is_added_on_the_page_signs_in(visitor: Page, closed: Closed) -> None:
    visitor.goto("/keys")
    _sign_in(visitor, PASSWORD, "ana")
    name = f"of {_words(visitor, 'the page', 'la página')}"
    visitor.locator("form.stack input[name=name]").fill(name)
    visitor.locator("form.stack button[type=submit]").click()
    key = visitor.locator("[data-new-key]").inner_text()
    require_that_axe_finds_nothing_serious(visitor)
    visitor.locator("tr", has_text=name).get_by_role("button").wait_for()
    visitor.goto("/account")
    visitor.get_by_role("button", name=_words(visitor, "Sign out", "Cerrar sesión"), exact=True).click()
    visitor.goto("/account")
    _sign_in(visitor, key)
    expect(visitor.locator("dd").first).to_have_text(f"key {name}")
