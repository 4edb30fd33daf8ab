"""Who may call which route: every route has a right, and every role is tried on every route."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

from app.core.config import Settings
from app.main import create_app
from app.security import ROLES, Right, add_key, checked_grant
from app.service import Services
from app.web.auth import Requires
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex

Route = tuple[str, str]

# Answered without a key: they say nothing about photographs.
PUBLIC: frozenset[Route] = frozenset(
    {
        ("GET", "/health"), ("GET", "/sign-in"), ("POST", "/sign-in"),
        ("GET", "/sign-in/oidc"), ("GET", "/sign-in/oidc/callback"),
    }
)  # fmt: skip
MAY: dict[str, set[Right]] = {
    "search": {"any", "search"},
    "curate": {"any", "search", "curate"},
    "ingest": {"any", "ingest"},
    "admin": {"any", "search", "curate", "ingest", "admin"},
}
# What a right that is wrongly given to a route would open.
RIGHTS: dict[Right, set[str]] = {
    "any": {"/status", "/metrics", "/openapi.json", "/account", "/sign-out", "/sign-out/everywhere", "/purpose"},
    "admin": {"/keys", "/keys/{key_id}/revoke", "/audit", "/audit/export"},
}


def all_routes(app: FastAPI) -> dict[Route, RouteContext]:
    """The routes by method and path, without the static files."""
    found: dict[Route, RouteContext] = {}
    for route in iter_route_contexts(app.routes):
        if route.path == "/static":
            continue
        assert isinstance(route.original_route, APIRoute), f"{route.path}: a kind of route that no test here knows"
        for method in route.methods or ():
            found[method, str(route.path)] = route
    return found


def right_of(route: RouteContext) -> Right | None:
    """The right that a route needs; None for a public one. Fails if it has several."""
    rights = [one.call.right for one in route.dependant.dependencies if isinstance(one.call, Requires)]
    assert len(rights) <= 1, route.path
    return rights[0] if rights else None


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings, engine=FakeEngine(), index=MemoryIndex())) as client:
        yield client


@pytest.fixture
def keys(client: TestClient) -> dict[str, str]:
    """A key of each role."""
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    roles = sorted(ROLES, key=lambda role: role != "admin")  # the first key must be an admin's
    made = {role: add_key(services.keys, checked_grant(role, role), "tests")[1] for role in roles}
    services.authenticator.find_whether_key_is_needed()
    return made


def _address(path: str) -> str:
    for name in ("face_id", "image_id", "kept_id", "key_id", "key", "person_id", "group_id", "number"):
        path = path.replace(f"{{{name}}}", "unknown-0000")
    assert "{" not in path, f"{path}: this test does not know a value for it"
    return path


def test_every_route_has_a_right_or_is_listed_as_public(client: TestClient) -> None:
    routes = all_routes(client.app)  # type: ignore[arg-type]
    assert len(routes) > 30
    assert {route for route, found in routes.items() if right_of(found) is None} == PUBLIC
    for right, paths in RIGHTS.items():
        assert {path for (_, path), found in routes.items() if right_of(found) == right} == paths, right


def test_the_pages_that_change_people_need_the_right_to_curate(client: TestClient) -> None:
    routes = all_routes(client.app)  # type: ignore[arg-type]
    starts = ("/person/", "/group/", "/naming", "/dismiss", "/undo")
    of_pages = {route: right_of(found) for route, found in routes.items() if route[1].startswith(starts)}
    reading = {("GET", "/person/{person_id}"), ("GET", "/group/{group_id}")}
    assert {route for route, right in of_pages.items() if right == "search"} == reading
    assert len(of_pages) > 10
    assert {right for route, right in of_pages.items() if route not in reading} == {"curate"}


def test_whoever_may_only_search_changes_no_names(client: TestClient) -> None:
    routes = all_routes(client.app)  # type: ignore[arg-type]
    of_people = {route for route in routes if route[1].startswith(("/people", "/changes")) or "dismiss" in route[1]}
    assert len(of_people) > 15
    for method, path in of_people:
        expected = "search" if method == "GET" and path.startswith("/people") else "curate"
        assert right_of(routes[method, path]) == expected, (method, path)


def test_without_a_key_nothing_but_the_public_routes_answers(client: TestClient, keys: dict[str, str]) -> None:
    for method, path in all_routes(client.app):  # type: ignore[arg-type]
        for accept in ("application/json", "text/html"):
            answer = client.request(method, _address(path), headers={"Accept": accept}, follow_redirects=False)
            if (method, path) in PUBLIC:
                assert answer.status_code != 401 or path == "/sign-in", (method, path)
            elif method == "GET" and accept == "text/html":
                assert answer.status_code == 303, (method, path)
                assert answer.headers["location"].startswith("/sign-in?next=")
            else:
                assert answer.status_code == 401, (method, path)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_its_rights_say_and_nothing_else(
    client: TestClient, keys: dict[str, str], role: str
) -> None:
    for (method, path), route in all_routes(client.app).items():  # type: ignore[arg-type]
        right = right_of(route)
        if right is None:
            continue
        answer = client.request(method, _address(path), headers={"X-API-Key": keys[role]}, follow_redirects=False)
        assert answer.status_code != 401, (method, path)
        code = (
            answer.json()["error"]["code"]
            if "json" in answer.headers.get("content-type", "") and (answer.status_code >= 400)
            else ""
        )
        if right in MAY[role]:
            assert code != "forbidden", (method, path)
        else:
            assert (answer.status_code, code) == (403, "forbidden"), (method, path)
            assert answer.json()["error"]["details"] == {"cause": "role", "needed": right, "role": role}


def test_static_files_are_public_and_nothing_beside_them(client: TestClient, keys: dict[str, str]) -> None:
    assert client.get("/static/style.css").status_code == 200
    for path in ("/static/../main.py", "/static/%2e%2e/main.py", "/static/", "/static"):
        assert client.get(path, follow_redirects=False).status_code in (303, 404, 405), path


def test_a_browser_meets_errors_as_pages_and_a_program_as_json(client: TestClient, keys: dict[str, str]) -> None:
    html = {"Accept": "text/html", "X-API-Key": keys["search"]}
    for path, status in (("/keys", 403), ("/nowhere", 404)):
        page = client.get(path, headers={**html, "Accept-Language": "es"})
        assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert 'lang="es"' in page.text
        assert client.get(path, headers={"X-API-Key": keys["search"]}).headers["content-type"] == "application/json"


def test_a_page_for_those_who_have_not_signed_in_says_nothing_about_the_index(
    client: TestClient, keys: dict[str, str]
) -> None:
    page = client.get("/nowhere", headers={"Accept": "text/html"})
    assert page.status_code == 404
    for shown in ("faces indexed", "Model ", 'href="/status"', 'href="/account"', 'href="/keys"'):
        assert shown not in page.text
    assert 'href="/status"' in client.get("/nowhere", headers={"Accept": "text/html", "X-API-Key": keys["search"]}).text


def test_what_a_role_may_not_do_is_not_shown(client: TestClient, keys: dict[str, str]) -> None:
    assert 'href="/keys"' in client.get("/", headers={"X-API-Key": keys["admin"]}).text
    assert 'href="/keys"' not in client.get("/", headers={"X-API-Key": keys["search"]}).text
    status = client.get("/status", headers={"X-API-Key": keys["ingest"], "Accept": "text/html"}).text
    assert 'href="/help/similarity"' not in status


def test_the_first_key_closes_the_service_and_a_revoked_one_does_not_open_it(client: TestClient) -> None:
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    assert client.get("/status").status_code == 200
    added, key = add_key(services.keys, checked_grant("first", "admin"), "tests")
    services.authenticator.find_whether_key_is_needed()  # else up to 5 s later
    assert client.get("/status").status_code == 401
    assert client.get("/status", headers={"X-API-Key": key}).status_code == 200
    services.authenticator.revoke(added.id)
    assert client.get("/status", headers={"X-API-Key": key}).status_code == 401
    assert client.get("/status").status_code == 401


def test_too_many_wrong_keys_from_an_address_are_refused_without_looking(
    client: TestClient, keys: dict[str, str]
) -> None:
    assert client.get("/status", headers={"X-API-Key": keys["admin"]}).status_code == 200
    answers = [client.get("/status", headers={"X-API-Key": f"wrong-{number}"}) for number in range(25)]
    assert [one.status_code for one in answers[:20]] == [401] * 20
    assert answers[-1].status_code == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert answers[-1].json()["error"]["code"] == "too_many_requests"
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    services.authenticator._forget_all()  # as after 5 seconds: it is read from the catalog again
    assert client.get("/status", headers={"X-API-Key": keys["admin"]}).status_code == 200, "a known key goes on"


def test_a_key_may_send_so_many_requests_a_minute(settings: Settings) -> None:
    limited = settings.model_copy(update={"rate_limit_per_minute": 5, "api_keys": ("a-key-of-some-length",)})
    with TestClient(create_app(limited, engine=FakeEngine(), index=MemoryIndex())) as client:
        headers = {"X-API-Key": "a-key-of-some-length"}
        codes = [client.get("/status", headers=headers).status_code for _ in range(7)]
        assert codes == [200] * 5 + [429] * 2
        page = client.get("/", headers={**headers, "Accept": "text/html"})
        assert (page.status_code, "retry-after" in page.headers) == (429, True)
        assert page.headers["content-type"].startswith("text/html")
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("path", ["/search", "/kept", "/results", "/keys", "/sign-out", "/sign-in"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://other.example"},
        {"Origin": "null"},
    ],
)  # fmt: skip
def test_another_site_can_send_nothing(client: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = client.post(path, headers=headers)
    assert (answer.status_code, "other_site" in answer.text or "another site" in answer.text) == (403, True)


def test_a_key_in_a_header_needs_no_origin_for_no_browser_adds_it(client: TestClient, keys: dict[str, str]) -> None:
    headers = {"X-API-Key": keys["search"], "Origin": "https://other.example", "Sec-Fetch-Site": "cross-site"}
    assert client.post("/search", headers=headers).json()["error"]["code"] == "invalid_request"
