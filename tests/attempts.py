"""A job run as its attempt would run it, in this process."""

from __future__ import annotations

from collections.abc import Callable

import torch

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
        end = End.of(lambda: work(context))
        assert end is not None
        context.finish(end)
    torch.set_flush_denormal(False)  # Hypothesis refuses to draw floats while it is on
    return job_id, end
