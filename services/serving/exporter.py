"""A replica's numbers, told to Ray every few seconds: its node's agent shows them to Prometheus."""

from __future__ import annotations

import time
from threading import Thread

from ray.util import metrics

from services.serving.metering import Meter, Reading

EXPORT_S = 5.0
"""Half of Ray's own interval."""


def start_export(meter: Meter) -> None:
    """Tell Ray from now on, until this process ends."""
    Thread(target=_export, args=(Exporter(), meter), name="metrics", daemon=True).start()


class Exporter:
    """What Ray has been told, by metric and labels.

    The parts of a histogram go as gauges: they end with the replica, and can be set as a whole.
    """

    def __init__(self) -> None:
        self._instruments: dict[str, metrics.Metric] = {}
        self._told: dict[tuple[str, ...], float] = {}

    def tell(self, reading: Reading) -> None:
        """Bring Ray up to this reading."""
        kind = metrics.Counter if reading.grows else metrics.Gauge
        if reading.name not in self._instruments:
            self._instruments[reading.name] = kind(
                reading.name, reading.help, tuple(reading.labels)
            )
        instrument = self._instruments[reading.name]
        if not reading.grows:
            instrument.set(reading.value, reading.labels)
            return
        key = (reading.name, *reading.labels.values())
        if more := reading.value - self._told.get(key, 0):
            instrument.inc(more, reading.labels)
            self._told[key] = reading.value


def _export(exporter: Exporter, meter: Meter) -> None:
    while True:
        for reading in meter.read():
            exporter.tell(reading)
        time.sleep(EXPORT_S)
