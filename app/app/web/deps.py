"""What a request handler needs from the running service."""

from __future__ import annotations

from fastapi import Request

from app.service.services import Services


def services_of(request: Request) -> Services:
    """The running service's parts."""
    services: Services = request.app.state.services
    return services
