"""What Prometheus scrapes from the API: requests, their latency, the depth of the queue."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from shared.errors import Unavailable
from shared.queue.jobs import JobQueue

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Telemetry:
    """The metrics of one application (a process may hold several, e.g. in tests)."""

    def __init__(self, queue: JobQueue) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_QueueDepth(queue))
        self._requests = Counter(
            "elmyr_api_requests_total",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "elmyr_api_latency_seconds",
            "From the request's arrival to the first byte of the answer.",
            ["method", "route"],
            buckets=LATENCY_BUCKETS_S,
            registry=self._registry,
        )

    def count(self, method: str, route: str, status: int, latency_s: float) -> None:
        """Count one answer. `route` is a path template: few values, whatever clients send."""
        self._requests.labels(method, route, status).inc()
        self._latency.labels(method, route).observe(latency_s)

    def exposition(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self._registry)


class _QueueDepth(Collector):
    """Asks the queue at each scrape. While Redis is down the page lacks this metric."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    def describe(self) -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily("elmyr_queue_jobs", "Jobs by state.", labels=["state"])]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        (depth,) = self.describe()
        try:
            for state, number in self._queue.counts().items():
                depth.add_metric([state], number)
        except Unavailable:
            return
        yield depth
