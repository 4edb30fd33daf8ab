"""What the sign-in with OpenID Connect is told: a provider, the roles of its groups, and a sign-in that has begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.security.roles import ROLES, Role


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """A provider, and what its groups may do.

    Attributes:
        issuer: its address, below which is `/.well-known/openid-configuration`.
        client_id: Oceano's id at the provider.
        client_secret: Oceano's secret; empty for a public client.
        groups_claim: of the ID token or the user info: the person's groups.
        roles: role by group.
        scope: what is asked for.
    """

    issuer: str
    client_id: str
    client_secret: str
    groups_claim: str
    roles: Mapping[str, Role]
    scope: str = "openid email profile"


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that a browser has begun; it keeps these values in a cookie until it comes back."""

    url: str
    state: str
    nonce: str
    verifier: str


def roles_of_groups(text: str) -> dict[str, Role]:
    """Return the role of each group of `OIDC_ROLES`, such as `photo-team=search, photo-admins=admin`.

    Raises:
        ValueError: it is malformed.
    """
    roles: dict[str, Role] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        group, equals, name = (piece.strip() for piece in part.rpartition("="))
        role = next((one for one in ROLES if one == name), None)
        if not equals or not group or role is None:
            raise ValueError(f"must be like group=role, group=role, with the roles {', '.join(ROLES)}")
        roles[group] = role
    return roles
