"""Metrics of a process that Prometheus scrapes itself, from the words of shared/metrics.py.

Ray's processes do not use this: their node's agent exports for them.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from shared.metrics import Metric

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    """A counter of this process."""
    assert metric.kind == "counter"
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """A gauge of this process."""
    assert metric.kind == "gauge"
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    """A histogram of this process."""
    assert metric.kind == "histogram"
    return Histogram(
        metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
    )


def family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    """An empty family, for values that are looked up at each scrape."""
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric.name, metric.help, labels=metric.labels)
