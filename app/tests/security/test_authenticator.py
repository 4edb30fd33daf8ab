"""Keys, passwords and sessions, in both kinds of catalog."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.catalog import KeyStore, SessionStore
from app.core.errors import OceanoError
from app.security import Access, Authenticator, Grant, add_key, add_user, authenticator, checked_grant
from app.security.secrets import digest_of, hash_password, id_in, is_key, is_password, new_key
from tests.support.catalogs import KINDS, new_catalog

ADMIN = Grant("boss", "admin")
PASSWORD = "correct horse battery"


class Clock:
    """The time that authenticators see."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def forward(self, **parts: float) -> None:
        self.now += timedelta(**parts)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(authenticator, "_now", lambda: clock.now)
    monkeypatch.setattr(authenticator, "STATE_SECONDS", 0)
    monkeypatch.setattr("app.catalog.sessions.timestamp", lambda: clock.now.isoformat(timespec="seconds"))
    return clock


class Bench:
    """A catalog with an authenticator, which sees changes of others at once."""

    def __init__(self, store: KeyStore) -> None:
        self.store = store
        self._opened: list[Authenticator] = []
        self.keys = self.another()

    def another(self, *api_keys: str, oidc: bool = False) -> Authenticator:
        """A further process with the same catalog."""
        sessions = SessionStore(self.store.database)
        hour, day = timedelta(hours=1), timedelta(hours=12)
        self._opened.append(Authenticator(api_keys, self.store, sessions, idle=hour, longest=day, oidc=oidc))
        return self._opened[-1]

    def close(self) -> None:
        for one in self._opened:
            one.close()

    def sign_in(self, access: Access) -> str:
        return self.keys.sign_in(access, address="10.0.0.7", agent="Firefox")


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Bench]:
    with new_catalog(request.param, tmp_path) as database:
        bench = Bench(KeyStore(database))
        yield bench
        bench.close()


def test_a_key_says_who_has_it_and_what_they_may(bench: Bench) -> None:
    _, admin = add_key(bench.store, ADMIN, "tests")
    added, key = add_key(bench.store, Grant("nightly", "search", ("/photos/a",)), "tests")
    assert bench.keys.by_key(admin) == Access("key boss", "admin", (), admin.split("_")[1])
    access = bench.keys.by_key(key)
    assert access == Access("key nightly", "search", ("/photos/a",), added.id)
    assert access.may("search")
    assert access.may("any")
    assert not access.may("admin")
    assert not access.sees_all


def test_neither_keys_nor_passwords_are_stored(bench: Bench, tmp_path: Path) -> None:
    _, key = add_key(bench.store, ADMIN, "tests")
    add_user(bench.store, Grant("ana", "search"), PASSWORD, "tests")
    token = bench.sign_in(Access("key boss", "admin"))
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in (key, key.split("_", 2)[2], PASSWORD, token):
        assert secret.encode() not in stored
    digest = bench.store.digest(key.split("_")[1])
    assert digest is not None
    assert digest.startswith("$argon2id$")


@pytest.mark.parametrize("change", [lambda key: key[:-1], lambda key: key + "x", str.upper, lambda key: key[::-1]])
def test_a_changed_key_is_nobodys(bench: Bench, change: object) -> None:
    _, key = add_key(bench.store, ADMIN, "tests")
    assert bench.keys.by_key(change(key)) is None  # type: ignore[operator]
    other = new_key(key.split("_")[1])
    assert bench.keys.by_key(other) is None, "the right id with another secret"


@pytest.mark.parametrize("key", ["", "x", "oceano", "oceano__", "oceano_0123456789abcdef_", "\udcff" * 20, "a" * 5000])
def test_what_has_no_form_of_a_key_is_nobodys(bench: Bench, key: str) -> None:
    add_key(bench.store, ADMIN, "tests")
    assert bench.keys.by_key(key) is None


def test_an_expired_or_revoked_key_is_no_longer_valid_elsewhere_either(bench: Bench) -> None:
    add_key(bench.store, ADMIN, "tests")
    added, key = add_key(bench.store, Grant("short", "search", days=1), "tests")
    elsewhere = bench.another()
    assert elsewhere.by_key(key) is not None
    bench.keys.revoke(added.id)
    assert bench.keys.by_key(key) is None
    assert elsewhere.by_key(key) is None
    assert bench.store.all() != bench.store.all(revoked=True)


def test_a_key_that_has_expired_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _, key = add_key(bench.store, Grant("short", "admin", days=1), "tests")
    assert bench.keys.by_key(key) is not None
    monkeypatch.setattr("app.catalog.keys.timestamp", lambda: "2999-01-01T00:00:00+00:00")
    assert bench.keys.by_key(key) is None


def test_the_last_use_of_a_key_is_recorded(bench: Bench) -> None:
    added, key = add_key(bench.store, ADMIN, "tests")
    bench.keys.by_key(key)
    bench.keys.close()
    found = bench.store.get(added.id)
    assert found is not None
    assert found.used_at is not None


def test_many_requests_with_a_key_record_one_use(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    _, key = add_key(bench.store, ADMIN, "tests")
    monkeypatch.setattr(bench.store, "record_use", written.append)
    for _ in range(50):
        assert bench.keys.by_key(key) is not None
    bench.keys.close()
    assert len(written) == 1


def test_a_user_signs_in_with_name_and_password(bench: Bench) -> None:
    add_key(bench.store, ADMIN, "tests")
    user = add_user(bench.store, Grant("añá 日本", "curate"), PASSWORD, "tests")
    assert bench.keys.by_password("añá 日本", PASSWORD) == Access("user añá 日本", "curate", (), user.id)
    assert bench.keys.by_password("añá 日本", PASSWORD + " ") is None
    assert bench.keys.by_password("nobody", PASSWORD) is None
    assert bench.keys.by_key(PASSWORD) is None
    bench.keys.revoke(user.id)
    assert bench.keys.by_password("añá 日本", PASSWORD) is None
    add_user(bench.store, Grant("añá 日本", "search"), PASSWORD, "tests")


def test_two_valid_users_cannot_have_one_name(bench: Bench) -> None:
    add_user(bench.store, Grant("ana", "admin"), PASSWORD, "tests")
    with pytest.raises(OceanoError, match="already") as caught:
        add_user(bench.store, Grant("ana", "search"), PASSWORD, "tests")
    assert caught.value.code == "invalid_request"
    add_key(bench.store, Grant("ana", "search"), "tests")


def test_the_first_key_must_be_an_admins(bench: Bench) -> None:
    with pytest.raises(OceanoError, match="admin"):
        add_key(bench.store, Grant("first", "search"), "tests")
    assert not bench.store.is_any()


def test_a_session_lasts_as_long_as_it_is_used_and_then_some(bench: Bench, clock: Clock) -> None:
    add_key(bench.store, ADMIN, "tests")
    user = add_user(bench.store, Grant("ana", "search"), PASSWORD, "tests")
    token = bench.sign_in(Access("user ana", "search", (), user.id))
    for _ in range(3):
        clock.forward(minutes=50)
        visit = bench.keys.by_session(token)
        bench.keys.close()  # waits until the use is recorded
        bench.keys = bench.another()
        assert visit is not None
        assert (visit.access.who, visit.access.role) == ("user ana", "search")
    clock.forward(minutes=61)
    assert bench.keys.by_session(token) is None, "unused for an hour"


def test_a_session_ends_after_its_longest_time_however_busy(bench: Bench, clock: Clock) -> None:
    user = add_user(bench.store, Grant("ana", "admin"), PASSWORD, "tests")
    token = bench.sign_in(Access("user ana", "admin", (), user.id))
    for _ in range(14):
        clock.forward(minutes=50)
        bench.keys.by_session(token)
        bench.keys.close()
        bench.keys = bench.another()
    assert bench.keys.by_session(token) is not None
    clock.forward(minutes=25)
    assert bench.keys.by_session(token) is None


def test_a_session_gets_a_new_token_and_the_old_one_ends_once_the_new_one_is_used(bench: Bench, clock: Clock) -> None:
    user = add_user(bench.store, Grant("ana", "admin"), PASSWORD, "tests")
    first = bench.sign_in(Access("user ana", "admin", (), user.id))
    clock.forward(minutes=16)
    assert bench.keys.by_session(first) is not None, "a request of a script gets no new token"
    visit = bench.keys.by_session(first, rotate=True)
    assert visit is not None
    assert visit.token not in (None, first)
    assert bench.keys.by_session(first) is not None, "requests on their way still have the old one"
    clock.forward(minutes=2)
    renewed = bench.keys.by_session(str(visit.token))
    assert renewed is not None
    assert renewed.form_token == visit.form_token
    bench.keys.close()
    assert bench.another().by_session(first) is None
    assert bench.another().by_session(str(visit.token)) is not None


def test_whoever_has_a_replaced_token_cannot_take_the_session_over(bench: Bench, clock: Clock) -> None:
    user = add_user(bench.store, Grant("ana", "admin"), PASSWORD, "tests")
    first = bench.sign_in(Access("user ana", "admin", (), user.id))
    clock.forward(minutes=16)
    visit = bench.keys.by_session(first, rotate=True)
    assert visit is not None
    assert bench.keys.by_session(str(visit.token)) is not None, "the browser has its new token"
    bench.keys.close()  # waits until that is recorded
    bench.keys = bench.another()
    assert bench.keys.by_session(first, rotate=True) is not None, "on its way for less than a minute"
    clock.forward(seconds=61)
    for _ in range(2):
        assert bench.keys.by_session(first, rotate=True) is None
        assert bench.keys.by_session(str(visit.token)) is not None


def test_a_browser_that_never_got_its_new_token_gets_another(bench: Bench, clock: Clock) -> None:
    user = add_user(bench.store, Grant("ana", "admin"), PASSWORD, "tests")
    first = bench.sign_in(Access("user ana", "admin", (), user.id))
    clock.forward(minutes=16)
    lost = bench.keys.by_session(first, rotate=True)
    clock.forward(minutes=3)
    again = bench.keys.by_session(first, rotate=True)
    assert lost is not None
    assert again is not None
    assert again.token not in (None, lost.token)
    assert bench.keys.by_session(str(lost.token)) is None
    assert bench.keys.by_session(str(again.token)) is not None


def test_signing_out_ends_one_session_and_everywhere_ends_all(bench: Bench) -> None:
    user = add_user(bench.store, Grant("ana", "admin"), PASSWORD, "tests")
    access = Access("user ana", "admin", (), user.id)
    one, two, three = bench.sign_in(access), bench.sign_in(access), bench.sign_in(access)
    visit = bench.keys.by_session(one)
    assert visit is not None
    assert len(bench.keys.sessions_of(access)) == 3
    bench.keys.sign_out(visit.access)
    assert bench.keys.by_session(one) is None
    assert bench.keys.by_session(two) is not None
    assert bench.keys.sign_out_everywhere(access) == 2
    assert bench.another().by_session(three) is None


def test_a_session_ends_with_what_it_signed_in_with(bench: Bench) -> None:
    user = add_user(bench.store, Grant("ana", "admin"), PASSWORD, "tests")
    token = bench.sign_in(Access("user ana", "admin", (), user.id))
    bench.store.set_password(user.id, hash_password("another password"))
    assert bench.another().by_session(token) is None, "the password was changed"
    token = bench.sign_in(Access("user ana", "admin", (), user.id))
    bench.keys.revoke(user.id)
    assert bench.another().by_session(token) is None, "the user was revoked"
    named = bench.another("a-key-of-the-settings")
    access = named.by_key("a-key-of-the-settings")
    assert access is not None
    token = named.sign_in(access, address="", agent="")
    assert named.by_session(token) is not None
    assert bench.another("another-key-of-settings").by_session(token) is None, "API_KEYS were changed"
    by_oidc = bench.another(oidc=True).sign_in(Access("oidc ana", "search"), address="", agent="")
    assert bench.another(oidc=True).by_session(by_oidc) is not None
    assert bench.another().by_session(by_oidc) is None, "OpenID Connect was switched off"


@pytest.mark.parametrize("token", ["", "x", "\udcff", "a" * 5000])
def test_no_other_token_is_a_session(bench: Bench, token: str) -> None:
    bench.sign_in(Access("key boss", "admin"))
    assert bench.keys.by_session(token) is None
    assert bench.keys.by_session(digest_of(token)) is None


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", ("", "search", (), None)), ("name", ("x" * 101, "search", (), None)),
        ("name", ("a\nb", "search", (), None)), ("role", ("x", "root", (), None)),
        ("folders", ("x", "search", ("photos",), None)), ("folders", ("x", "search", ("/a\0b",), None)),
        ("folders", ("x", "search", tuple(f"/{n}" for n in range(101)), None)),
        ("days", ("x", "search", (), 0)), ("days", ("x", "search", (), 3651)),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_field(field: str, values: tuple[str, str, tuple[str, ...], int | None]) -> None:
    with pytest.raises(OceanoError) as caught:
        checked_grant(*values)
    assert (caught.value.code, caught.value.details["field"]) == ("invalid_request", field)


def test_folders_are_normal_paths() -> None:
    assert checked_grant("x", "search", ("/a//b/", "/a/./b", "/c/../d")).folders == ("/a/b", "/d")


@pytest.mark.parametrize("password", ["short", "x" * 2000])
def test_a_password_has_a_least_and_a_greatest_length(bench: Bench, password: str) -> None:
    with pytest.raises(OceanoError, match="characters"):
        add_user(bench.store, Grant("ana", "admin"), password, "tests")


def test_a_hash_fits_its_own_secret_only() -> None:
    stored = hash_password(PASSWORD)
    assert is_password(PASSWORD, stored)
    assert not is_password("another password", stored)
    assert not is_password(PASSWORD, None)
    assert not is_key("\udcff", None)
    assert not is_password(PASSWORD, "no hash")
    assert id_in(new_key("0123456789abcdef")) == "0123456789abcdef"
