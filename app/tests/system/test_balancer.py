"""docker/nginx.conf, in a real nginx before two services that are not well."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request, Response

from app.core.errors import STATUS
from tests.support.balancing import balancer
from tests.support.fake_server import serving
from tests.support.running import free_port


class Replica:
    """Answers with its name and how many bytes came, or with `status`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = 200
        self.asked = 0
        self.app = FastAPI()

        @self.app.api_route("/{path:path}", methods=["GET", "POST"])
        async def answer(request: Request) -> Response:
            self.asked += 1
            body = await request.body()
            headers = {"Replica": self.name, "Bytes": str(len(body)), "Asked-For": request.headers.get("host", "")}
            return Response("said", self.status, headers)


def test_requests_are_shared_out_and_one_that_is_not_well_is_gone_around(tmp_path: Path) -> None:
    first, second = Replica("first"), Replica("second")
    with serving(first.app) as one, serving(second.app) as other, balancer(tmp_path, [one, other]) as client:
        answered = [client.get("/health").headers["Replica"] for _ in range(10)]
        assert {*answered} == {"first", "second"}

        first.status = 503
        asked = first.asked
        for _ in range(4):
            answer = client.post("/search", content=b"x" * 2_000_000)
            assert (answer.status_code, answer.headers["Replica"]) == (200, "second")
            assert answer.headers["Bytes"] == "2000000"
        assert first.asked > asked


def test_a_service_that_is_gone_is_gone_around_and_clients_errors_are_passed_on(tmp_path: Path) -> None:
    left = Replica("left")
    with serving(left.app) as port, balancer(tmp_path, [free_port(), port]) as client:
        for _ in range(6):
            assert client.post("/search", content=b"picture").headers["Replica"] == "left"
        asked = left.asked
        left.status = 422
        assert client.post("/search").status_code == 422
        assert left.asked == asked + 1
        left.status = 503
        assert client.get("/ready").status_code in (502, 503)
        left.status = 200
        answer = client.get("/health", headers={"Host": "photos.example.org"})
        assert (answer.status_code, answer.headers["Asked-For"]) == (200, "photos.example.org")


def test_without_any_service_the_answer_has_the_shape_of_an_error(tmp_path: Path) -> None:
    with balancer(tmp_path, [free_port(), free_port()]) as client:
        answer = client.get("/health")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"].keys() == {"code", "message", "details"}
        assert answer.json()["error"]["code"] in STATUS
        assert answer.json()["request_id"]
