"""The real API over HTTP on a free port, on a test's own queue and bucket.

The worker's part is played by hand, so that jobs move without Ray.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import uvicorn
from starlette.types import ASGIApp

from services.api.app import create_app
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.datasets import DatasetManifest, Shard
from shared.schemas.events import EventType
from shared.schemas.jobs import Job, Outcome
from shared.settings import Settings
from shared.storage import datasets, keys
from shared.storage.objects import ObjectStore

KEY = "elm_" + "k" * 43
DISPATCHER = "dispatcher-of-the-test"


@dataclass
class Live:
    """A running API and what lies behind it."""

    url: str
    settings: Settings
    store: ObjectStore
    queue: JobQueue
    events: EventLog

    @property
    def environment(self) -> dict[str, str]:
        """What points the client and the CLI here."""
        return {"ELMYR_URL": self.url, "ELMYR_API_KEY": KEY}

    def add_dataset(
        self, name: str, *, num_classes: int = 0, has_captions: bool = False
    ) -> DatasetManifest:
        """A dataset that trainings can name; its one shard holds nothing."""
        return add_dataset(self.store, name, num_classes=num_classes, has_captions=has_captions)

    def start(self, job_id: str) -> Job:
        """Lease the job and begin its next attempt."""
        leased = self.queue.lease(job_id, owner=DISPATCHER, ttl_s=600)
        assert leased is not None
        begun = self.queue.begin(job_id, owner=DISPATCHER, number=leased.token + 1)
        self.queue.heartbeat(job_id, begun.token)
        return self.queue.get(job_id)

    def report(self, job: Job, type_: EventType, **data: object) -> str:
        """Write an event as the job's newest attempt."""
        return self.events.append(job.id, type_, data, token=job.token)

    def end(
        self, job: Job, outcome: Outcome, *, error: str | None = None, **result: object
    ) -> None:
        """End the newest attempt."""
        self.queue.finish(job.id, job.token, outcome, error=error, result=result or None)


def add_dataset(
    store: ObjectStore, name: str, *, num_classes: int = 0, has_captions: bool = False
) -> DatasetManifest:
    """A dataset that trainings can name; its one shard holds nothing."""
    shard = keys.dataset_shard(name, "d1", 0)
    store.put(shard, b"")
    manifest = DatasetManifest(
        name=name,
        version="d1",
        size=32,
        channels=1,
        num_images=100,
        num_classes=num_classes,
        class_names=[f"class {i}" for i in range(num_classes)],
        class_counts=[100 // num_classes for _ in range(num_classes)],
        has_captions=has_captions,
        shards=[Shard(key=shard, bytes=0, sha256=hashlib.sha256(b"").hexdigest(), num_images=100)],
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    datasets.publish(store, manifest)
    return manifest


@contextmanager
def live_api(settings: Settings, *, port: int = 0) -> Iterator[Live]:
    """Run the API until the block ends."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    settings = settings.model_copy(update={"api_keys": f"tester:{digest}"})
    store = ObjectStore.from_settings(settings)
    store.ensure_bucket()
    with listening(create_app(settings), port=port) as url:
        yield Live(
            url=url,
            settings=settings,
            store=store,
            queue=JobQueue.from_settings(settings),
            events=EventLog.from_settings(settings),
        )


@contextmanager
def listening(app: ASGIApp, *, port: int = 0) -> Iterator[str]:
    """Serve an application on loopback until the block ends; gives its URL."""
    config = uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    socket = config.bind_socket()
    socket.listen()  # who comes before the application has started waits
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
