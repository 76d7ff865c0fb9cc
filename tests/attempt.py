"""A tiny attempt, which Ray Jobs runs in place of workers.attempt:

    python -m tests.attempt SETTINGS_FILE JOB_ID NUMBER

It beats, prints, and ends in the way that its job's spec asks for in `behaviour`, one word for each
attempt (the last one holds for all that follow).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from shared.clock import now
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import Outcome, StopRequest
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.runs import RunResult, RunStore

WISHED = {StopRequest.CANCEL: Outcome.CANCELED, StopRequest.PAUSE: Outcome.PAUSED}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())
    job_id, number = sys.argv[2], int(sys.argv[3])
    queue, store = JobQueue.from_settings(settings), ObjectStore.from_settings(settings)
    runs = RunStore(store)
    words = str(queue.get(job_id).spec.get("behaviour", "finish")).split()
    behaviour = words[min(number, len(words)) - 1]
    store.put(f"pids/{job_id}/{number}/{os.getpid()}", b"")

    say(f"attempt {number} will {behaviour}")
    say(f"password {settings.redis_url.get_secret_value()}")
    runs.take_head(job_id, number)
    queue.heartbeat(job_id, number)

    if behaviour == "die":
        sys.exit("the last words")
    result = {"by": number}
    if behaviour == "write-and-die":
        runs.write_result(
            job_id,
            RunResult(token=number, outcome=Outcome.SUCCEEDED, result=result, ended_at=now()),
        )
        sys.exit("so near")
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, lambda *_: say("I do not hear"))
    while behaviour in ("obey", "deaf"):
        wish = queue.heartbeat(job_id, number)
        if behaviour == "obey" and isinstance(wish, StopRequest):
            queue.finish(job_id, number, WISHED[wish])
            return
        time.sleep(0.1)
    for i in range(50):
        say(f"line {i}")
    queue.finish(job_id, number, Outcome.SUCCEEDED, result=result)
    while behaviour == "linger":
        time.sleep(0.1)


if __name__ == "__main__":
    main()
