"""Middleware for the addresses of requests: host names, the path behind a proxy, HEAD."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.config import Settings
from app.core.errors import OceanoError
from app.web.errors import send_error

_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


def allowed_hosts(settings: Settings) -> frozenset[str] | None:
    """Return the host names that the service answers; None for any.

    Without API keys and on a loopback address only names of this machine are answered. Otherwise a page of another
    site could give its own name the address 127.0.0.1 (DNS rebinding) and read pictures with the visitor's browser.
    """
    if "*" in settings.allowed_hosts:
        return None
    if settings.api_keys or not _is_loopback(settings.uvicorn_host):
        return frozenset(settings.allowed_hosts) or None
    return frozenset((*_LOOPBACK_NAMES, settings.uvicorn_host.lower(), *settings.allowed_hosts))


class HostCheck:
    """Answers requests for other host names with 421 `host_not_allowed`; `/health` answers any, for health checks.

    Args:
        app: the next application.
        hosts: the allowed names, in lower case, without a port.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            host = _without_port(Headers(scope=scope).get("host", ""))
            if host and host not in self._hosts:  # every browser sends the header
                error = OceanoError(
                    "host_not_allowed",
                    f"this service does not answer the host name {host[:255]!r}; add it to ALLOWED_HOSTS",
                    details={"host": host[:255]},
                )
                await send_error(error, scope, receive, send)
                return
        await self._app(scope, receive, send)


class SubPath:
    """Removes ROOT_PATH from the paths of requests, for proxies that forward it; the rest of the service never sees it.

    Args:
        app: the next application.
        root_path: such as `/oceano`.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and f"{scope['path']}/".startswith(f"{self._root_path}/"):
            scope = {**scope, "path": scope["path"][len(self._root_path) :] or "/"}
        await self._app(scope, receive, send)


class HeadAsGet:
    """Answers HEAD as GET without the body, at every address."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, send_head)
        finally:
            scope.update(as_get | {"method": "HEAD"})  # the route, for metrics


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return (name if separator and (port.isdecimal() or not port) else host).lower()
