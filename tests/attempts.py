"""A job run as its attempt would run it, in this process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from shared.ids import new_job_id
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import JobKind, JobSubmission
from shared.settings import Settings
from workers.jobs.context import AttemptContext, End


def run_attempt(
    work: Callable[[AttemptContext], End | None],
    settings: Settings,
    queue: JobQueue,
    kind: JobKind,
    spec: dict[str, object],
    *,
    wish: str | None = None,
) -> tuple[str, End]:
    """Submit a job, begin it, ask the `wish` of it, do the work; gives its id and its end."""
    job_id = new_job_id()
    queue.submit(job_id, JobSubmission(kind=kind, spec=spec), owner="tests")
    queue.lease(job_id, owner="tests", ttl_s=600)
    queue.begin(job_id, owner="tests", number=1)
    if wish:
        getattr(queue, wish)(job_id)
    with AttemptContext.open(job_id, 1, settings) as context:
        end = ended(lambda: work(context))
        context.finish(end)
    return job_id, end


def ended(work: Callable[[], End | None]) -> End:
    """Do the work of a job in a thread of its own: a job makes its thread background work, and lets
    it flush denormals."""
    with ThreadPoolExecutor(1) as thread:
        end = thread.submit(End.of, work).result()
    assert end is not None
    return end
