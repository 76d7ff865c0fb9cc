"""Follows a job's events over SSE, through cut connections and restarts of the API.

Each reconnect goes on behind the last event that came (Last-Event-ID), so none is lost or doubled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx2

from services.client.routes import route
from services.client.transport import RETRIED, Patience, Transport
from shared.schemas.events import Event, EventType
from shared.schemas.jobs import FINAL_STATES, Job

PATIENCE_S = 300.0
"""How long the API may be away: a followed job runs for hours and does not need it."""

KNOWN_TYPES = frozenset(str(type_) for type_ in EventType)


def follow(transport: Transport, job_id: str, *, after: str | None = None) -> Iterator[Event]:
    """The job's events behind `after` (an event's id; without it all), those to come too.

    Ends when the job has ended. Raises what the API answers, and Unreachable when it has been away
    for too long.
    """
    path = route("jobs", job_id)
    patience = Patience()
    while True:
        last = None
        try:
            with transport.event_stream(f"{path}/events", last_event_id=after) as stream:
                for sent in stream:
                    last = _event(sent)
                    if last is not None:
                        after = last.id
                        patience.renew()
                        yield last
        except RETRIED as error:
            patience.wait(error, limit_s=PATIENCE_S)
            continue
        # The server ended the stream. Behind the last event of a job that has ended there is none.
        if last is not None and last.type is EventType.DONE:
            return
        if last is None and _job(transport, path).state in FINAL_STATES:
            return


def _event(sent: httpx2.ServerSentEvent) -> Event | None:
    """None for a type that this client does not know yet. An id starts with its time in ms."""
    if sent.event not in KNOWN_TYPES:
        return None
    at = datetime.fromtimestamp(int(sent.id.partition("-")[0]) / 1000, UTC)
    return Event(id=sent.id, type=EventType(sent.event), at=at, data=json.loads(sent.data))


def _job(transport: Transport, path: str) -> Job:
    return Job.model_validate_json(transport.send("GET", path).content)
