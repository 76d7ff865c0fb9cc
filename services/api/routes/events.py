"""What happened to a job: the live stream, and its metrics and log lines as pages."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic_core import to_json

from services.api.auth import needs_key
from services.api.deps import Elmyr, ExistingJob, Parts
from services.api.events import follow, history
from services.api.pages import HistoryLimit, Page, page
from services.api.problems import declared
from shared.errors import InvalidInput, NotFound, Unauthorized, Unavailable
from shared.schemas.events import Event, EventType

router = APIRouter(
    prefix="/v1/jobs/{job_id}",
    tags=["events"],
    dependencies=[needs_key],
    responses=declared(Unauthorized, NotFound, InvalidInput, Unavailable),
)

EVENT_ID = r"^\d{1,15}-\d{1,15}$"
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", pattern=EVENT_ID, description="Go on behind this event."),
]
EventCursor = Annotated[
    str | None, Query(pattern=EVENT_ID, description="Go on behind this event's id.")
]


@router.get("/events", response_class=EventSourceResponse)
async def stream_events(
    job: ExistingJob, parts: Elmyr, last_event_id: LastEventId = None
) -> AsyncIterable[ServerSentEvent]:
    """Follow a job as server-sent events: `state`, `metric`, `sample`, `checkpoint`, `collapse`,
    `log` and `done`, with everything that happened before, from the first or from behind
    `Last-Event-ID`.

    An event's `id` is `milliseconds-number`, the time at which it happened. The stream ends with
    the `done` of a job that has ended, and can be read after that too; what an attempt said last
    may come to the logs later. Comments keep the connection alive.
    """
    async for event in follow(parts, job.id, after=last_event_id):
        yield ServerSentEvent(
            id=event.id,
            event=event.type,
            raw_data=to_json(event.data, inf_nan_mode="null").decode(),
        )


@router.get("/metrics")
def list_metrics(
    job: ExistingJob, parts: Elmyr, cursor: EventCursor = None, limit: HistoryLimit = 1000
) -> Page[Event]:
    """The job's metrics from the first on, for plots: `data` holds kimg, img_per_s, the losses."""
    return _events_of(parts, job.id, EventType.METRIC, cursor, limit)


@router.get("/logs")
def list_logs(
    job: ExistingJob, parts: Elmyr, cursor: EventCursor = None, limit: HistoryLimit = 1000
) -> Page[Event]:
    """The job's log from the first line on: `data` holds `line` and `stream`."""
    return _events_of(parts, job.id, EventType.LOG, cursor, limit)


def _events_of(
    parts: Parts, job_id: str, type_: EventType, cursor: str | None, limit: int
) -> Page[Event]:
    found = (event for event in history(parts, job_id, after=cursor) if event.type is type_)
    return page(found, limit, cursor=lambda event: event.id)
