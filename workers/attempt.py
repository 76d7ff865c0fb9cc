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
import tempfile
from types import FrameType

import structlog

from shared.errors import StaleToken
from shared.logs import configure_logs
from shared.schemas.jobs import JobKind
from shared.settings import settings
from workers.jobs.context import AttemptContext, End

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
    structlog.contextvars.bind_contextvars(job_id=job_id, attempt=number)
    context = AttemptContext.open(job_id, number, settings())
    stop_on_sigterm(context)
    # The trainer's tear-down may still write there when we leave.
    with tempfile.TemporaryDirectory(prefix="elmyr-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            with context:
                end = _end(context)
                if end is not None:
                    context.finish(end)
        except StaleToken as error:
            log.warning("this attempt is over", reason=str(error))
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
    return End.of(lambda: importlib.import_module(JOBS[context.job.kind]).run(context))


def stop_on_sigterm(context: AttemptContext) -> None:
    """Let SIGTERM (a spot node going away, Ray stopping) end the attempt with a checkpoint."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        context.interrupt()

    signal.signal(signal.SIGTERM, interrupt)


if __name__ == "__main__":
    main()
