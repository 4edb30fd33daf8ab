"""HTML routes of signing in with OpenID Connect: to the provider and back."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, RedirectResponse

from app.core.errors import OceanoError
from app.security import Begun
from app.web.audit import write_audit
from app.web.auth import address_of
from app.web.deps import services_of
from app.web.errors import SIGN_IN
from app.web.redirects import SEE_OTHER, own_address, see_other
from app.web.root_path import root_path_of
from app.web.session_cookie import set_session

if TYPE_CHECKING:
    from app.security import OidcProvider

OIDC: Final = f"{SIGN_IN}/oidc"
_COOKIE: Final = "oceano_oidc"
_SECONDS: Final = 600  # to sign in at the provider


def router() -> APIRouter:
    """Return the routes, which are not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    routes.add_api_route(OIDC, _begin, methods=["GET"])
    routes.add_api_route(f"{OIDC}/callback", _finish, methods=["GET"])
    return routes


async def _begin(request: Request) -> RedirectResponse:
    services, provider = services_of(request), _provider(request)
    begun = await services.lookups.run(provider.begin, _redirect_uri(request))
    kept = {
        "state": begun.state, "nonce": begun.nonce, "verifier": begun.verifier,
        "next": own_address(request.query_params.get("next", "")),
    }  # fmt: skip
    response = RedirectResponse(begun.url, SEE_OTHER, headers={"Cache-Control": "no-store"})
    response.set_cookie(
        _COOKIE,
        base64.urlsafe_b64encode(json.dumps(kept).encode()).decode(),
        max_age=_SECONDS,
        path=f"{root_path_of(request)}{OIDC}",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",  # the provider's site sends the browser back
    )
    return response


async def _finish(request: Request) -> RedirectResponse:
    services, provider = services_of(request), _provider(request)
    kept = _kept(request)
    begun = Begun("", kept.get("state", ""), kept.get("nonce", ""), kept.get("verifier", ""))
    answer = dict(request.query_params)
    try:
        access = await services.lookups.run(provider.finish, begun, _redirect_uri(request), answer)
    except OceanoError as failure:
        if failure.status < 500:
            await write_audit(request, "sign_in.failed", {"with": "oidc", "code": failure.code})
        raise
    agent, address = request.headers.get("user-agent", ""), address_of(request)
    token = await services.lookups.run(lambda: services.authenticator.sign_in(access, address=address, agent=agent))
    await write_audit(request, "sign_in", {"with": "oidc"}, who=access.who)
    response = see_other(request, kept.get("next", "/"))
    response.headers["Cache-Control"] = "no-store"
    set_session(request, response, token)
    response.delete_cookie(_COOKIE, path=f"{root_path_of(request)}{OIDC}")
    return response


def _provider(request: Request) -> OidcProvider:
    provider = services_of(request).oidc
    if provider is None:
        raise OceanoError("not_found", "no sign-in service is set up (OIDC_ISSUER)")
    return provider


def _redirect_uri(request: Request) -> str:
    host = request.headers.get("host", "")
    return f"{request.url.scheme}://{host}{root_path_of(request)}{OIDC}/callback"


def _kept(request: Request) -> dict[str, str]:
    """Return the values of the cookie; empty if it is missing or was changed."""
    try:
        kept = json.loads(base64.urlsafe_b64decode(request.cookies.get(_COOKIE, "")))
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in kept.items()} if isinstance(kept, dict) else {}
