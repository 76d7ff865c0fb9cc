"""What the attempt of a training shows Prometheus, by the exporter of its Ray node.

It hears the events that the attempt reports. A thread of its own speaks to Ray: the process of an
attempt with one worker is not connected yet, and becomes so (0.3 s, 26 MB) beside the training.
An attempt that Ray does not let in is not measured; its work goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Thread
from typing import Any

import structlog

from shared import metrics
from shared.metrics import Metric
from shared.schemas.events import EventType

Values = dict[Metric, float]

log = structlog.get_logger()


class TrainingMetrics:
    """The gauges of one attempt. Call it with each event, from any thread; it returns at once."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._values: SimpleQueue[Values] = SimpleQueue()
        self._thread: Thread | None = None
        self._num_collapses = 0

    def __call__(self, type: EventType, data: Mapping[str, Any]) -> None:
        """Hear an event; the first that is told connects to Ray."""
        if told := TOLD.get(type):
            if self._thread is None:
                self._thread = Thread(target=self._export, name="metrics", daemon=True)
                self._thread.start()
                self._values.put(_begun())
            self._values.put(told(self, data))

    def _metric(self, data: Mapping[str, Any]) -> Values:
        return {
            metrics.TRAINING_IMAGES_PER_SECOND: data["img_per_s"],
            metrics.TRAINING_KIMG: data["kimg"],
            metrics.TRAINING_PROGRESS: min(1.0, data["kimg"] / data["of"]),
        }

    def _checkpoint(self, data: Mapping[str, Any]) -> Values:
        return {
            metrics.TRAINING_CHECKPOINT_SECONDS: data["seconds"],
            metrics.TRAINING_CHECKPOINT_BYTES: data["bytes"],
            metrics.TRAINING_CHECKPOINT_TIMESTAMP: time.time(),
        }

    def _collapse(self, data: Mapping[str, Any]) -> Values:
        del data
        self._num_collapses += 1
        return {metrics.TRAINING_COLLAPSES: self._num_collapses}

    def _export(self) -> None:
        try:
            import ray
            from ray.util.metrics import Gauge

            if not ray.is_initialized():
                ray.init(address="auto", log_to_driver=False, configure_logging=False)
        except Exception as error:  # noqa: BLE001 - of whatever kind: the training goes on
            log.warning("this attempt has no metrics: Ray does not let it in", error=str(error))
            return
        gauges = {metric: Gauge(metric.name, metric.help, metric.labels) for metric in GAUGES}
        while True:
            for metric, value in self._values.get().items():
                gauges[metric].set(value, {"job_id": self._job_id})


TOLD: dict[EventType, Callable[[TrainingMetrics, Mapping[str, Any]], Values]] = {
    EventType.METRIC: TrainingMetrics._metric,
    EventType.CHECKPOINT: TrainingMetrics._checkpoint,
    EventType.COLLAPSE: TrainingMetrics._collapse,
}
GAUGES = metrics.FROM_ATTEMPTS


def _begun() -> Values:
    return {metrics.TRAINING_CHECKPOINT_TIMESTAMP: time.time(), metrics.TRAINING_COLLAPSES: 0}
