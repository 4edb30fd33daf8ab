"""What route handlers depend on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from app.service import Services


def services_of(request: Request) -> Services:
    """Return the parts of the running service."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]
