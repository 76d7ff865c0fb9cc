"""The API under 200 submits a second for 20 s: latency and errors.

    .venv/bin/python -m tests.benchmarks.bench_api [SUBMITS_PER_S]

Redis (fsync always), S3, the API as a process of its own and this load generator share the machine.
The load is open: a submit is due at its time whether or not those before it were answered, and its
latency counts from then. Each is a training on a dataset that is looked up, with an Idempotency-Key
of its own. Ends with 1 when the 99th percentile exceeds 100 ms or a submit is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx2
import psutil

from services.local.servers import start_redis, start_s3
from shared.settings import Settings, inherited_environment
from shared.storage.objects import ObjectStore
from tests.benchmarks.table import print_table
from tests.live import KEY, add_dataset

SECONDS, WARMUP_S = 20, 3
TARGET_P99_MS = 100
CONNECTIONS = 64
SPEC = {"dataset": "garments", "model": "tailor", "preset": "modern"}
BODY = json.dumps({"kind": "train", "spec": SPEC}).encode()


class Submitter:
    """One connection of HTTP/1.1, as lean as can be: the generator must not be the bottleneck."""

    def __init__(self, port: int, statuses: Counter[int]) -> None:
        self._port = port
        self._statuses = statuses

    async def open(self) -> Submitter:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def submit(self, key: str) -> None:
        self._writer.write(
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + f"Authorization: Bearer {KEY}\r\nIdempotency-Key: {key}\r\n".encode()
            + f"Content-Length: {len(BODY)}\r\n\r\n".encode()
            + BODY
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(length)
        self._statuses[int(head.split(b" ", 2)[1])] += 1


async def load(port: int, rate: int, seconds: float, name: str) -> tuple[list[float], Counter[int]]:
    """Latencies in ms of `rate * seconds` submits, and how often each status was answered."""
    statuses: Counter[int] = Counter()
    free: asyncio.Queue[Submitter] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await Submitter(port, statuses).open())
    latencies: list[float] = []
    began = time.perf_counter() + 0.1

    async def one(i: int) -> None:
        due = began + i / rate
        await asyncio.sleep(due - time.perf_counter())
        submitter = await free.get()
        await submitter.submit(f"{name}-{i}")
        free.put_nowait(submitter)
        latencies.append((time.perf_counter() - due) * 1000)

    await asyncio.gather(*(one(i) for i in range(round(rate * seconds))))
    return latencies, statuses


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_time_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Start everything, load it, print the table."""
    rate = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with (
        tempfile.TemporaryDirectory() as folder,
        start_redis(Path(folder, "redis")) as redis,
        start_s3(Path(folder, "s3")) as s3,
    ):
        port = free_port()
        environment = inherited_environment(
            {
                "ELMYR_REDIS_URL": redis.url,
                "ELMYR_S3_ENDPOINT": s3.endpoint,
                "ELMYR_S3_ACCESS_KEY": s3.access_key,
                "ELMYR_S3_SECRET_KEY": s3.secret_key,
                "ELMYR_API_PORT": str(port),
                "ELMYR_API_KEYS": f"bench:{hashlib.sha256(KEY.encode()).hexdigest()}",
                "ELMYR_MAX_QUEUED_JOBS": "1000000",
            }
        )
        store = ObjectStore.from_settings(Settings.model_validate(s3.settings()))
        store.ensure_bucket()
        add_dataset(store, "garments")
        api = subprocess.Popen([sys.executable, "-m", "services.api"], env=environment)
        try:
            with httpx2.Client(transport=httpx2.HTTPTransport(retries=10)) as client:
                client.get(f"http://127.0.0.1:{port}/readyz").raise_for_status()
            asyncio.run(load(port, rate, WARMUP_S, "warmup"))
            cpu_s = -cpu_time_s(api.pid)
            latencies, statuses = asyncio.run(load(port, rate, SECONDS, "measured"))
            cpu_s += cpu_time_s(api.pid)
        finally:
            api.terminate()
            api.wait()
    cuts = statistics.quantiles(latencies, n=100)
    errors = statuses.total() - statuses[202]
    print_table(
        ["submits/s", "p50 ms", "p90 ms", "p99 ms", "max ms", "errors", "API's CPU ms each"],
        [
            [
                str(rate),
                *(f"{cuts[q - 1]:.1f}" for q in (50, 90, 99)),
                f"{max(latencies):.1f}",
                str(errors),
                f"{cpu_s / len(latencies) * 1000:.2f}",
            ]
        ],
    )
    if errors or cuts[98] > TARGET_P99_MS:
        sys.exit(1)


if __name__ == "__main__":
    main()
