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
from tests.problems import problem

PATIENCE_S = 60.0
"""An application starts within a second, unless the machine is busy."""


def get(url: str, *, headers: dict[str, str] | None = None) -> httpx2.Response:
    """What somebody without a key is answered."""
    return httpx2.get(url, headers=headers, timeout=PATIENCE_S)


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    with live_api(settings.model_copy(update={"max_json_bytes": 5000})) as live:
        yield live


def test_every_route_under_v1_needs_a_key(live: Live) -> None:
    document = get(f"{live.url}/openapi.json").json()
    protected = [
        (method, path)
        for path, operations in document["paths"].items()
        for method in operations
        if path.startswith("/v1/")
    ]
    assert protected
    for method, path in [*protected, ("get", "/v1/not-a-route")]:
        for headers in ({}, {"Authorization": "Bearer elm_wrong"}):
            answer = httpx2.request(method, live.url + path, headers=headers, timeout=PATIENCE_S)
            problem(answer, 401, "UNAUTHORIZED")
            assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_health_and_description_need_none(live: Live, path: str) -> None:
    assert get(live.url + path).status_code == 200


def test_unknown_routes_and_methods_are_problems(http: httpx2.Client) -> None:
    problem(http.get("/v1/nothing"), 404, "NOT_FOUND")
    problem(http.get("/nothing"), 404, "NOT_FOUND")
    answer = http.delete("/v1/jobs")
    problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["Allow"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ([b'"' + b"x" * 6000 + b'"'], 413, "TOO_LARGE"),
        ([b'"', b"x" * 3000, b"x" * 3000], 413, "TOO_LARGE"),
        ([b"[" * 2000], 422, "INVALID_INPUT"),
        ([b'{"spec": ' + b"[" * 40 + b"]" * 40 + b"}"], 422, "INVALID_INPUT"),
        ([b'{"spec": {"x": NaN}}'], 422, "INVALID_INPUT"),
        ([b""], 422, "INVALID_INPUT"),
    ],
)
def test_a_body_has_limits(http: httpx2.Client, body: list[bytes], status: int, code: str) -> None:
    headers = {"Content-Type": "application/json"}
    whole = b"".join(body) if len(body) == 1 else iter(body)
    problem(http.post("/v1/jobs", content=whole, headers=headers), status, code)


def test_a_body_is_json_by_its_type(http: httpx2.Client) -> None:
    answer = http.post("/v1/jobs", content=b"{}", headers={"Content-Type": "text/plain"})
    problem(answer, 422, "INVALID_INPUT")


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
    page = get(f"{live.url}/metrics").text
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
            assert get(f"{live.url}/readyz").status_code == 200
            assert 'elmyr_store_up{store="s3"} 1.0' in get(f"{live.url}/metrics").text
            s3.stop()
            assert 'elmyr_store_up{store="s3"} 0.0' in get(f"{live.url}/metrics").text
            ready = get(f"{live.url}/readyz")
            problem(ready, 503, "UNAVAILABLE")
            assert "object store" in ready.json()["detail"]
            redis.stop()
            ready = get(f"{live.url}/readyz")
            assert "Redis" in ready.json()["detail"]
            jobs = get(f"{live.url}/v1/jobs", headers=headers)
            problem(jobs, 503, "UNAVAILABLE")
            assert int(jobs.headers["Retry-After"]) >= 1
            assert get(f"{live.url}/healthz").status_code == 200
            page = get(f"{live.url}/metrics").text
            assert 'elmyr_store_up{store="redis"} 0.0' in page
            assert "elmyr_queue_jobs{" not in page


def test_a_defect_is_answered_without_its_words(settings: Settings) -> None:
    app = create_app(settings)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("the password is 1234")

    with listening(app) as url:
        answer = get(f"{url}/broken")
        problem(answer, 500, "INTERNAL")
        assert "1234" not in answer.text
        assert json.loads(answer.text)["title"] == "Something went wrong in Elmyr"
