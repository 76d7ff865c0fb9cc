"""What routes are given: the parts of Elmyr they speak to, and the job that a path names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import Annotated

from fastapi import Depends, Request

from services.api.coalescing import Coalesced
from shared.ids import JobId
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.datasets import DatasetManifest
from shared.schemas.jobs import FINAL_STATES, Job, JobKind, JobState
from shared.schemas.models import ModelCard
from shared.settings import Settings
from shared.storage import datasets
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry
from shared.storage.runs import RunStore

NUM_KEPT = 256


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything behind the API. All but `events.follow` block: call them in a worker thread."""

    settings: Settings
    store: ObjectStore
    runs: RunStore
    registry: Registry
    queue: JobQueue
    events: EventLog
    latest_of: Callable[[str], str]
    version_of: Callable[[str], tuple[str, int]]
    """What the name of a dataset and the reference of a model mean now: every submit asks the
    store, but those that come together share a read."""
    manifest_of: Callable[[str, str], DatasetManifest]
    card_of: Callable[[str, int], ModelCard]
    """Of a dataset's or model's version that was just seen to exist: versions never change, so
    these are kept in memory, and a submit asks the store for pointers only."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Parts:
        """The parts that the settings name; nothing is sent yet."""
        store = ObjectStore.from_settings(settings)
        registry = Registry(store)
        return cls(
            settings=settings,
            store=store,
            runs=RunStore(store),
            registry=registry,
            queue=JobQueue.from_settings(settings),
            events=EventLog.from_settings(settings),
            latest_of=Coalesced(partial(datasets.latest, store)),
            version_of=Coalesced(registry.resolve),
            manifest_of=lru_cache(NUM_KEPT)(partial(datasets.manifest, store)),
            card_of=lru_cache(NUM_KEPT)(registry.card),
        )

    def unfinished(self, *kinds: JobKind) -> Iterator[Job]:
        """The jobs of these kinds that have not ended."""
        for kind, state in product(kinds, set(JobState) - FINAL_STATES):
            cursor = None
            while True:
                jobs, cursor = self.queue.list(kind=kind, state=state, cursor=cursor, limit=100)
                yield from jobs
                if cursor is None:
                    break


async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


Elmyr = Annotated[Parts, Depends(_parts)]


def _job(job_id: JobId, parts: Elmyr) -> Job:
    return parts.queue.get(job_id)


ExistingJob = Annotated[Job, Depends(_job)]
"""The job that the path names. Raises NotFound."""
