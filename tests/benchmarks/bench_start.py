"""From submit to the first training step, against a bare Ray job of a TorchTrainer.

    .venv/bin/python -m tests.benchmarks.bench_start

On one embedded stack, in turns: a train job submitted to Elmyr with two workers and with one, and a
bare Ray job of the same networks with two workers submitted to the same Ray. Elmyr's first step is
its first `metric` event (reported after four steps), so its clock stops later than it might.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

import httpx2

from services.client import Client
from services.local.identity import load_identity
from services.local.stack import start_detached, stop
from services.local.state import StackState
from shared.schemas.events import EventType
from tests.benchmarks.table import print_table

IMAGES = Path("examples/fashion-mnist")
TURNS = 3


def elmyr_s(client: Client, workers: int) -> float:
    """Seconds from the submit to the first metric; the job is canceled then, and waited for."""
    spec = {
        "preset": "modern",
        "dataset": "bench",
        "model": "bench",
        "workers": workers,
        "config": {"report_every_s": 0.001},
    }
    started = time.time()
    job = client.submit("train", spec)
    first = next(e for e in client.events(job.id) if e.type is EventType.METRIC)
    client.cancel(job.id)
    for _ in client.events(job.id, after=first.id):
        pass
    return first.at.timestamp() - started


def bare_s(ray: httpx2.Client, python: str) -> float:
    """Seconds from the submit to the first step of a bare job with two workers."""
    name = f"bare-{uuid.uuid4().hex[:8]}"
    started = time.time()
    body = {
        "submission_id": name,
        "entrypoint": f"{python} -m tests.benchmarks.bare_trainer 2",
        "runtime_env": {"env_vars": {"PYTHONPATH": str(Path.cwd())}},
    }
    ray.post("/api/jobs/", json=body).raise_for_status()
    while ray.get(f"/api/jobs/{name}").json()["status"] in ("PENDING", "RUNNING"):
        time.sleep(0.5)
    logs = ray.get(f"/api/jobs/{name}/logs").json()["logs"]
    line = next(line for line in logs.splitlines() if line.startswith("first-step"))
    return float(line.split()[1]) - started


def compare(state: StackState) -> None:
    """Print the medians and their ratios."""

    token = load_identity(state.data_dir).ray_token
    headers = {"Authorization": f"Bearer {token}"}
    with (
        Client(data_dir=state.data_dir) as client,
        httpx2.Client(base_url=state.dashboard_url, headers=headers, timeout=30) as ray,
    ):
        client.wait(client.push_dataset("bench", IMAGES, size=32, fit="pad").id)
        taken: dict[str, list[float]] = {"bare 2": [], "elmyr 2": [], "elmyr 1": []}
        for _ in range(TURNS):
            taken["bare 2"].append(bare_s(ray, sys.executable))
            taken["elmyr 2"].append(elmyr_s(client, 2))
            taken["elmyr 1"].append(elmyr_s(client, 1))
    bare = statistics.median(taken["bare 2"])
    rows = [
        [name, f"{statistics.median(values):.1f}", f"{statistics.median(values) / bare:.2f}"]
        for name, values in taken.items()
    ]
    print_table(["workers", "first step s", "ratio to bare"], rows)


def main() -> None:
    """Start a stack of its own, compare, and stop it."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "stack"
        try:
            compare(start_detached(data_dir))
        finally:
            stop(data_dir)


if __name__ == "__main__":
    main()
