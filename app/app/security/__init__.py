"""Security: who sends a request, what they may do and see, and the record of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.security.audit import MAX_PURPOSE, Action, Audit, hash_of, new_entry
from app.security.audit_check import AuditReport
from app.security.audit_export import EXPORTS, as_json, audit_filter, audit_lines
from app.security.authenticator import Authenticator
from app.security.enrolment import (
    Grant,
    add_key,
    add_user,
    checked_grant,
    checked_password,
    new_password,
)
from app.security.oidc_settings import Begun, OidcSettings, roles_of_groups
from app.security.roles import LOCAL, ROLES, Access, Right, Role, role_for
from app.security.scope import Scope, scope_of
from app.security.secrets import hash_key, hash_password, new_id, new_key

if TYPE_CHECKING:
    from app.security.oidc import OidcProvider as OidcProvider  # as: so that others may import it

__all__ = [
    "EXPORTS",
    "LOCAL",
    "MAX_PURPOSE",
    "ROLES",
    "Access",
    "Action",
    "Audit",
    "AuditReport",
    "Authenticator",
    "Begun",
    "Grant",
    "OidcSettings",
    "Right",
    "Role",
    "Scope",
    "add_key",
    "add_user",
    "as_json",
    "audit_filter",
    "audit_lines",
    "checked_grant",
    "checked_password",
    "hash_key",
    "hash_of",
    "hash_password",
    "new_entry",
    "new_id",
    "new_key",
    "new_password",
    "open_oidc",
    "role_for",
    "roles_of_groups",
    "scope_of",
]


def open_oidc(settings: OidcSettings) -> OidcProvider:
    """Return the provider with which people sign in; its libraries take 0.2 s to import, so only who uses it does."""
    from app.security.oidc import OidcProvider

    return OidcProvider(settings)
