"""Redirects to pages of this service, and to no other site."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from fastapi.responses import RedirectResponse

from app.web.root_path import root_path_of

SEE_OTHER: Final = 303
_MAX_ADDRESS: Final = 4000  # characters


def see_other(request: Request, address: str) -> RedirectResponse:
    """Send the browser to a page of this service; to the start page if the address is not one of its own.

    Args:
        request: says at which path a proxy serves Oceano.
        address: below that path.
    """
    return RedirectResponse(root_path_of(request) + own_address(address), SEE_OTHER)


def own_address(address: str) -> str:
    """Return an address of this service as it is; the start page in place of any other."""
    return address if is_own_address(address) else "/"


def is_own_address(address: str) -> bool:
    """Return whether an address is one of this service, below its root: `//host` and `/\\host` are others."""
    is_path = address.startswith("/") and address[1:2] not in ("/", "\\") and len(address) <= _MAX_ADDRESS
    return is_path and address.isprintable() and "\\" not in address
