"""The cookie of a session: set, renewed and removed."""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.auth import COOKIE
from app.web.root_path import root_path_of


def set_session(request: Request, response: Response, token: str) -> None:
    """Give the browser a session; it ends with the browser, or when the service ends it."""
    response.set_cookie(
        COOKIE,
        token,
        path=root_path_of(request) or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def forget_session(request: Request, response: Response) -> None:
    """Remove the session from the browser, with all that the page stores there."""
    response.delete_cookie(COOKIE, path=root_path_of(request) or "/")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'


class SessionRenewal:
    """Sends the new token of a session that `access_of` has given one, whatever the response is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and (token := scope.get("state", {}).get("new_session")):
                response = Response()
                set_session(Request(scope), response, token)
                MutableHeaders(scope=message).append("set-cookie", response.headers["set-cookie"])
            await send(message)

        await self._app(scope, receive, send_with_cookie if scope["type"] == "http" else send)
