"""`oceano keys`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.running import environment, free_port, oceano

PASSWORD = "correct horse battery"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "data")


def test_keys_and_users_are_added_listed_and_revoked(env: dict[str, str]) -> None:
    assert "no keys" in oceano("keys", "list", env=env).stderr
    first = oceano("keys", "add", "boss", "--role", "admin", env=env)
    assert (first.returncode, first.stdout.startswith("oceano_")) == (0, True)
    assert "cannot be shown again" in first.stderr
    added = oceano("keys", "add", "ana", "--user", "--role", "curate", env=env, stdin=f"{PASSWORD}\n")
    assert added.stdout == "added: user ana, role curate\n"
    scoped = oceano("keys", "add", "scoped", "--folder", "/a/", "--folder", "/b", "--days", "3", "--json", env=env)
    found = json.loads(scoped.stdout)
    assert (found["folders"], found["key"].split("_")[1], found["role"]) == (["/a", "/b"], found["id"], "search")
    listed = json.loads(oceano("keys", "list", "--json", env=env).stdout)
    assert [(one["kind"], one["name"]) for one in listed] == [("key", "boss"), ("key", "scoped"), ("user", "ana")]
    assert not {"key", "digest"} & listed[0].keys()
    assert oceano("keys", "revoke", "scoped", env=env).stdout == "revoked: key scoped\n"
    plain = oceano("keys", "list", env=env).stdout
    assert ("scoped" in plain, "boss" in plain) == (False, True)
    assert "revoked" in oceano("keys", "list", "--all", env=env).stdout
    changed = oceano("keys", "password", "ana", env=env, stdin="another password\n")
    assert changed.stdout == "changed: password of user ana\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "x", "--role", "root"), "role must be one of"),
        (("add", "x", "--role", "search"), "first key or user must have the role admin"),
        (("add", "x", "--role", "admin", "--folder", "photos"), "absolute path"),
        (("add", "x", "--role", "admin", "--days", "0"), "days must be"),
        (("add", "", "--role", "admin"), "printable"),
        (("revoke", "nobody"), "no key or user"),
        (("password", "nobody"), "no user"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(env: dict[str, str], arguments: tuple[str, ...], said: str) -> None:
    done = oceano("keys", *arguments, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_that_is_too_short_adds_nobody(env: dict[str, str]) -> None:
    assert oceano("keys", "add", "ana", "--user", "--role", "admin", env=env, stdin="short\n").returncode == 2
    assert oceano("keys", "list", "--json", env=env).stdout == "[]\n"


def test_of_keys_with_one_name_the_id_says_which(env: dict[str, str]) -> None:
    for _ in range(2):
        assert oceano("keys", "add", "twin", "--role", "admin", env=env).returncode == 0
    refused = oceano("keys", "revoke", "twin", env=env)
    ids = [one["id"] for one in json.loads(oceano("keys", "list", "--json", env=env).stdout)]
    assert (refused.returncode, all(one in refused.stderr for one in ids)) == (2, True)
    assert oceano("keys", "revoke", ids[0], env=env).returncode == 0


def test_the_service_refuses_to_be_open_to_other_machines(env: dict[str, str], demo_models: Path) -> None:
    open_to_all = env | {
        "UVICORN_HOST": "0.0.0.0",
        "UVICORN_PORT": str(free_port()),
        "MODEL_NAME": str(demo_models / "demo"),
    }
    refused = oceano("serve", env=open_to_all)
    assert refused.returncode == 2
    assert "keys add NAME --role admin" in refused.stderr
    assert "UVICORN_HOST=127.0.0.1" in refused.stderr
