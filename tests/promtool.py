"""Prometheus' own tools, of Debian's package `prometheus`. Tests that need them are skipped
without."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shared import metrics
from shared.metrics import RAY_PREFIX, Metric

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")),
    reason="NOT TESTED: no prometheus and promtool (Debian: apt-get install prometheus)",
)


def promtool(*words: str | Path) -> str:
    """What promtool prints. Raises AssertionError with it when promtool is not content."""
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def exported() -> dict[str, Metric]:
    """Every metric, by the name that Prometheus sees."""
    own = {metric.name: metric for metric in (*metrics.FROM_API, *metrics.FROM_DISPATCHER)}
    rays = (*metrics.FROM_ATTEMPTS, *metrics.FROM_SERVING)
    return own | {RAY_PREFIX + metric.name: metric for metric in rays}


def series() -> dict[str, Metric]:
    """Every series that these metrics have, by name."""
    parts = {"histogram": ("_bucket", "_count", "_sum")}
    return {
        name + part: metric
        for name, metric in exported().items()
        for part in parts.get(metric.kind, ("",))
    }


def named(expression: str) -> set[str]:
    """The names of ours that an expression mentions."""
    return set(re.findall(r"\b(?:ray_)?elmyr[_:][\w:]+", expression))
