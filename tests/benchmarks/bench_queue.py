"""Submits a second: Elmyr's queue against rq and saq, on the same Redis with the same fsync.

    .venv/bin/python -m tests.benchmarks.bench_queue

Each submits a job with the same small payload from one process, then from eight at once, each of
one connection, as the replicas of an API do. The systems take turns; a ratio is the median of what
it was in each turn, since the speed of a disk drifts. An Elmyr submit is idempotent, too, writes
its event, and keeps the indexes of the lists.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
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

N, TURNS = 400, 25
"""Submits of a turn, over all processes."""

PAYLOAD = {"model": "garments", "n": 64, "seed": 7}
Submits = Callable[[int], None]
"""Submits so many jobs, one after the other."""


def elmyr(url: str) -> Submits:
    settings = Settings(redis_url=SecretStr(url), queue_name="bench", max_queued_jobs=10**6)
    queue = JobQueue.from_settings(settings)
    submission = JobSubmission(kind=JobKind.SAMPLE, spec=PAYLOAD)

    def submits(n: int) -> None:
        for _ in range(n):
            queue.submit(new_job_id(), submission, owner="bench")

    return submits


def with_rq(url: str) -> Submits:
    queue = rq.Queue("bench-rq", connection=redis.Redis.from_url(url))

    def submits(n: int) -> None:
        for _ in range(n):
            queue.enqueue("operator.add", kwargs=PAYLOAD)

    return submits


def with_saq(url: str) -> Submits:
    runner = asyncio.Runner()
    queue = saq.Queue.from_url(url, name="bench-saq")
    runner.run(queue.connect())

    async def enqueue(n: int) -> None:
        for _ in range(n):
            await queue.enqueue("add", **PAYLOAD)

    return lambda n: runner.run(enqueue(n))


SYSTEMS = {"elmyr": elmyr, "rq": with_rq, "saq": with_saq}


def process(url: str, n: int, barrier: Barrier) -> None:
    """Each system in turn: wait for the other processes, submit, wait for them again."""
    systems = [system(url) for system in SYSTEMS.values()]
    for _ in range(TURNS + 1):
        for submits in systems:
            barrier.wait()
            submits(n)
            barrier.wait()


def measure(url: str, processes: int) -> dict[str, list[float]]:
    """Seconds that each system took in each turn, from so many processes."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    started = [
        context.Process(target=process, args=(url, N // processes, barrier), daemon=True)
        for _ in range(processes)
    ]
    for child in started:
        child.start()
    taken: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    for turn in range(TURNS + 1):
        for name in SYSTEMS:
            barrier.wait()
            began = time.perf_counter()
            barrier.wait()
            if turn:
                taken[name].append(time.perf_counter() - began)
    for child in started:
        child.join()
    return taken


def times(others: list[float], ours: list[float]) -> str:
    """How many times as fast as the other system, over the turns: median and quartiles."""
    ratios = [other / our for other, our in zip(others, ours, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def main() -> None:
    """Print submits a second and Elmyr's ratio to each."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, start_redis(Path(folder)) as server:
        for processes in (1, 8):
            taken = measure(server.url, processes)
            rows.append(
                [
                    str(processes),
                    *(f"{N / statistics.median(taken[name]):.0f}" for name in SYSTEMS),
                    times(taken["rq"], taken["elmyr"]),
                    times(taken["saq"], taken["elmyr"]),
                ]
            )
    print_table(["processes", "elmyr/s", "rq/s", "saq/s", "elmyr/rq", "elmyr/saq"], rows)


if __name__ == "__main__":
    main()
