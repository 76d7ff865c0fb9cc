"""What Prometheus scrapes from the API: requests, their latency, the queue, the stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from shared import metrics
from shared.clock import now
from shared.errors import ElmyrError, Unavailable
from shared.exposition import counter, family, histogram
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import JobKind, Outcome
from shared.storage.objects import ObjectStore

FROM_THE_QUEUE = (
    metrics.QUEUE_JOBS,
    metrics.QUEUE_OLDEST_AGE,
    metrics.QUEUE_ATTEMPTS,
    metrics.QUEUE_LEASE_EXPIRIES,
)

PATIENCE_S = 2.0
"""Two silent stores, and the scrape still ends within Prometheus's time-out of 10 s."""


class Telemetry:
    """The metrics of one application (a process may hold several, e.g. in tests)."""

    def __init__(self, queue: JobQueue, store: ObjectStore) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Stores(queue, store))
        self._requests = counter(metrics.API_REQUESTS, self._registry)
        self._latency = histogram(metrics.API_LATENCY, self._registry)

    def count(self, method: str, route: str, status: int, latency_s: float) -> None:
        """Count one answer. `route` is a path template: few values, whatever clients send."""
        self._requests.labels(method, route, status).inc()
        self._latency.labels(method, route).observe(latency_s)

    def exposition(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self._registry)


class _Stores(Collector):
    """Asks Redis and S3 at each scrape. While Redis is down the page lacks the queue's metrics."""

    def __init__(self, queue: JobQueue, store: ObjectStore) -> None:
        self._queue = queue
        self._checks = {"redis": _Check(queue.ping), "s3": _Check(store.check)}

    def describe(self) -> list[Family]:
        return [family(metric) for metric in (metrics.STORE_UP, *FROM_THE_QUEUE)]

    def collect(self) -> Iterator[Family]:
        up = family(metrics.STORE_UP)
        answers = {name: check.answers() for name, check in self._checks.items()}
        for name, answer in answers.items():
            up.add_metric([name], answer)
        yield up
        if not answers["redis"]:
            return
        try:
            yield from self._from_the_queue()
        except Unavailable:
            return

    def _from_the_queue(self) -> Iterable[Family]:
        jobs, oldest, attempts, expiries = map(family, FROM_THE_QUEUE)
        for state, number in self._queue.counts().items():
            jobs.add_metric([state], number)
        at = now()
        for state, submitted_at in self._queue.oldest().items():
            age_s = (at - submitted_at).total_seconds() if submitted_at else 0.0
            oldest.add_metric([state], max(0.0, age_s))
        tally = self._queue.tally()
        # Those of which there is none yet, too: increase() does not see a series' first value.
        for kind, outcome in product(JobKind, Outcome):
            attempts.add_metric([kind, outcome], tally.attempts.get((kind, outcome), 0))
        expiries.add_metric([], tally.lease_expiries)
        return jobs, oldest, attempts, expiries


class _Check:
    """Asks a store, one question at a time; a silent one must not hold up a scrape."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._thread = ThreadPoolExecutor(1, "check")
        self._asked: Future[object] | None = None

    def answers(self) -> bool:
        """Whether the store answers within PATIENCE_S."""
        if self._asked is None or self._asked.done():
            self._asked = self._thread.submit(self._ask)
        try:
            self._asked.result(PATIENCE_S)
        except (ElmyrError, TimeoutError):
            return False
        return True
