"""Roles, what each may do, and who sends a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

Role = Literal["search", "curate", "ingest", "admin"]
Right = Literal["search", "curate", "ingest", "admin", "any"]
"""What a route needs: one of the roles' rights, or `any` for all who are signed in."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)

_RIGHTS: Final[Mapping[Role, frozenset[Right]]] = MappingProxyType(
    {
        "search": frozenset({"search"}),
        "curate": frozenset({"search", "curate"}),
        "ingest": frozenset({"ingest"}),
        "admin": frozenset({"search", "curate", "ingest", "admin"}),
    }
)


def role_for(right: Right) -> Role:
    """Return the least role that has a right; `any` needs none in particular."""
    return "search" if right == "any" else right


@dataclass(frozen=True, slots=True)
class Access:
    """Who sends a request, and what they may do.

    Attributes:
        who: for people and for the audit log, such as `key nightly`, `user ana`, `oidc ana@example.org`, `local`.
        role: their role.
        folders: absolute paths of the folders they may see; empty: all.
        key_id: of the key or user in the catalog; None for `API_KEYS`, OIDC and the local machine.
        session: digest of their session in the browser; None for programs.
    """

    who: str
    role: Role
    folders: tuple[str, ...] = ()
    key_id: str | None = None
    session: str | None = None

    def may(self, right: Right) -> bool:
        """Return whether the role has a right."""
        return right == "any" or right in _RIGHTS[self.role]

    @property
    def sees_all(self) -> bool:
        """Whether no folder is hidden from them."""
        return not self.folders


LOCAL: Final = Access("local", "admin")
"""Everyone, as long as there is no key and the service listens on this machine only."""
