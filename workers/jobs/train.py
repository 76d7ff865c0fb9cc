"""A train job: its ranks are started, and waited for until the first of them has finished the job.

One worker trains in this process. With more, this one only watches: it imports no torch, and
neither does Ray Train's controller, so that the ranks start sooner.
"""

from __future__ import annotations

import time
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from shared import tracing
from shared.schemas.jobs import Outcome, StopRequest
from shared.schemas.specs import TrainSpec
from shared.settings import settings
from workers.jobs.context import AttemptContext, End, outcome_of
from workers.jobs.metrics import TrainingMetrics

if TYPE_CHECKING:
    from workers.training.ranks import Ranks

CANCEL_PATIENCE_S = 6.0
"""A cancel gives the ranks this long to end by themselves, e.g. while they are still starting."""


def run(context: AttemptContext) -> End | None:
    """Train with as many workers as the spec asks for. None: the first rank finished the job."""
    workers = TrainSpec.model_validate(context.job.spec).workers
    if workers > 1:
        return _run_on_ranks(context, workers)

    from workers.jobs.train_rank import train_rank
    from workers.training.ranks import Ranks, own_device

    return train_rank(context, Ranks(device=own_device()))


def _run_on_ranks(context: AttemptContext, workers: int) -> End | None:
    """Start the ranks and wait until the first of them has finished the job.

    The trainer's tear-down takes another 10 s and has nothing to tell, so it is not waited for.
    """
    from workers.training.distributed import launch

    # Those imports take a second; a wish that came meanwhile is met before there are ranks.
    if reason := context.should_stop():
        return End(outcome_of(reason))
    arguments = {
        "job_id": context.job.id,
        "token": context.token,
        "traceparent": tracing.traceparent(),
    }
    trainer = ThreadPoolExecutor(1).submit(launch, _rank_main, arguments, workers=workers)
    asked_at: float | None = None
    while not trainer.done():
        reason = context.should_stop()
        if reason == "stale":
            return None
        if reason == StopRequest.CANCEL:
            asked_at = asked_at or time.monotonic()
            if time.monotonic() - asked_at > CANCEL_PATIENCE_S:
                return End(Outcome.CANCELED)
        futures.wait([trainer], timeout=0.2)
    trainer.result()
    return None


def _rank_main(ranks: Ranks, arguments: dict[str, Any]) -> None:
    """What Ray Train runs on each rank. The first one holds the heartbeat, and finishes the job
    before the trainer is torn down."""
    from workers.jobs.train_rank import train_rank

    context = AttemptContext.open(arguments["job_id"], arguments["token"], settings())
    if not ranks.is_first:
        with context.watching():
            train_rank(context, ranks)
        return
    context.observe = TrainingMetrics(context.job.id)
    tracing.configure("attempt", context.settings)
    with context:
        with tracing.span("rank 0", parent=arguments["traceparent"]):
            end = End.of(lambda: train_rank(context, ranks))
        # Before the queue hears of the end: then the first process leaves, and Ray ends this one.
        tracing.close()
        context.finish(end)
