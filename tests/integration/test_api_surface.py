"""What holds for every route: keys, headers, problems, limits, health."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from services.api.app import create_app
from services.local.servers import start_redis, start_s3
from shared.settings import Settings
from tests.live import KEY, Live, listening, live_api


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    with live_api(settings.model_copy(update={"max_json_bytes": 5000})) as live:
        yield live


@pytest.fixture
def http(live: Live) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=live.url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


def code(answer: httpx2.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    return answer.status_code, answer.json()["code"]


def test_every_route_under_v1_needs_a_key(live: Live) -> None:
    document = httpx2.get(f"{live.url}/openapi.json").json()
    protected = [
        (method, path)
        for path, operations in document["paths"].items()
        for method in operations
        if path.startswith("/v1/")
    ]
    assert protected
    for method, path in [*protected, ("get", "/v1/not-a-route")]:
        for headers in ({}, {"Authorization": "Bearer elm_wrong"}):
            answer = httpx2.request(method, live.url + path, headers=headers)
            assert code(answer) == (401, "UNAUTHORIZED"), (method, path)
            assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_health_and_description_need_none(live: Live, path: str) -> None:
    assert httpx2.get(live.url + path).status_code == 200


def test_unknown_routes_and_methods_are_problems(http: httpx2.Client) -> None:
    assert code(http.get("/v1/nothing")) == (404, "NOT_FOUND")
    assert code(http.get("/nothing")) == (404, "NOT_FOUND")
    answer = http.delete("/v1/jobs")
    assert code(answer) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["Allow"]


def test_a_body_has_limits(http: httpx2.Client) -> None:
    def post(body: bytes | Iterator[bytes]) -> tuple[int, str]:
        headers = {"Content-Type": "application/json"}
        return code(http.post("/v1/jobs", content=body, headers=headers))

    assert post(b'"' + b"x" * 6000 + b'"') == (413, "TOO_LARGE")
    assert post(iter([b'"', b"x" * 3000, b"x" * 3000])) == (413, "TOO_LARGE")
    assert post(b"[" * 2000) == (422, "INVALID_INPUT")
    assert post(b'{"spec": ' + b"[" * 40 + b"]" * 40 + b"}") == (422, "INVALID_INPUT")
    assert post(b'{"spec": {"x": NaN}}') == (422, "INVALID_INPUT")
    assert post(b"") == (422, "INVALID_INPUT")
    assert code(http.post("/v1/jobs", content=b"{}", headers={"Content-Type": "text/plain"})) == (
        422,
        "INVALID_INPUT",
    )


def test_headers_keep_browsers_in_bounds(http: httpx2.Client) -> None:
    answer = http.get("/v1/jobs", headers={"X-Request-Id": "abc-1"})
    assert answer.headers["X-Request-Id"] == "abc-1"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert http.get("/v1/jobs", headers={"X-Request-Id": "a b"}).headers["X-Request-Id"] != "a b"


def test_requests_and_the_queue_are_counted(live: Live, http: httpx2.Client) -> None:
    http.get("/v1/jobs/job-none")
    http.get("/v1/any/thing")
    page = httpx2.get(f"{live.url}/metrics").text
    assert (
        'elmyr_api_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"} 1.0' in page
    )
    assert 'route="none",status="404"' in page
    assert 'elmyr_api_latency_seconds_count{method="GET",route="/v1/jobs/{job_id}"} 1.0' in page
    assert 'elmyr_queue_jobs{state="queued"} 0.0' in page


def test_without_redis_or_s3_it_lives_but_is_not_ready(tmp_path: Path) -> None:
    with start_redis(tmp_path / "redis") as redis, start_s3(tmp_path / "s3") as s3:
        settings = Settings.model_validate({"redis_url": redis.url, **s3.settings()})
        with live_api(settings) as live:
            headers = {"Authorization": f"Bearer {KEY}"}
            s3.stop()
            ready = httpx2.get(f"{live.url}/readyz")
            assert code(ready) == (503, "UNAVAILABLE")
            assert "object store" in ready.json()["detail"]
            redis.stop()
            ready = httpx2.get(f"{live.url}/readyz")
            assert "Redis" in ready.json()["detail"]
            jobs = httpx2.get(f"{live.url}/v1/jobs", headers=headers)
            assert code(jobs) == (503, "UNAVAILABLE")
            assert int(jobs.headers["Retry-After"]) >= 1
            assert httpx2.get(f"{live.url}/healthz").status_code == 200
            assert "elmyr_queue_jobs{" not in httpx2.get(f"{live.url}/metrics").text


def test_a_defect_is_answered_without_its_words(settings: Settings) -> None:
    app = create_app(settings)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("the password is 1234")

    with listening(app) as url:
        answer = httpx2.get(f"{url}/broken")
        assert code(answer) == (500, "INTERNAL")
        assert "1234" not in answer.text
        assert json.loads(answer.text)["title"] == "Something went wrong in Elmyr"
