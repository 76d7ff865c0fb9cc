"""The event log of each job: a Redis stream that its scripts, its attempt and its dispatcher write.

State changes and the end (`state`, `done`) are written by the transition itself, in the same step.
Events leave Redis when the dispatcher has archived them; the archive is not known here.

All methods raise Unavailable while Redis is down.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import redis.asyncio
from pydantic_core import to_json

from shared.errors import NotFound
from shared.queue.connection import Connection, redis_errors
from shared.schemas.events import Event, EventType
from shared.settings import Settings

MAX_EVENTS = 100_000
"""A job's events in Redis: far above what waits for the archive, far below what fills a server."""
PAGE = 500
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventLog:
    """The event logs of one queue; safe to share between threads."""

    def __init__(self, connection: Connection, *, silence_s: float = 10.0) -> None:
        """`silence_s`: after so long without an event, `follow` gives None."""
        self._redis = connection
        self._silence_s = silence_s

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(Connection.from_settings(settings))

    def append(
        self, job_id: str, type: EventType, data: dict[str, Any], *, token: int | None = None
    ) -> str:
        """Add an event; returns its id.

        Raises StaleToken when `token` is given and that attempt is not under way; NotFound.
        """
        return self._append(job_id, [(type, data)], token)[0]

    def append_many(
        self, job_id: str, events: list[tuple[EventType, dict[str, Any]]], *, token: int
    ) -> list[str]:
        """Add an attempt's events in one step; returns their ids. Raises as `append`."""
        return self._append(job_id, events, token)

    def _append(
        self, job_id: str, events: list[tuple[EventType, dict[str, Any]]], token: int | None
    ) -> list[str]:
        pairs = [
            text
            for type, data in events
            # NaN is no JSON: a loss that is not finite shows as null.
            for text in (type.value, to_json(data, inf_nan_mode="null").decode())
        ]
        fence = "" if token is None else token
        ids: list[str] = self._redis.run("append", job_id, fence, MAX_EVENTS, *pairs)
        return ids

    def read(self, job_id: str, *, after: str | None = None, limit: int = 1000) -> list[Event]:
        """Up to `limit` events behind the id `after`, oldest first; none for an unknown job."""
        first = "-" if after is None else f"({after}"
        with redis_errors():
            entries: Any = self._redis.client.xrange(self._stream(job_id), first, count=limit)
        return [_event(*entry) for entry in entries]

    def done_id(self, job_id: str) -> str | None:
        """The id of a job's `done`, while it is in a final state. Behind it stand only log lines:
        an attempt's last words are relayed when it has ended. Raises NotFound."""
        with redis_errors():
            key = self._redis.keys.key("job", job_id)
            fields: Any = self._redis.client.hmget(key, "state", "done_id")
        state, done_id = fields
        if state is None:
            raise NotFound(f"there is no job {job_id}")
        return None if done_id is None else str(done_id)

    async def follow(
        self, job_id: str, *, after: str | None = None
    ) -> AsyncGenerator[Event | None, None]:
        """Every event behind the id `after`, as they come; None after a silence.

        Ends behind the `done` of a job that has not been retried since. Holds one connection.
        """
        cursor = after or "0-0"
        async with self._redis.open_async(block_s=self._silence_s) as client:
            while not await self._is_over(client, job_id, cursor):
                with redis_errors():
                    streams: Any = await client.xread(
                        {self._stream(job_id): cursor},
                        count=PAGE,
                        block=int(self._silence_s * 1000),
                    )
                if not streams:
                    yield None
                for entry in streams[0][1] if streams else []:
                    event = _event(*entry)
                    cursor = event.id
                    yield event
                    if event.type is EventType.DONE:
                        break  # look whether it is the last

    async def _is_over(self, client: redis.asyncio.Redis, job_id: str, cursor: str) -> bool:
        with redis_errors():
            done_id = await client.hget(self._redis.keys.key("job", job_id), "done_id")
        return done_id is not None and _order(cursor) >= _order(str(done_id))

    def trim(self, job_id: str, before: str) -> None:
        """Drop the events older than the id `before`."""
        with redis_errors():
            self._redis.client.xtrim(self._stream(job_id), minid=before, approximate=False)

    def expire(self, job_id: str, ttl_s: int) -> None:
        """Drop an ended job's events after `ttl_s`, unless it is retried. Raises NotFound."""
        self._redis.run("expire", job_id, ttl_s)

    def _stream(self, job_id: str) -> str:
        return self._redis.keys.key("events", job_id)


def _event(event_id: str, fields: dict[str, str]) -> Event:
    return Event(
        id=event_id,
        type=EventType(fields["type"]),
        at=EPOCH + timedelta(milliseconds=_order(event_id)[0]),
        data=json.loads(fields["data"]),
    )


def _order(event_id: str) -> tuple[int, int]:
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number or 0)
