"""serve: the address that it listens on."""

from __future__ import annotations

import socket

import pytest

from app.commands.serve import _listening
from app.core.config import Settings
from app.core.errors import OceanoError


def _settings(host: str) -> Settings:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Settings(_env_file=None, uvicorn_host=host, uvicorn_port=port)


@pytest.mark.parametrize(
    ("host", "address"), [("[::1]", "::1"), (" ::1 ", "::1"), ("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1")]
)
def test_it_listens_on_the_address_of_the_host(host: str, address: str) -> None:
    with _listening(_settings(host)) as listener:
        assert listener.getsockname()[0] == address


@pytest.mark.parametrize("host", ["no-such-host.invalid", "127.0.0.1:9100", "x" * 300])
def test_a_host_that_cannot_be_resolved_is_named_as_such(host: str) -> None:
    with pytest.raises(OceanoError, match="cannot be resolved") as caught, _listening(_settings(host)):
        pass
    assert caught.value.code == "invalid_setting"
    assert "another Oceano" not in caught.value.message


def test_a_port_in_use_is_named_as_such() -> None:
    settings = _settings("127.0.0.1")
    with (
        _listening(settings) as listener,
        pytest.raises(OceanoError, match="another Oceano"),
    ):
        listener.listen()
        with _listening(settings):
            pass
