"""What one Ray job runs: read the job, hold the heartbeat, run the job's kind, finish.

    python -m workers.attempt JOB_ID NUMBER

Everything else that it needs comes from the job in the queue and from the environment. It exits 0
when the queue knows how the attempt ended, whatever the end; Ray's word counts only for a death.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

import structlog

from shared import tracing
from shared.errors import StaleToken
from shared.logs import configure_logs
from shared.schemas.jobs import JobKind
from shared.settings import settings
from workers.jobs.context import AttemptContext, End
from workers.jobs.metrics import TrainingMetrics
from workers.jobs.scratch import scratch

# By name, so that torch is imported while the heart beats already.
JOBS = {
    JobKind.INGEST: "workers.jobs.ingest",
    JobKind.TRAIN: "workers.jobs.train",
    JobKind.ENCODE: "workers.jobs.encode",
    JobKind.EVALUATE: "workers.jobs.evaluate",
}

log = structlog.get_logger()


def main() -> None:
    """Run the attempt named on the command line."""
    job_id, number = sys.argv[1], int(sys.argv[2])
    configure_logs("attempt")
    tracing.configure("attempt", settings())
    structlog.contextvars.bind_contextvars(job_id=job_id, attempt=number)
    context = AttemptContext.open(job_id, number, settings())
    context.observe = TrainingMetrics(job_id)
    stop_on_sigterm(context)
    with scratch():
        try:
            with _span(context), context:
                end = _end(context)
                if end is not None:
                    context.finish(end)
        except StaleToken as error:
            log.warning("this attempt is over", reason=str(error))
    tracing.close()
    # Ray's threads and the trainer's tear-down would hold the process for another 10 s.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end(context: AttemptContext) -> End | None:
    """Run the job's kind; None when it has told the queue itself."""
    held = context.runs.result(context.job.id)
    if held is not None:
        # An earlier attempt died between its result and its finish.
        return End(held.outcome, result=held.result)
    with tracing.span(context.job.kind):
        return End.of(lambda: importlib.import_module(JOBS[context.job.kind]).run(context))


def _span(context: AttemptContext) -> AbstractContextManager[Any]:
    """The attempt as a part of the trace of the request that made its job."""
    job = context.job
    return tracing.span(
        "attempt", parent=job.traceparent, job_id=job.id, attempt=context.token, kind=job.kind
    )


def stop_on_sigterm(context: AttemptContext) -> None:
    """Let SIGTERM (a spot node going away, Ray stopping) end the attempt with a checkpoint."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        context.interrupt()

    signal.signal(signal.SIGTERM, interrupt)


if __name__ == "__main__":
    main()
