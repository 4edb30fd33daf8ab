"""Who sends a request: by an API key, by name and password, or by the session of a browser."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final, cast

from cachetools import TTLCache

from app.catalog import Key, KeyStore, Session, SessionStore
from app.core.errors import OceanoError
from app.security.roles import Access, Role
from app.security.secrets import digest_of, id_in, is_key, is_password, new_token

_log = logging.getLogger(__name__)

STATE_SECONDS: Final = 5.0  # until a revoked key, or a session that another process ended, is noticed
_HASH_SECONDS: Final = 3600.0  # until a key is hashed again
_CACHED: Final = 10_000  # keys and sessions
_ROTATE_AFTER: Final = timedelta(minutes=15)
_OVERLAP: Final = timedelta(minutes=1)  # requests that were sent before the browser had its new token
_USE_EVERY: Final = timedelta(minutes=1)  # a use is recorded
_OF_SETTINGS: Final = "API_KEYS "  # begins the `key_id` of sessions of these keys


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of a browser with a session.

    Attributes:
        access: who it is.
        form_token: of the forms of its pages.
        token: a new token for the browser; None: it keeps its own.
    """

    access: Access
    form_token: str
    token: str | None = None


class Authenticator:
    """Decides who sends a request. Its methods block; they may be called from several threads.

    All methods raise OceanoError `ledger_unavailable` if the catalog cannot be read.

    Args:
        api_keys: `API_KEYS`, which have the role admin.
        keys: those of the catalog.
        sessions: of browsers.
        idle: a session ends after this time without a request.
        longest: a session ends after this time.
        oidc: whether people may sign in with OpenID Connect.
    """

    def __init__(
        self,
        api_keys: Sequence[str],
        keys: KeyStore,
        sessions: SessionStore,
        *,
        idle: timedelta,
        longest: timedelta,
        oidc: bool = False,
    ) -> None:
        self._of_settings = {digest_of(key): _OF_SETTINGS + digest_of(key)[:8] for key in api_keys}
        self._store = keys
        self._sessions = sessions
        self._idle = idle
        self._longest = longest
        self._oidc = oidc
        self._lock = Lock()
        self._verified: TTLCache[str, str] = TTLCache(_CACHED, _HASH_SECONDS)
        self._keys: TTLCache[str, Key | None] = TTLCache(_CACHED, STATE_SECONDS)
        self._visits: TTLCache[str, Session] = TTLCache(_CACHED, STATE_SECONDS)
        self._is_closed = False
        self._look_at = 0.0  # by the monotonic clock; 0: it has not looked yet
        self._recorded: TTLCache[str, bool] = TTLCache(_CACHED, _USE_EVERY.total_seconds() / 2)
        self._uses = ThreadPoolExecutor(1, "key-use")

    @property
    def needs_key(self) -> bool | None:
        """Whether a request needs a key or a session, as last found; None if `find_whether_key_is_needed` must look."""
        if self._is_closed or self._of_settings or self._oidc:
            return True
        return None if time.monotonic() >= self._look_at else False

    def find_whether_key_is_needed(self) -> bool:
        """Return whether a key or user was ever added, so that requests need one; it stays so when all are revoked."""
        try:
            self._is_closed = self._store.is_any()
        except OceanoError:
            if not self._look_at:
                raise
        self._look_at = time.monotonic() + STATE_SECONDS
        return self._is_closed

    def known(self, key: str) -> Access | None:
        """Return who has an API key, if that is known without the catalog; this takes microseconds."""
        digest = digest_of(key)
        named = [of for known, of in self._of_settings.items() if hmac.compare_digest(known, digest)]
        if named:
            return Access(named[0], "admin")
        with self._lock:
            found = self._keys.get(self._verified.get(digest, ""))
        return self._of_key(found)

    def was_right(self, key: str) -> bool:
        """Return whether an API key was somebody's within the last hour, so that `by_key` need not hash it."""
        with self._lock:
            return digest_of(key) in self._verified

    def by_key(self, key: str) -> Access | None:
        """Return who has an API key; None if nobody has."""
        if (access := self.known(key)) is not None:
            return access
        digest = digest_of(key)
        with self._lock:
            key_id = self._verified.get(digest)
        if key_id is None:
            key_id = self._hashed(key)
            if key_id is None:
                return None
            with self._lock:
                self._verified[digest] = key_id
        return self._of_key(self._key(key_id))

    def by_password(self, name: str, password: str) -> Access | None:
        """Return the user with a name and password; None if either is wrong."""
        user = self._store.user(name)
        digest = None if user is None else self._store.digest(user.id)
        is_right = is_password(password, digest)
        if user is None or not is_right or not user.is_valid():
            return None
        return self._used(user)

    def sign_in(self, access: Access, *, address: str, agent: str) -> str:
        """Begin a session; return its token, for the browser's cookie."""
        token, now = new_token(), _now()
        self._sessions.add(
            Session(
                digest=digest_of(token),
                before=None,
                form_token=new_token(),
                who=access.who,
                key_id=access.who if access.who.startswith(_OF_SETTINGS) else access.key_id,
                role=access.role,
                folders=access.folders,
                created_at=_text(now),
                rotated_at=_text(now),
                confirmed=True,
                seen_at=_text(now),
                expires_at=_text(now + self._longest),
                address=address,
                agent=agent,
            )
        )
        return token

    def by_session(self, token: str, *, rotate: bool = False) -> Visit | None:
        """Return the visit of the browser with a token; None if the session has ended.

        Args:
            token: of its cookie.
            rotate: give it a new token if its own is old: for pages, whose responses browsers wait for.
        """
        digest = digest_of(token)
        session = self._session(digest)
        if session is None or (access := self._of_session(session)) is None:
            return None
        now = _now()
        age = now - _time(session.rotated_at)
        is_replaced = digest != session.digest
        if is_replaced and session.confirmed and age >= _OVERLAP:
            return None
        new = None
        # A browser that still sends the token before never got its new one: the response was lost.
        if rotate and age >= (_OVERLAP if is_replaced else _ROTATE_AFTER):
            new = new_token()
            if not self._sessions.rotate(session.digest, digest, digest_of(new)):
                new = None  # another request did
            self._forget(digest, session.digest)
        elif not is_replaced and (not session.confirmed or now - _time(session.seen_at) >= _USE_EVERY):
            self._record(session.digest, self._sessions.record_use)
        return Visit(access, session.form_token, new)

    def sessions_of(self, access: Access) -> list[Session]:
        """Return the sessions of a person that have not ended, newest first."""
        return [one for one in self._sessions.of(access.who) if self._of_session(one) is not None]

    def sign_out(self, access: Access) -> None:
        """End the session of a request."""
        if access.session is not None:
            self._sessions.end(access.session)
            self._forget_all()

    def sign_out_everywhere(self, access: Access) -> int:
        """End all sessions of a person; return how many there were."""
        ended = self._sessions.end_all(access.who)
        self._forget_all()
        return ended

    def revoke(self, key_id: str) -> None:
        """Make a key or user invalid for good, here at once and in other processes within `STATE_SECONDS`."""
        self._store.revoke(key_id)
        self._forget_all()

    def close(self) -> None:
        """Write what is left to write."""
        self._uses.shutdown()

    def _hashed(self, key: str) -> str | None:
        """Return the id of a key whose hash is right; it takes as long if no key has this id."""
        key_id = id_in(key)
        digest = None if key_id is None else self._store.digest(key_id)
        return key_id if is_key(key, digest) else None

    def _key(self, key_id: str) -> Key | None:
        """Return a key or user that is valid."""
        with self._lock:
            known = key_id in self._keys
            found = self._keys.get(key_id)
        if not known:
            found = self._store.get(key_id)
            with self._lock:
                self._keys[key_id] = found
        return found if found is not None and found.is_valid() else None

    def _of_key(self, key: Key | None) -> Access | None:
        return None if key is None or key.kind != "key" or not key.is_valid() else self._used(key)

    def _used(self, key: Key) -> Access:
        if key.used_at is None or _now() - _time(key.used_at) >= _USE_EVERY:
            self._record(key.id, self._store.record_use)
        return Access(f"{key.kind} {key.name}", cast(Role, key.role), key.folders, key.id)

    def _session(self, digest: str) -> Session | None:
        with self._lock:
            found = self._visits.get(digest)
        if found is None:
            found = self._sessions.get(digest)
            if found is not None:
                with self._lock:
                    self._visits[digest] = found
        return found

    def _of_session(self, session: Session) -> Access | None:
        """Return the access of a session; None if it has ended, or what it signed in with is no longer valid."""
        now = _now()
        if _time(session.expires_at) <= now or _time(session.seen_at) + self._idle <= now:
            return None
        if session.key_id is None:
            role = cast(Role, session.role)
            return Access(session.who, role, session.folders, None, session.digest) if self._oidc else None
        if session.key_id.startswith(_OF_SETTINGS):
            is_known = session.key_id in self._of_settings.values()
            return Access(session.who, "admin", (), None, session.digest) if is_known else None
        if (key := self._key(session.key_id)) is None:
            return None
        return Access(session.who, cast(Role, key.role), key.folders, key.id, session.digest)

    def _record(self, name: str, write: Callable[[str], None]) -> None:
        """Record a use in a thread, once: a request does not wait for the catalog's other writers."""
        with self._lock:
            if name in self._recorded:
                return
            self._recorded[name] = True

        def run() -> None:
            try:
                write(name)
            except OceanoError as failure:
                _log.warning("the last use of a key was not recorded: %s", failure.message)
            self._forget_all()  # what is cached does not have it

        self._uses.submit(run)

    def _forget(self, *digests: str) -> None:
        with self._lock:
            for digest in digests:
                self._visits.pop(digest, None)

    def _forget_all(self) -> None:
        with self._lock:
            self._visits.clear()
            self._keys.clear()


def _now() -> datetime:
    return datetime.now(UTC)


def _text(at: datetime) -> str:
    return at.isoformat(timespec="seconds")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
