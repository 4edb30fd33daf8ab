"""Security: who sends a request, what they may do and see, and the record of it."""

from app.security.audit import MAX_PURPOSE, Action, Audit, hash_of, new_entry
from app.security.audit_check import AuditFinding, AuditReport
from app.security.audit_export import EXPORTS, as_json, audit_filter, audit_lines
from app.security.authenticator import STATE_SECONDS, Authenticator, Visit
from app.security.enrolment import (
    Grant,
    add_key,
    add_user,
    checked_grant,
    checked_password,
    new_password,
)
from app.security.oidc import Begun, OidcProvider, OidcSettings, roles_of_groups
from app.security.roles import LOCAL, ROLES, Access, Right, Role, role_for
from app.security.scope import Scope, scope_of
from app.security.secrets import MIN_PASSWORD, hash_key, hash_password, new_id, new_key

__all__ = [
    "EXPORTS",
    "LOCAL",
    "MAX_PURPOSE",
    "MIN_PASSWORD",
    "ROLES",
    "STATE_SECONDS",
    "Access",
    "Action",
    "Audit",
    "AuditFinding",
    "AuditReport",
    "Authenticator",
    "Begun",
    "Grant",
    "OidcProvider",
    "OidcSettings",
    "Right",
    "Role",
    "Scope",
    "Visit",
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
    "role_for",
    "roles_of_groups",
    "scope_of",
]
