"""A job's whole history as one sequence: archived parts in object storage first, then Redis.

The dispatcher writes a part, then trims Redis up to it. So whoever reads Redis may find that the
events he wants have just moved: both readers here notice that and go back to the parts.
"""

from __future__ import annotations

import bisect
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from anyio import to_thread
from fastapi.concurrency import iterate_in_threadpool

from services.api.deps import Parts
from shared.schemas.events import Event, EventType
from shared.storage import keys

REDIS_PAGE = 1000


def history(parts: Parts, job_id: str, *, after: str | None = None) -> Iterator[Event]:
    """Every event behind `after` (an event id) up to now, oldest first."""
    last = after
    num_parts = 0
    while True:
        archive = _archive(parts, job_id)
        if len(archive) > num_parts:
            num_parts = len(archive)
            for event in _archived(parts, archive, after=last):
                last = event.id
                yield event
        page = parts.events.read(job_id, after=last, limit=REDIS_PAGE)
        if _trimmed(parts, job_id, last) and len(_archive(parts, job_id)) > num_parts:
            continue
        yield from page
        if len(page) < REDIS_PAGE:
            return
        last = page[-1].id


async def follow(
    parts: Parts, job_id: str, *, after: str | None = None
) -> AsyncGenerator[Event, None]:
    """Every event behind `after`, those to come too; ends with the `done` of a job that has not
    been retried since."""
    last = after
    while True:
        # A final state and its `done` are written at once: what is final now is complete below.
        done_id = await to_thread.run_sync(parts.events.done_id, job_id)
        if done_id is not None and last is not None and _order(last) >= _order(done_id):
            return
        async for event in iterate_in_threadpool(history(parts, job_id, after=last)):
            last = event.id
            yield event
            if event.type is EventType.DONE:
                newest = await to_thread.run_sync(parts.events.done_id, job_id)
                if newest == event.id:
                    return
        if done_id is not None:
            return
        async with aclosing(parts.events.follow(job_id, after=last)) as live:
            async for new in live:
                if new is None:  # silence; FastAPI keeps the connection alive
                    continue
                if await to_thread.run_sync(_trimmed, parts, job_id, last):
                    break
                last = new.id
                yield new


def _archive(parts: Parts, job_id: str) -> list[str]:
    return [info.key for info in parts.store.list(keys.events_prefix(job_id))]


def _archived(parts: Parts, archive: list[str], *, after: str | None) -> Iterator[Event]:
    """The archived events behind `after`; parts that end before it are not read through."""

    def first_id(key: str) -> tuple[int, int]:
        return _order(_part(parts, key)[0].id)

    start = 0 if after is None else bisect.bisect_right(archive, _order(after), key=first_id) - 1
    for key in archive[max(start, 0) :]:
        for event in _part(parts, key):
            if after is None or _order(event.id) > _order(after):
                yield event


def _part(parts: Parts, key: str) -> list[Event]:
    return [Event.model_validate_json(line) for line in parts.store.get(key).splitlines()]


def _trimmed(parts: Parts, job_id: str, last: str | None) -> bool:
    """Whether Redis may have lost events right behind `last`: its first one is later."""
    first = parts.events.read(job_id, limit=1)
    return not first or last is None or _order(first[0].id) > _order(last)


def _order(event_id: str) -> tuple[int, int]:
    milliseconds, number = event_id.split("-")
    return int(milliseconds), int(number)
