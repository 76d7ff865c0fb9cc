"""Spans of one process, sent to a real collector."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from shared import tracing
from shared.settings import Settings
from tests.live import KEY, live_api
from tests.watching import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Where this process's spans go; they are all there when traces are closed."""
    with collecting() as collector:
        tracing.configure("test", Settings(otlp_endpoint=collector.url))
        try:
            yield collector
        finally:
            tracing.close()


def test_spans_know_their_parent(collector: Collector) -> None:
    with tracing.span("request"):
        outer = tracing.traceparent()
    with tracing.span("attempt", parent=outer, number=1), tracing.span("publish"):
        pass
    assert tracing.traceparent() is None
    tracing.close()
    spans = {span.name: span for span in collector.spans}
    request, attempt, publish = spans["request"], spans["attempt"], spans["publish"]
    assert (publish.parent_id, attempt.parent_id) == (attempt.span_id, request.span_id)
    assert len({span.trace_id for span in collector.spans}) == 1
    assert attempt.attributes == {"elmyr.number": 1}
    assert request.service == "elmyr-test"


def test_a_request_and_the_job_that_it_makes_are_one_trace(
    collector: Collector, settings: Settings
) -> None:
    with live_api(settings) as live:
        live.add_dataset("garments")
        spec = {"preset": "lecture", "dataset": "garments", "model": "tailor"}
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx2.Client(base_url=live.url, headers=headers) as http:
            http.get("/healthz")
            job_id = http.post("/v1/jobs", json={"kind": "train", "spec": spec}).json()["id"]
        traceparent = live.queue.get(job_id).traceparent
    assert traceparent
    tracing.close()
    (request,) = collector.spans
    assert request.name == "POST /v1/jobs"
    assert traceparent.startswith(f"00-{request.trace_id}-{request.span_id}-")
    assert not any("elm_" in str(value) for value in request.attributes.values())
