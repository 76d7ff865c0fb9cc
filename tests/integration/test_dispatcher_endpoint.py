"""The dispatcher's door: what it tells of its loop, its leases and its waits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import httpx2
import pytest

from services.dispatcher.endpoint import endpoint
from services.dispatcher.telemetry import Telemetry
from services.local.ports import LOOPBACK, number, reserve
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import JobKind
from shared.settings import Settings, inherited_environment
from tests.dispatching import NO_RAY, dispatching, eventually, submit


def test_it_is_healthy_while_its_loop_turns() -> None:
    telemetry = Telemetry(stalled_after_s=60)
    with endpoint(LOOPBACK, 0, telemetry) as port:
        url = f"http://{LOOPBACK}:{port}"
        assert httpx2.get(f"{url}/healthz").status_code == 503  # not begun
        telemetry.turned()
        assert httpx2.get(f"{url}/healthz").text == "ok\n"
        assert httpx2.get(f"{url}/else").status_code == 404
        assert httpx2.post(f"{url}/healthz").status_code == 501
        assert "elmyr_dispatcher_turn_timestamp_seconds" in httpx2.get(f"{url}/metrics").text
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{url}/healthz")


def test_it_is_stalled_when_its_loop_has_not_turned_for_so_long() -> None:
    telemetry = Telemetry(stalled_after_s=0)
    telemetry.turned()
    with endpoint(LOOPBACK, 0, telemetry) as port:
        answer = httpx2.get(f"http://{LOOPBACK}:{port}/healthz")
        assert (answer.status_code, answer.text) == (503, "stalled\n")


@pytest.mark.usefixtures("object_store")
def test_it_counts_what_waits_and_what_it_holds(settings: Settings, job_queue: JobQueue) -> None:
    without_ray = settings.model_copy(update={"ray_dashboard_url": NO_RAY})
    name = settings.queue_name
    submit(job_queue, f"job-{name}-a")  # waits for Ray
    submit(job_queue, f"job-{name}-b", JobKind.SAMPLE, model="none", n=1, seed=0)
    with dispatching(without_ray) as dispatcher:
        numbers: dict[str, float] = {}

        def page() -> dict[str, float]:
            text = dispatcher.telemetry.exposition().decode()
            found = re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE)
            numbers.update({series: float(value) for series, value in found})
            return numbers

        eventually(lambda: page().get('elmyr_queue_wait_seconds_count{kind="sample"}') == 1)
        eventually(lambda: page()["elmyr_dispatcher_ready_jobs"] == 1)
    assert numbers["elmyr_dispatcher_ray_up"] == 0
    assert numbers["elmyr_dispatcher_ready_oldest_age_seconds"] > 0
    assert not any(series.startswith("elmyr_device_seconds_total") for series in numbers)


@pytest.mark.usefixtures("object_store")
def test_its_process_answers_where_the_settings_say(settings: Settings) -> None:
    with reserve() as reserved:
        port = number(reserved)
    environment = {
        "ELMYR_REDIS_URL": settings.redis_url.get_secret_value(),
        "ELMYR_QUEUE_NAME": settings.queue_name,
        "ELMYR_S3_ENDPOINT": settings.s3_endpoint,
        "ELMYR_S3_ACCESS_KEY": settings.s3_access_key.get_secret_value(),
        "ELMYR_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
        "ELMYR_S3_BUCKET": settings.s3_bucket,
        "ELMYR_RAY_DASHBOARD_URL": NO_RAY,
        "ELMYR_METRICS_PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "services.dispatcher"], env=inherited_environment(environment)
    )
    try:

        def healthy() -> bool:
            try:
                return httpx2.get(f"http://{LOOPBACK}:{port}/healthz").is_success
            except httpx2.TransportError:
                return False

        eventually(healthy)
    finally:
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
