"""`oceano keys`: what it prints, adds and refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from app.cli import main
from tests.support.running import environment, free_port
from tests.support.running import oceano as program

PASSWORD = "correct horse battery"


class Done(NamedTuple):
    """What a command returned and printed."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def oceano(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process, with lines for its standard input."""
    for name, value in environment(tmp_path / "data").items():
        monkeypatch.setenv(name, value)

    def run(*words: str, stdin: str = "") -> Done:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        return Done(main([*words]), *capsys.readouterr())

    return run


def test_keys_and_users_are_added_listed_and_revoked(oceano: Command) -> None:
    assert "no keys" in oceano("keys", "list").stderr
    first = oceano("keys", "add", "boss", "--role", "admin")
    assert (first.returncode, first.stdout.startswith("oceano_")) == (0, True)
    assert "cannot be shown again" in first.stderr
    added = oceano("keys", "add", "ana", "--user", "--role", "curate", stdin=f"{PASSWORD}\n")
    assert added.stdout == "added: user ana, role curate\n"
    scoped = oceano("keys", "add", "scoped", "--folder", "/a/", "--folder", "/b", "--days", "3", "--json")
    found = json.loads(scoped.stdout)
    assert (found["folders"], found["key"].split("_")[1], found["role"]) == (["/a", "/b"], found["id"], "search")
    listed = json.loads(oceano("keys", "list", "--json").stdout)
    assert [(one["kind"], one["name"]) for one in listed] == [("key", "boss"), ("key", "scoped"), ("user", "ana")]
    assert not {"key", "digest"} & listed[0].keys()
    assert oceano("keys", "revoke", "scoped").stdout == "revoked: key scoped\n"
    plain = oceano("keys", "list").stdout
    assert ("scoped" in plain, "boss" in plain) == (False, True)
    assert "revoked" in oceano("keys", "list", "--all").stdout
    changed = oceano("keys", "password", "ana", stdin="another password\n")
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
def test_a_mistake_is_one_sentence_and_exit_code_2(oceano: Command, arguments: tuple[str, ...], said: str) -> None:
    done = oceano("keys", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_that_is_too_short_adds_nobody(oceano: Command) -> None:
    assert oceano("keys", "add", "ana", "--user", "--role", "admin", stdin="short\n").returncode == 2
    assert oceano("keys", "list", "--json").stdout == "[]\n"


def test_of_keys_with_one_name_the_id_says_which(oceano: Command) -> None:
    for _ in range(2):
        assert oceano("keys", "add", "twin", "--role", "admin").returncode == 0
    refused = oceano("keys", "revoke", "twin")
    ids = [one["id"] for one in json.loads(oceano("keys", "list", "--json").stdout)]
    assert (refused.returncode, all(one in refused.stderr for one in ids)) == (2, True)
    assert oceano("keys", "revoke", ids[0]).returncode == 0


def test_the_service_refuses_to_be_open_to_other_machines(tmp_path: Path, demo_models: Path) -> None:
    open_to_all = environment(tmp_path / "data") | {
        "UVICORN_HOST": "0.0.0.0",
        "UVICORN_PORT": str(free_port()),
        "MODEL_NAME": str(demo_models / "demo"),
    }
    refused = program("serve", env=open_to_all)
    assert refused.returncode == 2
    assert "keys add NAME --role admin" in refused.stderr
    assert "UVICORN_HOST=127.0.0.1" in refused.stderr
