"""HTML routes of keys and users, for admins: list them, add one, revoke one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from app.catalog import Key
from app.core.errors import OceanoError
from app.core.texts import Translator, translator
from app.security import ROLES, add_key, add_user, checked_grant, new_password
from app.service import Services
from app.web.audit import write_audit
from app.web.csrf import REFERRER_POLICY
from app.web.deps import AccessDep, ServicesDep
from app.web.i18n import language_of
from app.web.numbers import whole_number
from app.web.pages.form_fields import last_of
from app.web.pages.names import printable
from app.web.pages.result_views import day_text
from app.web.pages.templating import render
from app.web.pages.views import error_view
from app.web.redirects import see_other
from app.web.uploads import read_fields

_MAX_DIGITS: Final = 4  # of a number of days


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key or user as the page lists it; texts that are empty are unknown."""

    id: str
    name: str
    kind: str
    role: str
    folders: tuple[str, ...]
    expires: str
    is_expired: bool
    used: str


@dataclass(frozen=True, slots=True)
class Entered:
    """What is in the form; folders are lines."""

    name: str = ""
    role: str = "search"
    folders: str = ""
    days: str = ""
    user: bool = False


@dataclass(frozen=True, slots=True)
class NewSecret:
    """The name of a new key or user, and its key or password, which is shown once."""

    name: str = ""
    secret: str = ""


def router() -> APIRouter:
    """Return the routes, which are not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route("/keys", _list, methods=["GET"])
    routes.add_api_route("/keys", _add, methods=["POST"])
    routes.add_api_route("/keys/{key_id}/revoke", _revoke, methods=["POST"])
    return routes


async def _list(request: Request, services: ServicesDep) -> HTMLResponse:
    return await _page(request, services)


async def _add(request: Request, services: ServicesDep, access: AccessDep) -> Response:
    fields = await read_fields(request)
    entered = Entered(
        last_of(fields, "name"),
        last_of(fields, "role"),
        last_of(fields, "folders"),
        last_of(fields, "days"),
        bool(last_of(fields, "user")),
    )
    try:
        made = await services.lookups.run(_made, services, entered, access.who)
    except OceanoError as failure:
        if failure.status >= 500:
            raise
        return await _page(request, services, entered=entered, failure=failure)
    await write_audit(
        request, "key.added", {"kind": "user" if entered.user else "key", "name": made.name, "role": entered.role}
    )
    return await _page(request, services, made=made)


async def _revoke(request: Request, key_id: str, services: ServicesDep) -> RedirectResponse:
    key = await services.lookups.run(services.keys.get, key_id)
    if key is None:
        raise OceanoError("not_found", "there is no such key or user")
    await services.lookups.run(services.authenticator.revoke, key_id)
    await write_audit(request, "key.revoked", {"kind": key.kind, "name": key.name, "id": key.id})
    return see_other(request, "/keys")


def _made(services: Services, entered: Entered, by: str) -> NewSecret:
    days = entered.days
    folders = [line.strip() for line in entered.folders.splitlines() if line.strip()]
    grant = checked_grant(entered.name, entered.role, folders, (whole_number(days, _MAX_DIGITS) or 0) if days else None)
    if entered.user:
        password = new_password()
        add_user(services.keys, grant, password, by)
        return NewSecret(grant.name, password)
    _, key = add_key(services.keys, grant, by)
    return NewSecret(grant.name, key)


async def _page(
    request: Request,
    services: Services,
    *,
    entered: Entered | None = None,
    made: NewSecret | None = None,
    failure: OceanoError | None = None,
) -> HTMLResponse:
    t = translator(language_of(request))
    keys = await services.lookups.run(services.keys.all)
    context = {
        "keys": [_view(key, t) for key in keys],
        "roles": ROLES,
        "entered": entered or Entered(role="search" if keys else "admin"),
        "new_name": "" if made is None else printable(made.name),
        "new_secret": "" if made is None else made.secret,
        "failure": "" if failure is None else error_view(failure, t, "").message,
    }
    response = render(request, "keys.html", context, status=200 if failure is None else failure.status)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = REFERRER_POLICY
    return response


def _view(key: Key, t: Translator) -> KeyView:
    return KeyView(
        key.id,
        printable(key.name),
        key.kind,
        key.role,
        tuple(printable(folder) for folder in key.folders),
        day_text((key.expires_at or "")[:10], t),
        not key.is_valid(),
        day_text((key.used_at or "")[:10], t),
    )
