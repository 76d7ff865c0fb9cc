"""What a replica counts of its requests, and what a training's events become."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.serving.metering import Buckets, Meter, Metered, Reading
from shared import metrics
from shared.schemas.events import EventType
from workers.jobs.metrics import TOLD, TrainingMetrics


def numbers(readings: Iterable[Reading], name: str, *labels: str) -> dict[tuple[str, ...], float]:
    return {tuple(r.labels[x] for x in labels): r.value for r in readings if r.name == name}


def test_buckets_hold_what_is_at_most_their_bound() -> None:
    buckets = Buckets((1, 2, 4))
    for value in (1, 2, 3, 5):
        buckets.observe(value)
    readings = list(buckets.read(metrics.SERVING_BATCH, {}))
    name = metrics.SERVING_BATCH.name
    assert numbers(readings, f"{name}_bucket", "le") == {
        ("1.0",): 1,
        ("2.0",): 2,
        ("4.0",): 3,
        ("+Inf",): 4,
    }
    assert numbers(readings, f"{name}_count") == {(): 4}
    assert numbers(readings, f"{name}_sum") == {(): 11}


def test_requests_are_counted_by_endpoint_and_status() -> None:
    async def image(request: Request) -> Response:
        if "fail" in request.query_params:
            raise ValueError
        return Response(b"")

    async def ask() -> None:
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            for path in ("/a/image", "/b/image", "/a/image?fail=1", "/whatever/the/user/likes"):
                await http.get(path)

    meter = Meter("interactive")
    app = Metered(Starlette(routes=[Route("/{model}/image", image)]), meter)
    asyncio.run(ask())
    readings = list(meter.read())
    requests = numbers(readings, metrics.SERVING_REQUESTS.name, "endpoint", "status")
    assert requests == {("image", "200"): 2, ("image", "500"): 1, ("none", "404"): 1}
    counted = numbers(readings, f"{metrics.SERVING_LATENCY.name}_count", "endpoint")
    assert counted == {("image",): 3, ("none",): 1}


def test_readings_are_those_of_the_table() -> None:
    meter = Meter("bulk")
    meter.answered("make_chunk", 200, 0.1)
    meter.drawn(64)
    meter.gauges = {metrics.SERVING_MODELS: lambda: 2, metrics.SERVING_MODEL_BYTES: lambda: 10}
    labels = {reading.name: set(reading.labels) - {"le"} for reading in meter.read()}
    for metric in metrics.FROM_SERVING:
        suffix = "_sum" if metric.kind == "histogram" else ""
        assert labels[metric.name + suffix] == set(metric.labels)


@pytest.mark.parametrize(
    ("event", "data", "values"),
    [
        (
            EventType.METRIC,
            {"img_per_s": 100.0, "kimg": 5.0, "of": 20.0, "step": 9, "loss_d": None},
            {"images_per_second": 100.0, "kimg": 5.0, "progress_ratio": 0.25},
        ),
        (EventType.COLLAPSE, {"alarms": ["x"]}, {"collapses": 1}),
    ],
)
def test_an_event_becomes_values(
    event: EventType, data: dict[str, object], values: dict[str, float]
) -> None:
    told = TOLD[event](TrainingMetrics("job-a"), data)
    assert {m.name.removeprefix("elmyr_training_"): v for m, v in told.items()} == values
