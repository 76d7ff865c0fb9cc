"""What routes are given: the parts of Elmyr they speak to, and the job that a path names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue

from shared.ids import JobId
from shared.schemas.jobs import Job
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from shared.storage.runs import RunStore


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything behind the API. All but `events.follow` block: call them in a worker thread."""

    settings: Settings
    store: ObjectStore
    runs: RunStore
    registry: Registry
    queue: JobQueue
    events: EventLog

    @classmethod
    def from_settings(cls, settings: Settings) -> Parts:
        """The parts that the settings name; nothing is sent yet."""
        store = ObjectStore.from_settings(settings)
        return cls(
            settings=settings,
            store=store,
            runs=RunStore(store),
            registry=Registry(store),
            queue=JobQueue.from_settings(settings),
            events=EventLog.from_settings(settings),
        )


async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


Elmyr = Annotated[Parts, Depends(_parts)]


def _job(job_id: JobId, parts: Elmyr) -> Job:
    return parts.queue.get(job_id)


ExistingJob = Annotated[Job, Depends(_job)]
"""The job that the path names. Raises NotFound."""
