"""Keys and passwords: made, hashed and compared. Only hashes are stored."""

from __future__ import annotations

import hashlib
import secrets
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_PASSWORD: Final = 12  # characters
MAX_SECRET: Final = 1024  # characters; longer ones are not hashed
_PREFIX: Final = "oceano"
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
# A key has 256 random bits, so nobody can try all of them, and a costly hash protects nothing: this one takes 1 ms.
# A flood of wrong keys then occupies no processor. Passwords have the library's defaults (RFC 9106), some 50 ms.
_OF_KEYS: Final = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)
_OF_PASSWORDS: Final = PasswordHasher()


def new_id() -> str:
    """Return a new id of a key, 16 hexadecimal digits."""
    return secrets.token_hex(_ID_BYTES)


def new_key(key_id: str) -> str:
    """Return a new key: its id, and 256 random bits."""
    return f"{_PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def new_token() -> str:
    """Return a new random token of 256 bits, for a session."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token, under which it is stored and cached."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def id_in(key: str) -> str | None:
    """Return the id that a key names; None if it has another form."""
    parts = key.split("_", 2)
    is_key = len(parts) == 3 and parts[0] == _PREFIX and len(parts[1]) == 2 * _ID_BYTES
    return parts[1] if is_key and len(key) <= MAX_SECRET else None


def hash_key(key: str) -> str:
    """Return the hash of a key (Argon2id)."""
    return _OF_KEYS.hash(key)


def hash_password(password: str) -> str:
    """Return the hash of a password (Argon2id)."""
    return _OF_PASSWORDS.hash(password)


def is_key(key: str, stored: str | None) -> bool:
    """Return whether a key has a hash. With None, which no key has, it takes as long."""
    return _matches(_OF_KEYS, key, stored or _no_key())


def is_password(password: str, stored: str | None) -> bool:
    """Return whether a password has a hash. With None, which no password has, it takes as long."""
    return _matches(_OF_PASSWORDS, password, stored or _no_password())


def _matches(hasher: PasswordHasher, secret: str, stored: str) -> bool:
    try:
        return len(secret) <= MAX_SECRET and hasher.verify(stored, secret)
    except (VerificationError, InvalidHashError, UnicodeError):
        return False


@cache
def _no_key() -> str:
    return hash_key(new_token())


@cache
def _no_password() -> str:
    return hash_password(new_token())
