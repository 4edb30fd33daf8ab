"""HTML routes of signing in and out, and of one's own account."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Depends
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from app.core.errors import OceanoError
from app.core.texts import Translator, translator
from app.security import LOCAL
from app.web.audit import write_audit
from app.web.auth import Requires, access_of, address_of
from app.web.csrf import REFERRER_POLICY, require_own_site
from app.web.deps import AccessDep, services_of
from app.web.errors import SIGN_IN
from app.web.i18n import language_of
from app.web.pages.form_fields import last_of
from app.web.pages.names import printable
from app.web.pages.result_views import day_text
from app.web.pages.templating import render
from app.web.pages.views import error_view
from app.web.redirects import is_own_address, see_other
from app.web.session_cookie import forget_session, set_session
from app.web.uploads import read_fields


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as the page lists it."""

    since: str
    address: str
    agent: str
    is_this: bool


def router() -> APIRouter:
    """Return the routes, which are not in the schema of the API."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    own = [Depends(Requires("any"))]
    routes.add_api_route(SIGN_IN, _form, methods=["GET"])
    routes.add_api_route(SIGN_IN, _sign_in, methods=["POST"])
    routes.add_api_route("/account", _account, methods=["GET"], dependencies=own)
    routes.add_api_route("/sign-out", _sign_out, methods=["POST"], dependencies=own)
    routes.add_api_route("/sign-out/everywhere", _sign_out_everywhere, methods=["POST"], dependencies=own)
    return routes


async def _form(request: Request) -> Response:
    try:
        is_signed_in = await access_of(request) is not None
    except OceanoError as failure:  # such as a wrong key in a header
        if failure.status == 503:
            raise
        is_signed_in = False
    next_ = request.query_params.get("next", "")
    if is_signed_in:
        return see_other(request, next_)
    # After a link on another site, the browser withholds the cookie (SameSite=Strict) until the page is loaded again.
    return _page(request, next_=next_, reload=request.headers.get("sec-fetch-site") == "cross-site")


async def _sign_in(request: Request) -> Response:
    require_own_site(request, None)
    services, rates, address = services_of(request), request.app.state.rates, address_of(request)
    fields = await read_fields(request)
    name, secret, next_ = last_of(fields, "name"), last_of(fields, "secret"), last_of(fields, "next")
    authenticator = services.authenticator
    try:
        with rates.attempt(address) as attempt:
            if name:
                access = await services.sign_ins.run(authenticator.by_password, name, secret)
            else:
                access = await services.sign_ins.run(authenticator.by_key, secret) if secret else None
            attempt.succeeded = access is not None
    except OceanoError as failure:
        if failure.status == 503:
            raise
        return _page(request, next_=next_, name=name, failure=failure)
    if access is None:
        await write_audit(request, "sign_in.failed", {"with": "password" if name else "key"})
        cause = "wrong_password" if name else "wrong_key"
        wrong = OceanoError("unauthorized", "the name or the password is wrong", details={"cause": cause})
        return _page(request, next_=next_, name=name, failure=wrong)
    agent = request.headers.get("user-agent", "")
    token = await services.lookups.run(lambda: authenticator.sign_in(access, address=address, agent=agent))
    await write_audit(request, "sign_in", {"with": "password" if name else "key"}, who=access.who)
    response = see_other(request, next_)
    response.headers["Cache-Control"] = "no-store"
    set_session(request, response, token)
    return response


async def _account(request: Request, access: AccessDep) -> HTMLResponse:
    services = services_of(request)
    t = translator(language_of(request))
    sessions = [] if access == LOCAL else await services.lookups.run(services.authenticator.sessions_of, access)
    views = [
        SessionView(_moment(one.created_at, t), one.address, printable(one.agent), one.digest == access.session)
        for one in sessions
    ]
    response = render(request, "account.html", {"sessions": views})
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = REFERRER_POLICY
    return response


async def _sign_out(request: Request, access: AccessDep) -> RedirectResponse:
    services = services_of(request)
    await services.lookups.run(services.authenticator.sign_out, access)
    await write_audit(request, "sign_out")
    return _signed_out(request)


async def _sign_out_everywhere(request: Request, access: AccessDep) -> RedirectResponse:
    services = services_of(request)
    ended = await services.lookups.run(services.authenticator.sign_out_everywhere, access)
    await write_audit(request, "sign_out", {"sessions": ended})
    return _signed_out(request)


def _signed_out(request: Request) -> RedirectResponse:
    response = see_other(request, SIGN_IN)
    request.state.new_session = None
    forget_session(request, response)
    return response


def _page(
    request: Request, *, next_: str, name: str = "", failure: OceanoError | None = None, reload: bool = False
) -> HTMLResponse:
    services, t = services_of(request), translator(language_of(request))
    context = {
        "next": next_ if is_own_address(next_) else "",
        "name": name,
        "reload": f"{request.scope['path']}?{request.url.query}" if reload else "",
        "failure": "" if failure is None else error_view(failure, t, "").message,
        "ended": bool(request.query_params.get("ended")),
        "oidc_name": services.settings.oidc_name if services.oidc else "",
    }
    response = render(request, "sign_in.html", context, status=200 if failure is None else failure.status)
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = REFERRER_POLICY
    if failure is not None and failure.retry_after is not None:
        response.headers["Retry-After"] = str(int(failure.retry_after))
    return response


def _moment(text: str, t: Translator) -> str:
    """Return day and time of a session, UTC."""
    return f"{day_text(text[:10], t)}, {text[11:16]} UTC"
