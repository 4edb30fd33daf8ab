from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.types import Message

from app.core.config import Settings
from app.core.errors import OceanoError
from app.main import create_app
from app.web import bodies
from app.web.bodies import Bodies, Body
from tests.support.fake_server import serving
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.pictures import encoded

HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
POST = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"


def _part(size: int, more: bool = True) -> Message:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


async def _never() -> Message:
    await asyncio.sleep(60)
    raise AssertionError


async def _read(body: Body, messages: AsyncIterator[Message]) -> int:
    """Receive a whole body as the service does; its size."""
    while not body.is_complete:
        message = await body.receive(lambda: anext(messages))
        body.keep(len(message["body"]))
    return body.kept


async def _every(seconds: float, size: int, count: int) -> AsyncIterator[Message]:
    for _ in range(count):
        await asyncio.sleep(seconds)
        yield _part(size)
    yield _part(0, more=False)


def _run(test: Callable[[Bodies], Any], max_bytes: int = 10_000, min_rate: float = 1000, stall: float = 0.2) -> Any:
    async def run() -> Any:
        return await test(Bodies(max_bytes, min_rate, stall))

    return asyncio.run(run())


@pytest.mark.parametrize(("seconds", "size"), [(60, 1), (0.02, 1), (0.02, 10), (0.15, 20)])
def test_a_body_below_the_rate_is_ended(seconds: float, size: int) -> None:
    async def slow(bodies: Bodies) -> float:
        start = asyncio.get_running_loop().time()
        with bodies.body() as body, pytest.raises(OceanoError) as caught:
            await _read(body, _every(seconds, size, 1000))
        assert caught.value.code == "upload_too_slow"
        assert caught.value.status == 408
        assert caught.value.details == {"min_bytes_per_second": 1000}
        assert bodies.kept == 0
        return asyncio.get_running_loop().time() - start

    assert 0.15 < _run(slow) < 2


@pytest.mark.parametrize(("seconds", "size", "count"), [(0.02, 100, 40), (0.2, 1000, 4), (0, 1, 200)])
def test_a_slow_body_above_the_rate_may_take_longer_than_a_pause(seconds: float, size: int, count: int) -> None:
    async def steady(bodies: Bodies) -> int:
        with bodies.body() as body:
            return await _read(body, _every(seconds, size, count))

    assert _run(steady, stall=0.6) == size * count


def test_a_fast_start_does_not_allow_a_longer_pause() -> None:
    async def pauses(bodies: Bodies) -> None:
        with bodies.body() as body:
            await body.receive(lambda: anext(_every(0, 5000, 1)))  # at the rate, bytes of 5 s
            with pytest.raises(OceanoError, match="upload_too_slow"):
                await asyncio.wait_for(body.receive(_never), 2)

    _run(pauses)


def test_time_in_which_the_service_does_not_read_does_not_count() -> None:
    async def busy(bodies: Bodies) -> None:
        with bodies.body() as body:
            messages = _every(0, 1, 4)
            for _ in range(3):
                await asyncio.sleep(0.25)
                await body.receive(lambda: anext(messages))

    _run(busy)


def test_a_complete_body_may_wait_for_a_disconnect() -> None:
    async def waits(bodies: Bodies) -> None:
        with bodies.body() as body:
            await body.receive(lambda: anext(_every(0, 5, 0)))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(body.receive(_never), 0.4)

    _run(waits)


def test_a_fast_body_ends_the_slowest_one_if_all_together_are_too_large() -> None:
    async def run(bodies: Bodies) -> None:
        with bodies.body() as slow, bodies.body() as slower, bodies.body() as done, bodies.body() as fast:
            for body, size, more in ((slow, 2000, True), (slower, 1000, True), (done, 100, False)):
                await body.receive(lambda size=size, more=more: anext(_one(_part(size, more))))
                body.keep(size)
            waiting = [asyncio.create_task(body.receive(_never)) for body in (slow, slower)]
            await asyncio.sleep(0)
            await body_of(fast, 7000)
            with pytest.raises(OceanoError, match="upload_too_slow"):
                await waiting[1]
            assert not waiting[0].done()
            assert (done.kept, slow.kept, slower.kept, bodies.kept) == (100, 2000, 0, 9100)
            waiting[0].cancel()
        assert bodies.kept == 0

    async def body_of(body: Body, size: int) -> None:
        await body.receive(lambda: anext(_one(_part(size, more=False))))
        body.keep(size)

    _run(run, stall=5)


def test_a_body_that_no_slower_one_can_make_room_for_is_refused() -> None:
    async def run(bodies: Bodies) -> None:
        with bodies.body() as first, bodies.body() as second:
            await first.receive(lambda: anext(_one(_part(6000))))
            first.keep(6000)
            await second.receive(lambda: anext(_one(_part(5000))))
            with pytest.raises(OceanoError, match="in progress") as caught:
                second.keep(5000)
            assert (caught.value.code, caught.value.retry_after) == ("overloaded", 1)
            assert bodies.kept == 6000

    _run(run)


async def _one(message: Message) -> AsyncIterator[Message]:
    yield message


def test_half_open_uploads_get_408_and_others_are_served_meanwhile(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "STALL_SECONDS", 0.8)
    app = create_app(settings.model_copy(update={"uvicorn_limit_concurrency": 2}), FakeEngine(), MemoryIndex())
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(HEAD), HEAD)
    whole = POST + b"Content-Length: 90000\r\n\r\n"
    with serving(app, with_lifespan=True) as port, contextlib.ExitStack() as stack:
        connections = []
        for first in (chunked, whole, whole + HEAD, whole + HEAD + b"x" * 400) * 3:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            connection.sendall(first)
            connections.append(connection)
        with httpx.Client(base_url=f"http://localhost:{port}") as client:
            assert [client.get(path).status_code for path in ("/health", "/metrics", "/")] == [200] * 3
            assert client.post("/search", files={"image": encoded()}).status_code == 200
        for connection in connections[::4]:  # of the chunked ones
            connection.sendall(b"1\r\nx\r\n")
        for connection in connections:
            answer = b""
            while b"upload_too_slow" not in answer:
                answer += (received := connection.recv(10_000))
                assert received
            assert answer.startswith(b"HTTP/1.1 408")
