from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse
from starlette.types import Message

from app.core import logs
from app.core.config import Settings
from app.core.errors import OceanoError
from app.main import create_app
from app.web import bodies, limits
from app.web.errors import error_response
from app.web.limits import FORM_OVERHEAD, _drain
from app.web.middleware import SECURITY_HEADERS
from tests.support.clients import TestClient
from tests.support.fakes import FakeEngine, MemoryIndex
from tests.support.pictures import encoded

Handler = Callable[..., Awaitable[Any]]
MAX_UPLOAD = 100_000
LIMIT = MAX_UPLOAD + FORM_OVERHEAD
HEAD: Message = {
    "type": "http.request",
    "body": b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n',
    "more_body": True,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_upload_mb": MAX_UPLOAD / 1e6})


def _app(settings: Settings, **routes: Handler) -> FastAPI:
    """The service with more routes: what the middleware does to a handler that does this or that."""
    app = create_app(settings, engine=FakeEngine(), index=MemoryIndex())
    for name, handler in routes.items():
        app.add_api_route(f"/{name}", handler, methods=["GET", "POST"])
    return app


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    async def boom(request: Request) -> None:
        raise RuntimeError("a secret detail")

    async def ids(request: Request) -> list[str]:
        return [logs.request_id.get(), await anyio.to_thread.run_sync(logs.request_id.get)]

    with TestClient(_app(settings, boom=boom, ids=ids), raise_server_exceptions=False) as client:
        yield client


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app in this event loop, so that many requests are under way at once."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


async def _asgi(
    app: FastAPI, body: list[Message], path: str = "/detect", headers: dict[str, str] | None = None
) -> tuple[list[Message], int]:
    """POST to the bare app: what it sent, and how many of these messages it took."""
    sent: list[Message] = []
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        if taken == len(body):
            await asyncio.sleep(60)
        taken += 1
        return body[taken - 1]

    async def send(message: Message) -> None:
        sent.append(message)

    given = {"content-type": "multipart/form-data; boundary=b"} | (headers or {})
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("1.2.3.4", 5),
        "server": ("test", 80), "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
    }  # fmt: skip
    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    return sent, taken


def _chunks(count: int, size: int, last: bool = True) -> list[Message]:
    return [
        {"type": "http.request", "body": b"x" * size, "more_body": number < count - 1 or not last}
        for number in range(count)
    ]


def _answer(sent: list[Message]) -> tuple[int, dict[str, Any], dict[str, str]]:
    start, *rest = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], json.loads(b"".join(message["body"] for message in rest)), headers


# the request id


@pytest.mark.parametrize("given", ["abc123", "A" * 64, "0f9e6f8a-0a9f-5f0c-9d0e-7a0f3a3b1c2d", "a.b_c-9"])
def test_a_plain_request_id_is_kept(client: TestClient, given: str) -> None:
    answer = client.get("/nowhere", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given
    assert answer.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a" * 65, "<script>", "a\tb", "é", "-", ".", "../x", "a;b", "%0a", "{}"])
def test_any_other_request_id_is_replaced(client: TestClient, given: str) -> None:
    answer = client.get("/nowhere", headers={"X-Request-ID": given.encode("latin-1")})  # type: ignore[dict-item]
    request_id = answer.headers["x-request-id"]
    assert request_id != given
    assert len(request_id) == 32
    assert request_id.isalnum()
    assert answer.json()["request_id"] == request_id


def test_every_request_has_an_id_of_its_own(client: TestClient) -> None:
    assert len({client.get("/health").headers["x-request-id"] for _ in range(20)}) == 20


def test_a_handler_and_its_threads_see_the_request_id(client: TestClient) -> None:
    answer = client.get("/ids", headers={"X-Request-ID": "mine"})
    assert answer.json() == ["mine", "mine"]


def test_concurrent_requests_do_not_mix_their_ids(settings: Settings) -> None:
    async def slow(request: Request) -> list[str]:
        before = logs.request_id.get()
        await asyncio.sleep(0.01)
        return [before, await anyio.to_thread.run_sync(logs.request_id.get), logs.request_id.get()]

    async def run() -> list[httpx.Response]:
        async with _running(_app(settings, slow=slow)) as client:
            return await asyncio.gather(*(client.get("/slow", headers={"X-Request-ID": f"r{n}"}) for n in range(60)))

    answers = asyncio.run(run())
    assert len(answers) == 60
    for number, answer in enumerate(answers):
        assert answer.json() == [f"r{number}"] * 3
        assert answer.headers["x-request-id"] == f"r{number}"


# headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/", 200),
        ("GET", "/static/style.css", 200),
        ("GET", "/static/none.css", 404),
        ("GET", "/static/../main.py", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/search", 405),
        ("POST", "/search", 400),
        ("GET", "/thumbs/x", 404),
        ("GET", "/boom", 500),
        ("GET", "/metrics", 200),
    ],
)
def test_the_security_headers_are_on_everything(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert SECURITY_HEADERS
    expected = dict(SECURITY_HEADERS)
    if path == "/":
        expected["Referrer-Policy"] = "same-origin"  # its forms say where they come from
    for name, value in expected.items():
        assert answer.headers[name] == value
    assert answer.headers["x-request-id"]
    assert "server" not in answer.headers


def test_nothing_from_elsewhere_may_be_loaded_or_may_frame_the_page() -> None:
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


# what nobody foresaw


def test_an_unforeseen_error_is_500_internal_without_a_trace_and_logged_once(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        answer = client.get("/boom?token=hush", headers={"X-Request-ID": "boom1"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "boom1"
    assert answer.json() == {
        "error": {
            "code": "internal", "message": "an unexpected error; the log has the details", "details": {},
        },
        "request_id": "boom1",
    }  # fmt: skip
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert len(tracebacks) == 1
    assert tracebacks[0].levelname == "ERROR"
    assert "a secret detail" in str(tracebacks[0].exc_info)
    assert "hush" not in " ".join(r.getMessage() for r in caplog.records if r.name != "httpx")  # httpx is the client
    assert "GET" in tracebacks[0].getMessage()


def test_an_unforeseen_error_does_not_reach_the_server(settings: Settings) -> None:
    async def boom(request: Request) -> None:
        raise RuntimeError("?")

    with TestClient(_app(settings, boom=boom)) as client:  # it would raise here what reaches it
        assert client.get("/boom").status_code == 500


def test_an_unforeseen_error_is_counted(client: TestClient) -> None:
    client.get("/boom")
    exposition = client.get("/metrics").text
    assert 'oceano_errors_total{code="internal"} 1.0' in exposition
    assert 'oceano_requests_total{method="GET",route="/boom",status="500"} 1.0' in exposition


def test_a_client_of_another_origin_can_read_an_unforeseen_error(settings: Settings) -> None:
    async def boom(request: Request) -> None:
        raise RuntimeError("?")

    settings = settings.model_copy(update={"cors_origins": ("https://a.example",)})
    with TestClient(_app(settings, boom=boom)) as client:
        answer = client.get("/boom", headers={"Origin": "https://a.example"})
    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] == "https://a.example"


def test_a_client_that_leaves_while_it_sends_is_no_error(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    app = _app(settings)
    with caplog.at_level(logging.INFO):
        sent, _ = asyncio.run(_asgi(app, [HEAD, *_chunks(2, 100, last=False), {"type": "http.disconnect"}]))
    assert sent == []
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text for text in warned if "The index is empty" not in text] == []
    exposition = app.state.metrics.exposition().decode()
    assert 'oceano_requests_total{method="POST",route="/detect",status="499"} 1.0' in exposition
    assert "oceano_requests_in_flight 0.0" in exposition


# the time limit


def test_a_request_that_takes_too_long_is_504_in_json(settings: Settings) -> None:
    async def slow(request: Request) -> None:
        await asyncio.sleep(30)

    settings = settings.model_copy(update={"request_timeout_seconds": 0.05})
    start = time.perf_counter()
    with TestClient(_app(settings, slow=slow)) as client:
        answer = client.get("/slow", headers={"X-Request-ID": "slow1"})
    assert time.perf_counter() - start < 5
    assert answer.status_code == 504
    assert answer.json() == {
        "error": {"code": "timeout", "message": "the request took longer than 0.05 s", "details": {"seconds": 0.05}},
        "request_id": "slow1",
    }
    assert answer.headers["x-request-id"] == "slow1"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_thread_that_hangs_does_not_hold_the_answer(settings: Settings) -> None:
    release = threading.Event()

    async def slow(request: Request) -> None:
        await anyio.to_thread.run_sync(release.wait, 20)

    async def run() -> httpx.Response:
        async with _running(_app(settings.model_copy(update={"request_timeout_seconds": 0.05}), slow=slow)) as client:
            answer = await client.get("/slow")
            release.set()
            return answer

    assert asyncio.run(run()).status_code == 504


def test_a_timeout_inside_a_handler_is_not_the_time_limit(settings: Settings) -> None:
    async def inner(request: Request) -> None:
        raise TimeoutError("of something else")

    with TestClient(_app(settings, inner=inner)) as client:
        assert client.get("/inner").json()["error"]["code"] == "internal"


def test_the_time_of_the_upload_does_not_count(settings: Settings) -> None:
    async def echo(request: Request) -> int:
        return len(await request.body())

    async def late(request: Request) -> None:
        await request.body()
        await asyncio.sleep(30)

    async def slow_body() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(0.1)
            yield b"x"

    async def run() -> list[httpx.Response]:
        app = _app(settings.model_copy(update={"request_timeout_seconds": 0.2}), echo=echo, late=late)
        async with _running(app) as client:
            return [await client.post(path, content=slow_body()) for path in ("/echo", "/late")]

    received, late_answer = asyncio.run(run())
    assert (received.status_code, received.json()) == (200, 4)
    assert (late_answer.status_code, late_answer.json()["error"]["code"]) == (504, "timeout")


async def _sent_by(body: AsyncIterator[bytes], send_seconds: float = 0, seconds: float = 0.2) -> list[Message]:
    """What arrives of a streamed response with a time limit; the client takes `send_seconds` for each part."""
    sent: list[Message] = []

    async def receive() -> Message:
        if not asked:
            asked.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await asyncio.sleep(send_seconds)
        sent.append(message)

    asked: list[bool] = []
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with suppress(TimeoutError):
        await limits.TimeLimit(StreamingResponse(body), seconds)(scope, receive, send)
    return sent


async def _parts(count: int, pause: float) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x"
        await asyncio.sleep(pause)


@pytest.mark.parametrize(("pause", "send_seconds"), [(0.08, 0), (0, 0.08)])
def test_a_response_that_goes_on_may_last_longer_than_the_limit(pause: float, send_seconds: float) -> None:
    start = time.perf_counter()
    sent = asyncio.run(_sent_by(_parts(6, pause), send_seconds))
    assert time.perf_counter() - start > 0.4
    assert b"".join(message.get("body", b"") for message in sent) == b"xxxxxx"
    assert sent[-1]["more_body"] is False


@pytest.mark.parametrize(("pause", "send_seconds"), [(30, 0), (0, 30)])
def test_a_response_that_stalls_is_ended_and_looks_incomplete(pause: float, send_seconds: float) -> None:
    start = time.perf_counter()
    sent = asyncio.run(_sent_by(_parts(3, pause), send_seconds))
    assert time.perf_counter() - start < 5
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"][: len(sent)]
    assert all(message.get("more_body", True) for message in sent)
    assert len(sent) == (0 if send_seconds else 2)


# slow bodies


@pytest.mark.parametrize("path", ["/search", "/", "/compare"])
def test_a_client_that_stops_sending_is_answered_408(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(bodies, "STALL_SECONDS", 0.05)
    for messages in ([], [HEAD], [HEAD, *_chunks(1, 10, last=False)]):
        sent, _ = asyncio.run(_asgi(_app(settings), messages, path, {"accept-language": "es"}))
        body = b"".join(message["body"] for message in sent[1:]).decode()
        assert sent[0]["status"] == 408
        assert "upload_too_slow" in body
        assert "demasiado despacio" in body


def test_a_client_that_stops_sending_a_body_that_is_too_large_is_answered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "STALL_SECONDS", 0.05)
    for path in ("/detect", "/health"):
        sent, _ = asyncio.run(_asgi(_app(settings), _chunks(1, 10, last=False), path, {"content-length": "999999999"}))
        assert _answer(sent)[0] == 408
    monkeypatch.undo()
    monkeypatch.setattr(limits, "_DRAIN_SECONDS", 0.05)
    sent, _ = asyncio.run(_asgi(_app(settings), _chunks(1, 10, last=False), headers={"content-length": "999999999"}))
    assert _answer(sent)[0] == 413


def test_a_body_that_does_not_fit_beside_the_others_is_503(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BYTES_TOGETHER", 1000)
    monkeypatch.setattr(limits, "_MIN_FILES", 0)
    sent, _ = asyncio.run(_asgi(_app(settings), [HEAD, *_chunks(2, 1000)]))
    status, body, headers = _answer(sent)
    assert (status, body["error"]["code"], headers["retry-after"]) == (503, "overloaded", "1")


# the body limit


def _over(body: dict[str, Any]) -> None:
    assert body["error"]["code"] == "image_too_large"
    assert body["error"]["message"] == "the upload is larger than 0.1 MB"
    assert body["error"]["details"] == {"max_megabytes": 0.1}
    assert body["request_id"] not in ("", "-")


def test_a_body_that_says_it_is_too_large_is_413_before_it_is_read(settings: Settings) -> None:
    sent, taken = asyncio.run(
        _asgi(_app(settings), _chunks(3, 1000), headers={"content-length": str(LIMIT + 1), "expect": "100-continue"})
    )
    status, body, _ = _answer(sent)
    assert (status, taken) == (413, 0)
    _over(body)


def test_a_client_that_is_sending_already_is_heard_out_within_reason(settings: Settings) -> None:
    async def run(messages: list[Message]) -> tuple[int, int]:
        sent, taken = await _asgi(_app(settings), messages, headers={"content-length": "999999999999"})
        return _answer(sent)[0], taken

    assert asyncio.run(run(_chunks(5, 1000))) == (413, 5)
    status, taken = asyncio.run(run(_chunks(1000, 10_000, last=False)))
    assert status == 413
    assert taken == -(-LIMIT * 8 // 10_000), "after eight times the limit it is enough"


def test_a_client_that_leaves_while_it_is_heard_out_is_no_error(settings: Settings) -> None:
    messages = [*_chunks(2, 1000, last=False), {"type": "http.disconnect"}]
    sent, taken = asyncio.run(_asgi(_app(settings), messages, headers={"content-length": str(LIMIT + 1)}))
    assert (_answer(sent)[0], taken) == (413, 3)


@pytest.mark.parametrize("headers", [{}, {"content-length": "10"}, {"content-length": "-5"}, {"content-length": "²"}])
def test_a_body_that_does_not_say_it_is_too_large_is_stopped_while_it_streams(
    settings: Settings, headers: dict[str, str]
) -> None:
    messages = [HEAD, *_chunks(40, 10_000)]
    sent, taken = asyncio.run(_asgi(_app(settings), messages, headers=headers))
    status, body, _ = _answer(sent)
    assert status == 413
    _over(body)
    assert taken == 41, "the rest was read and thrown away"


def test_a_chunked_upload_that_is_too_large_is_413(client: TestClient) -> None:
    def body() -> Iterator[bytes]:
        yield HEAD["body"]
        for _ in range(30):
            yield b"x" * 10_000

    answer = client.post("/detect", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 413
    _over(answer.json())


def test_two_files_may_be_twice_as_large_together(client: TestClient) -> None:
    large = encoded() + b"\0" * (MAX_UPLOAD - len(encoded()))
    answer = client.post("/compare", files={"image_a": large, "image_b": large})
    assert answer.status_code == 200
    assert client.post("/detect", files={"image": large}).status_code == 200
    assert client.post("/detect", files={"image": large + b"\0"}).status_code == 413


def test_ten_images_of_a_search_may_be_ten_times_as_large_together_and_each_as_large_as_one(client: TestClient) -> None:
    large = encoded() + b"\0" * (MAX_UPLOAD - len(encoded()))
    assert client.post("/search", files=[("image", large)] * 10).status_code == 200
    assert client.post("/search", files=[("image", encoded()), ("image", large + b"\0")]).status_code == 413


def test_draining_ends_with_the_body_with_the_client_or_at_the_limit() -> None:
    async def run(messages: list[Message]) -> int:
        left = list(messages)

        async def receive() -> Message:
            return left.pop(0)

        await _drain(receive, 50)
        return len(messages) - len(left)

    assert asyncio.run(run(_chunks(3, 10))) == 3
    assert asyncio.run(run([{"type": "http.disconnect"}, *_chunks(3, 10)])) == 1
    assert asyncio.run(run(_chunks(20, 10))) == 5


# how many at once


def test_more_requests_at_once_than_allowed_are_503_and_health_is_answered(settings: Settings) -> None:
    async def run() -> tuple[list[httpx.Response], httpx.Response, httpx.Response]:
        release = asyncio.Event()
        come: list[Request] = []

        async def wait(request: Request) -> str:
            come.append(request)
            await release.wait()
            return "done"

        app = _app(settings.model_copy(update={"uvicorn_limit_concurrency": 3}), wait=wait)
        async with _running(app) as client:
            waiting = [asyncio.create_task(client.get("/wait")) for _ in range(3)]
            while len(come) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            refused, health = await client.get("/wait"), await client.get("/health")
            release.set()
            answers = await asyncio.gather(*waiting)
            assert (await client.get("/wait")).status_code == 200, "afterwards there is room again"
            return answers, refused, health

    answers, refused, health = asyncio.run(run())
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert health.status_code == 200
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "overloaded"
    assert refused.json()["request_id"] == refused.headers["x-request-id"]
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["x-frame-options" if "x-frame-options" in refused.headers else "referrer-policy"]


def test_requests_that_wait_for_their_body_keep_nobody_out(settings: Settings) -> None:
    async def echo(request: Request) -> int:
        return len(await request.body())

    async def run() -> None:
        release = asyncio.Event()
        begun = 0

        async def half_open() -> AsyncIterator[bytes]:
            nonlocal begun
            yield b"x"
            begun += 1
            await release.wait()
            yield b"x"

        async with _running(_app(settings.model_copy(update={"uvicorn_limit_concurrency": 2}), echo=echo)) as client:
            waiting = [asyncio.create_task(client.post("/echo", content=half_open())) for _ in range(20)]
            while begun < 20:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            for path in ("/", "/metrics", "/status"):
                assert (await client.get(path)).status_code == 200
            assert (await client.post("/echo", content=b"whole")).json() == 5
            release.set()
            answers = await asyncio.gather(*waiting)
            assert {answer.status_code for answer in answers} <= {200, 503}
            assert any(answer.is_success for answer in answers)
            assert [(await client.post("/echo", content=b"whole")).json() for _ in range(3)] == [5, 5, 5]

    asyncio.run(run())


def test_a_received_request_counts_again(settings: Settings) -> None:
    async def run() -> None:
        release = asyncio.Event()
        received = 0

        async def wait(request: Request) -> None:
            nonlocal received
            await request.body()
            received += 1
            await release.wait()

        async with _running(_app(settings.model_copy(update={"uvicorn_limit_concurrency": 2}), wait=wait)) as client:
            waiting = [asyncio.create_task(client.post("/wait", content=b"x")) for _ in range(2)]
            while received < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            assert (await client.get("/metrics")).status_code == 503
            release.set()
            assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]

    asyncio.run(run())


def test_requests_that_fail_give_their_place_back(settings: Settings) -> None:
    async def boom(request: Request) -> None:
        raise RuntimeError("?")

    settings = settings.model_copy(update={"uvicorn_limit_concurrency": 1})
    with TestClient(_app(settings, boom=boom)) as client:
        assert [client.get("/boom").status_code for _ in range(3)] == [500] * 3
        assert [client.get("/nowhere").status_code for _ in range(3)] == [404] * 3


# other origins


def test_no_other_origin_is_let_in_by_default(client: TestClient) -> None:
    answer = client.get("/health", headers={"Origin": "https://a.example"})
    assert "access-control-allow-origin" not in answer.headers
    preflight = client.options(
        "/search", headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 405


def test_only_the_configured_origins_are_let_in(settings: Settings) -> None:
    settings = settings.model_copy(update={"cors_origins": ("https://a.example",)})
    with TestClient(_app(settings)) as client:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-Key"}
        allowed = client.options("/search", headers={"Origin": "https://a.example"} | asked)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert "x-api-key" in allowed.headers["access-control-allow-headers"].lower()
        for origin in ("https://b.example", "https://a.example.evil", "http://a.example", "null"):
            refused = client.options("/search", headers={"Origin": origin} | asked)
            assert refused.status_code == 400
            assert "access-control-allow-origin" not in refused.headers
            assert "access-control-allow-origin" not in client.get("/health", headers={"Origin": origin}).headers
        answer = client.post("/search", headers={"Origin": "https://a.example"})
        assert answer.status_code == 400
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert "access-control-allow-credentials" not in answer.headers
        assert "Retry-After" in answer.headers["access-control-expose-headers"]


# log and metrics


def test_the_access_log_has_a_line_for_each_request_without_its_query(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger=logs.ACCESS):
        client.get("/health?key=very-secret")
        client.get("/nowhere%0Aforged?key=very-secret", headers={"X-API-Key": "very-secret"})
        client.post("/search?person=very-secret")
    lines = [record.getMessage() for record in caplog.records if record.name == logs.ACCESS]
    assert len(lines) == 3
    assert "very-secret" not in " ".join(lines)
    assert "\n" not in "".join(lines)
    assert lines[0].startswith("testclient GET '/health' 200 ")
    assert lines[0].endswith(" ms")
    assert "'/nowhere\\nforged' 404" in lines[1]
    assert "POST '/search' 400" in lines[2]


def test_routes_are_counted_by_their_template_and_what_matches_none_together(client: TestClient) -> None:
    for number in range(5):
        client.get(f"/thumbs/{number}")
        client.get(f"/nowhere/{number}")
        client.get(f"/static/{number}")
        client.request(f"INVENTED{number}", "/health")
    client.get("/static/style.css")
    client.get("/")
    client.put("/search")
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("oceano_requests_total")]
    seen = {line.split(" ")[0].removeprefix("oceano_requests_total"): float(line.split(" ")[1]) for line in lines}
    assert seen['{method="GET",route="/thumbs/{face_id}",status="404"}'] == 5
    assert seen['{method="other",route="/health",status="405"}'] == 5
    assert seen['{method="GET",route="/",status="200"}'] == 1
    assert seen['{method="PUT",route="/search",status="405"}'] == 1
    assert seen['{method="GET",route="/static",status="200"}'] == 1
    assert seen['{method="GET",route="/static",status="404"}'] == 5
    assert seen['{method="GET",route="unmatched",status="404"}'] == 5
    assert len(seen) <= 8, seen


# errors


def test_an_error_that_passes_says_when_to_try_again(client: TestClient) -> None:
    def retry_after(code: str, seconds: float | None) -> str | None:
        scope = {"type": "http", "app": client.app, "method": "GET", "path": "/x", "query_string": b"", "headers": []}
        return error_response(OceanoError(code, "?", retry_after=seconds), Request(scope)).headers.get("retry-after")

    assert retry_after("index_unavailable", None) == "5"
    assert retry_after("too_many_requests", None) == "5"
    assert retry_after("index_unavailable", 2.2) == "3"
    assert retry_after("index_unavailable", 0) == "1"
    assert retry_after("disk_full", 60) == "60"
    assert retry_after("invalid_image", None) is None


@pytest.mark.parametrize(
    ("headers", "query", "message"),
    [
        ({}, "", "there is nothing at this address"),
        ({"Accept-Language": "en-GB,es;q=0.5"}, "", "there is nothing at this address"),
        ({"Accept-Language": "es-MX,en;q=0.5"}, "", "No hay nada en esta dirección."),
        ({"Accept-Language": "de"}, "", "there is nothing at this address"),
        ({}, "?lang=es", "No hay nada en esta dirección."),
        ({"Cookie": "lang=es"}, "", "No hay nada en esta dirección."),
        ({"Cookie": "lang=es", "Accept-Language": "en"}, "?lang=en", "there is nothing at this address"),
        ({"Accept-Language": ";;;q=,,"}, "?lang=%ff", "there is nothing at this address"),
    ],
)
def test_an_error_is_told_in_the_reader_s_language(
    client: TestClient, headers: dict[str, str], query: str, message: str
) -> None:
    assert client.get(f"/nowhere{query}", headers=headers).json()["error"]["message"] == message


@pytest.mark.parametrize(
    "path", ["/nowhere", "/%2e%2e/etc/passwd", "/faces", "/searches/x", "/static", "/%ff", "/docs", "/redoc"]
)
def test_an_unknown_route_is_404_in_json(client: TestClient, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS"):
        answer = client.request(method, path)
        assert answer.status_code in (404, 405)
        assert answer.headers["content-type"] == "application/json"
        if method != "HEAD":
            assert answer.json()["error"]["code"] in ("not_found", "method_not_allowed")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/search"), ("POST", "/health"), ("OPTIONS", "/search"), ("PATCH", "/status")]
)
def test_a_method_that_a_route_does_not_take_is_405_and_says_which_it_takes(
    client: TestClient, method: str, path: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"
    assert method in answer.json()["error"]["message"]
    assert answer.headers["allow"]


@pytest.mark.parametrize("path", ["/compare", "/search", "/detect"])
def test_a_browser_that_opens_an_address_of_the_api_sees_a_page_with_a_link_back(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.headers["content-type"].startswith("text/html")
    assert "method_not_allowed" in answer.text
    assert 'href="/"' in answer.text


def test_an_error_before_the_page_is_reached_is_shown_as_the_page_shows_it(settings: Settings) -> None:
    with TestClient(_app(settings)) as client:
        answer = client.post(
            "/", content=b"x" * (10 * LIMIT + 1), headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        assert answer.status_code == 413
        assert answer.headers["content-type"].startswith("text/html")
        assert "Traceback" not in answer.text
        assert answer.headers["x-request-id"] in answer.text
        spanish = client.delete("/", headers={"Accept-Language": "es"})
        assert (spanish.status_code, spanish.headers["content-language"]) == (405, "es")
        assert spanish.headers["allow"]
