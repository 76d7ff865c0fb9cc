"""Submits a second: Elmyr's queue against rq and saq, on the same Redis with the same fsync.

    .venv/bin/python -m tests.benchmarks.bench_queue

Each submits a job with the same small payload from one connection, then from eight threads (or
tasks, where the library is asyncio). The systems take turns; medians over the turns are compared.
An Elmyr submit also is idempotent, writes its event, and keeps the indexes that lists use.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis
import rq
import saq
from pydantic import SecretStr

from services.local.servers import start_redis
from shared.ids import new_job_id
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import JobKind, JobSubmission
from shared.settings import Settings
from tests.benchmarks.table import print_table

N, TURNS = 400, 5
PAYLOAD = {"model": "garments", "n": 64, "seed": 7}
Submits = Callable[[int], None]
"""Submits N jobs from so many connections at once."""


def elmyr(url: str) -> Submits:
    settings = Settings(
        redis_url=SecretStr(url), queue_name=f"bench-{uuid.uuid4().hex[:8]}", max_queued_jobs=10**6
    )
    queue = JobQueue.from_settings(settings)
    submission = JobSubmission(kind=JobKind.SAMPLE, spec=PAYLOAD)

    def one(_: int) -> None:
        queue.submit(new_job_id(), submission, owner="bench")

    return lambda connections: _in_threads(one, connections)


def with_rq(url: str) -> Submits:
    queue = rq.Queue(f"bench-{uuid.uuid4().hex[:8]}", connection=redis.Redis.from_url(url))

    def one(_: int) -> None:
        queue.enqueue("operator.add", kwargs=PAYLOAD)

    return lambda connections: _in_threads(one, connections)


def with_saq(url: str) -> Submits:
    name = f"bench-{uuid.uuid4().hex[:8]}"

    async def submits(connections: int) -> None:
        queue = saq.Queue.from_url(url, name=name)
        await queue.connect()
        limit = asyncio.Semaphore(connections)

        async def one() -> None:
            async with limit:
                await queue.enqueue("add", **PAYLOAD)

        await asyncio.gather(*(one() for _ in range(N)))
        await queue.disconnect()

    return lambda connections: asyncio.run(submits(connections))


def _in_threads(one: Callable[[int], None], connections: int) -> None:
    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(one, range(N)))


def main() -> None:
    """Print submits a second and Elmyr's ratio to each."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, start_redis(Path(folder)) as server:
        systems = {
            "elmyr": elmyr(server.url),
            "rq": with_rq(server.url),
            "saq": with_saq(server.url),
        }
        for connections in (1, 8):
            taken: dict[str, list[float]] = {name: [] for name in systems}
            for turn in range(TURNS + 1):
                for name, submits in systems.items():
                    started = time.perf_counter()
                    submits(connections)
                    if turn:
                        taken[name].append(time.perf_counter() - started)
            rate = {name: N / statistics.median(values) for name, values in taken.items()}
            rows.append(
                [
                    str(connections),
                    *(f"{rate[name]:.0f}" for name in systems),
                    f"{rate['elmyr'] / rate['rq']:.2f}",
                    f"{rate['elmyr'] / rate['saq']:.2f}",
                ]
            )
    print_table(["connections", "elmyr/s", "rq/s", "saq/s", "elmyr/rq", "elmyr/saq"], rows)


if __name__ == "__main__":
    main()
