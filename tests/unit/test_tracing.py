"""Traces are off by default, and then nothing of them is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

SENDERS = ("opentelemetry.sdk.trace", "opentelemetry.exporter")  # redis imports the SDK itself


@pytest.mark.parametrize("process", ["api", "dispatcher"])
def test_a_process_without_an_endpoint_imports_nothing_of_it(process: str) -> None:
    code = f"""
import sys
from shared import tracing
from shared.settings import Settings
tracing.configure("{process}", Settings())
with tracing.span("a", parent=None, job_id="b"):
    assert tracing.traceparent() is None
import services.{process}.__main__
tracing.close()
print([name for name in {SENDERS} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
