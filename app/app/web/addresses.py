"""Middleware for the addresses of requests: host names, the path behind a proxy, HEAD."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address, ip_network
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.config import ROOT_PATH, Settings
from app.core.errors import OceanoError
from app.service import Services
from app.web.errors import send_error
from app.web.root_path import ROOT_PATH_KEY

_LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


def allowed_hosts(settings: Settings, *, needs_key: bool) -> frozenset[str] | None:
    """Return the host names that the service answers; None for any.

    Without keys only names of this machine are answered. Otherwise a page of another site could give its own name the
    address 127.0.0.1 (DNS rebinding) and read pictures with the visitor's browser.
    """
    if "*" in settings.allowed_hosts:
        return None
    if needs_key or not settings.is_local:
        return frozenset(settings.allowed_hosts) or None
    return frozenset((*_LOOPBACK_NAMES, settings.uvicorn_host.lower(), *settings.allowed_hosts))


class HostCheck:
    """Answers requests for other host names with 421 `host_not_allowed`; `/health` answers any, for health checks.

    Args:
        app: the next application.
        settings: name the allowed hosts.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._with_keys = allowed_hosts(settings, needs_key=True)
        self._without_keys = allowed_hosts(settings, needs_key=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            services: Services = scope["app"].state.services
            hosts = self._with_keys if services.authenticator.needs_key else self._without_keys
            host = _without_port(Headers(scope=scope).get("host", ""))
            if host and hosts is not None and host not in hosts:  # every browser sends the header
                error = OceanoError(
                    "host_not_allowed",
                    f"this service does not answer the host name {host[:255]!r}; add it to ALLOWED_HOSTS",
                    details={"host": host[:255]},
                )
                await send_error(error, scope, receive, send)
                return
        await self._app(scope, receive, send)


class SubPath:
    """Sets the root path of a request: the path at which a proxy serves Oceano.

    It is ROOT_PATH, or else `X-Forwarded-Prefix` from a trusted proxy. It is removed from the request's path, for
    proxies that forward it.

    Args:
        app: the next application, which may change the client's address.
        root_path: such as `/oceano`; empty: use the header.
        proxies: addresses and networks of trusted proxies; *: all.
    """

    def __init__(self, app: ASGIApp, root_path: str, proxies: Collection[str]) -> None:
        self._app = app
        self._root_path = root_path
        self._trusts_all = "*" in proxies
        self._trusted = [ip_network(proxy) for proxy in proxies if proxy != "*"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (root := self._root_path or self._forwarded(scope)):
            path = scope["path"]
            stripped = (path[len(root) :] or "/") if f"{path}/".startswith(f"{root}/") else path
            scope = {**scope, "path": stripped, ROOT_PATH_KEY: root}
        await self._app(scope, receive, send)

    def _forwarded(self, scope: Scope) -> str:
        """Return the path in the header; empty if it is missing, repeated, malformed, or not from a trusted proxy."""
        sent = Headers(scope=scope).getlist("x-forwarded-prefix")
        if len(sent) != 1 or not self._is_trusted(scope):
            return ""
        path = sent[0].strip().rstrip("/")
        return path if ROOT_PATH.fullmatch(path) else ""

    def _is_trusted(self, scope: Scope) -> bool:
        if self._trusts_all:
            return True
        try:
            peer = ip_address(scope["client"][0])
        except (TypeError, ValueError):  # a Unix socket has no address
            return False
        return any(peer in network for network in self._trusted)


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


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return (name if separator and (port.isdecimal() or not port) else host).lower()
