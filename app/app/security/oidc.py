"""Sign-in with OpenID Connect: authorization code with PKCE; the person's groups decide the role."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from threading import Lock
from typing import Any, Final

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from app.core.errors import OceanoError
from app.security.oidc_settings import Begun, OidcSettings
from app.security.roles import Access, Role

_log = logging.getLogger(__name__)

_SECONDS: Final = 10.0  # of one request to the provider
_KNOWN_SECONDS: Final = 3600.0  # until its addresses and keys are read again
_LEEWAY_SECONDS: Final = 60  # between the clocks
_MAX_WHO: Final = 200
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_STRONGEST: Final[tuple[Role, ...]] = ("admin", "curate", "search", "ingest")


class OidcProvider:
    """Signs people in with a provider. Its methods block; they may be called from several threads.

    All methods raise OceanoError `sign_in_unavailable` if the provider does not answer as it should.
    """

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._read_at = 0.0
        self._addresses: Mapping[str, Any] = {}
        self._keys = KeySet([])

    def begin(self, redirect_uri: str) -> Begun:
        """Return the address at the provider to which the browser goes, and the values to keep until it is back."""
        nonce, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        addresses, _ = self._known()
        with self._session(redirect_uri) as session:
            url, state = session.create_authorization_url(
                addresses["authorization_endpoint"], nonce=nonce, code_verifier=verifier
            )
        return Begun(url, state, nonce, verifier)

    def finish(self, begun: Begun, redirect_uri: str, answer: Mapping[str, str]) -> Access:
        """Return who has signed in.

        Args:
            begun: what `begin` returned; its `url` is not used.
            redirect_uri: as for `begin`.
            answer: the query of the address at which the browser came back.

        Raises:
            OceanoError: `sign_in_failed` if the answer belongs to another sign-in, or the provider refuses; `forbidden`
                if none of the person's groups has a role.
        """
        if not begun.state or not secrets.compare_digest(answer.get("state", ""), begun.state):
            raise _failed("the answer belongs to another sign-in; begin again")
        if "error" in answer:
            raise _failed(f"the sign-in service refused: {answer['error'][:100]}")
        addresses, keys = self._known()
        with self._session(redirect_uri) as session:
            try:
                token = session.fetch_token(
                    addresses["token_endpoint"],
                    code=answer.get("code", ""),
                    code_verifier=begun.verifier,
                    timeout=_SECONDS,
                )
                claims = self._claims(token.get("id_token") or "", keys, begun.nonce)
                if self._settings.groups_claim not in claims and "userinfo_endpoint" in addresses:
                    claims = claims | self._user_info(session, addresses["userinfo_endpoint"], claims)
            except AuthlibBaseError as failure:
                raise _failed(f"the sign-in service refused: {failure.error}") from failure
            except (requests.RequestException, ValueError) as failure:
                raise self._unavailable(failure) from failure
        return self._access(claims)

    def _access(self, claims: Mapping[str, Any]) -> Access:
        groups = claims.get(self._settings.groups_claim, [])
        names = {groups} if isinstance(groups, str) else set(map(str, groups)) if isinstance(groups, list) else set()
        held = {role for group, role in self._settings.roles.items() if group in names}
        role = next((one for one in _STRONGEST if one in held), None)
        subject = str(claims["sub"])
        name = str(claims.get("email") or claims.get("preferred_username") or subject)
        who = f"oidc {name}" if name == subject else f"oidc {name} ({subject})"
        if role is None:
            _log.warning("%s signed in, but has no group of OIDC_ROLES", who)
            raise OceanoError("forbidden", "none of your groups may use this service", details={"cause": "no_group"})
        return Access("".join(filter(str.isprintable, who))[:_MAX_WHO], role)

    def _claims(self, id_token: str, keys: KeySet, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token after its checks (OpenID Connect Core 1.0, 3.1.3.7)."""
        registry = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": self._addresses["issuer"]},
            aud={"essential": True, "value": self._settings.client_id},
            exp={"essential": True},
            sub={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            token = jwt.decode(id_token, keys, algorithms=_ALGORITHMS)
            registry.validate(token.claims)
        except JoseError as failure:
            self._read_at = 0.0  # its keys may have changed
            raise _failed("the sign-in service sent an ID token that is not valid; try again") from failure
        return dict(token.claims)

    @staticmethod
    def _user_info(session: OAuth2Session, address: str, claims: Mapping[str, Any]) -> dict[str, Any]:
        answer = session.get(address, timeout=_SECONDS)
        answer.raise_for_status()
        info = answer.json()
        if not isinstance(info, dict) or info.get("sub") != claims["sub"]:
            raise _failed("the sign-in service described another person")
        return info

    def _session(self, redirect_uri: str) -> OAuth2Session:
        settings = self._settings
        return OAuth2Session(
            settings.client_id,
            settings.client_secret or None,
            scope=settings.scope,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_basic" if settings.client_secret else "none",
        )

    def _known(self) -> tuple[Mapping[str, Any], KeySet]:
        """Return the provider's addresses and keys, read at most once an hour."""
        with self._lock:
            if not self._read_at or time.monotonic() - self._read_at > _KNOWN_SECONDS:
                try:
                    addresses = self._get(f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
                    if str(addresses["issuer"]).rstrip("/") != self._settings.issuer.rstrip("/"):
                        raise ValueError(f"the issuer is {addresses['issuer']}")
                    keys = KeySet.import_key_set(self._get(addresses["jwks_uri"]))
                except (requests.RequestException, JoseError, ValueError, KeyError, TypeError) as failure:
                    raise self._unavailable(failure) from failure
                self._addresses, self._keys, self._read_at = addresses, keys, time.monotonic()
            return self._addresses, self._keys

    @staticmethod
    def _get(address: str) -> Any:
        answer = requests.get(address, timeout=_SECONDS)
        answer.raise_for_status()
        return answer.json()

    def _unavailable(self, failure: Exception) -> OceanoError:
        _log.error("OIDC_ISSUER %s: %s", self._settings.issuer, failure)
        return OceanoError("sign_in_unavailable", "the sign-in service does not answer as it should; try again soon")


def _failed(message: str) -> OceanoError:
    return OceanoError("sign_in_failed", message)
