"""What route handlers depend on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from app.core.errors import OceanoError
from app.security import Access
from app.service import Services


def services_of(request: Request) -> Services:
    """Return the running service, as the one sees it who sends the request; all of it for a public route."""
    services: Services = request.app.state.services
    access: Access | None = getattr(request.state, "access", None)
    return services if access is None else services.within(access)


def counted_services(request: Request) -> Services:
    """Return `services_of`, with a number of faces that is not old; may block."""
    services = services_of(request)
    services.count_view()
    return services


def current_access(request: Request) -> Access:
    """Return who sends the request, which `Requires` has found.

    Raises:
        OceanoError: `internal` if the route has no such dependency.
    """
    access: Access | None = getattr(request.state, "access", None)
    if access is None:
        raise OceanoError("internal", "the route has no right")
    return access


ServicesDep = Annotated[Services, Depends(counted_services)]
AccessDep = Annotated[Access, Depends(current_access)]
