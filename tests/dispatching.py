"""A dispatcher in a thread or in a process of its own, and the bulk deployment without Ray."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount

from services.dispatcher.archive import EventArchive
from services.dispatcher.dispatcher import Dispatcher
from services.dispatcher.ray_jobs import RayJobs
from services.local.identity import load_identity
from services.local.ports import LOOPBACK
from services.local.state import StackState
from services.serving import replicas
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import Event, EventType
from shared.schemas.jobs import FINAL_STATES, Job, JobKind, JobState, JobSubmission
from shared.settings import Settings
from shared.storage.objects import ObjectStore

PATIENCE_S = 90.0
"""Far above what anything takes: a test that waits so long has failed."""
NO_RAY = f"http://{LOOPBACK}:1"

T = TypeVar("T")


def eventually(found: Callable[[], T | None]) -> T:
    """What `found` returns once that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return answer


def submit(
    queue: JobQueue, job_id: str, kind: JobKind = JobKind.TRAIN, **spec: object
) -> Callable[[], Job]:
    """Submit a job; returns how to look at it."""
    spec = spec if kind is JobKind.SAMPLE else {"workers": 1, **spec}
    queue.submit(job_id, JobSubmission(kind=kind, spec=spec), owner="tester")
    return lambda: queue.get(job_id)


def ended(job: Callable[[], Job]) -> Job:
    """The job, when it has ended."""
    return eventually(lambda: found if (found := job()).state in FINAL_STATES else None)


def reached(job: Callable[[], Job], state: JobState) -> Job:
    """The job, when it is in this state."""
    return eventually(lambda: found if (found := job()).state is state else None)


def history(settings: Settings, job_id: str) -> list[Event]:
    """All events of a job, wherever they are by now, oldest first."""
    archive = EventArchive(
        JobQueue.from_settings(settings),
        EventLog.from_settings(settings),
        ObjectStore.from_settings(settings),
    )
    by_id = {event.id: event for event in archive.newest_first(job_id)}
    return list(reversed(by_id.values()))


def log_lines(settings: Settings, job_id: str) -> list[str]:
    """What a job's attempts have printed, as its events tell it."""
    found = history(settings, job_id)
    return [event.data["line"] for event in found if event.type is EventType.LOG]


@contextmanager
def dispatching(settings: Settings, *, ray: RayJobs | None = None) -> Iterator[Dispatcher]:
    """A dispatcher in a thread of this process; ends gracefully with the block."""
    dispatcher = Dispatcher(settings, ray=ray)
    thread = threading.Thread(target=dispatcher.run)
    thread.start()
    try:
        yield dispatcher
    finally:
        dispatcher.stop()
        thread.join()


def on_stacks_ray(settings: Settings, stack: StackState) -> Settings:
    """A test's own queue and bucket, on the Ray of the stack; impatient."""
    return settings.model_copy(
        update={
            "ray_dashboard_url": stack.dashboard_url,
            "ray_auth_token": SecretStr(load_identity(stack.data_dir).ray_token),
            "stop_grace_s": 2.0,
            "retry_base_s": 0.1,
        }
    )


def tiny_attempts(settings: Settings, file: Path) -> RayJobs:
    """Ray Jobs that run tests.attempt, which finds its stores in the settings of `file`."""
    return RayJobs(settings, module=f"tests.attempt {file}")


def write_settings(settings: Settings, file: Path) -> Path:
    """The settings as a file for other processes, secrets included."""
    values = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name in Settings.model_fields
        for value in [getattr(settings, name)]
    }
    file.touch(0o600)
    file.write_text(json.dumps(values))
    return file


@contextmanager
def dispatcher_process(file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A dispatcher of the settings in `file`, in a process of its own; killed with the block."""
    with file.with_suffix(".log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.dispatcher", file],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def processes(store: ObjectStore, job_id: str) -> dict[int, list[int]]:
    """The process ids of a job's attempts, by number."""
    found: dict[int, list[int]] = {}
    for info in store.list(f"pids/{job_id}/"):
        number, pid = info.key.split("/")[2:]
        found.setdefault(int(number), []).append(int(pid))
    return found


def is_gone(pids: list[int]) -> bool:
    """Whether none of these processes runs any more."""
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in pids
    )


@contextmanager
def bulk_deployment(settings: Settings, *, port: int = 0) -> Iterator[str]:
    """The real bulk application under /bulk, as Serve's proxy shows it; yields its address."""
    app = Starlette(routes=[Mount("/bulk", replicas.bulk(settings))])
    config = uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    sockets = [config.bind_socket()]
    sockets[0].listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
