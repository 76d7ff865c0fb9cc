"""Micro-batches: what waits goes together, and nobody waits for company.

A batch starts as soon as the answers of the one before are sent, with all that has come in since:
an idle model answers at once, a busy one in larger batches. Long work is done in a thread, so that
the event loop (HTTP, health checks) never stalls; short work where it stands, since a thread would
cost more than it brings. What the work is, is not known here.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.errors import TooMany

Item = TypeVar("Item")
Answer = TypeVar("Answer")

RETRY_AFTER_S = 1.0

TURNS = 8
"""Of the event loop between two batches: it sends the answers of one and reads the next requests.
Work and event loop share the interpreter's lock: side by side they take as long as in turn, and
batches are smaller. With 8 or 64 callers this makes 1.2 to 1.3 times the pictures a second; twice
as many turns make no more."""

SHORT_S = 0.02
"""Processor time up to which work is short. Without a thread to wake and to share the lock with, 1,
8 or 64 callers get 1.2 times the pictures of 32 px a second."""


class WaitingRoom:
    """Bounds the pictures that one replica has promised and not yet made."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken = 0

    @contextmanager
    def seat(self, num_images: int) -> Iterator[None]:
        """Hold room for so many pictures.

        Raises TooMany when there is none; an empty room takes any number.
        """
        if self.taken and self.taken + num_images > self.capacity:
            raise TooMany(
                f"{self.taken} pictures are waited for, and {self.capacity} may be: try again",
                retry_after_s=RETRY_AFTER_S,
            )
        self.taken += num_images
        try:
            yield
        finally:
            self.taken -= num_images


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item, Answer]):
    item: Item
    weight: int
    answer: asyncio.Future[Answer]


class Batcher(Generic[Item, Answer]):
    """Calls `work` with lists of items, one batch at a time, in order of arrival."""

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Answer]],
        *,
        max_weight: int,
        executor: Executor,
        on_batch: Callable[[int], None] = lambda weight: None,
        short_s: float = SHORT_S,
    ) -> None:
        """`work` answers its items in their order. A batch weighs at most `max_weight`, but always
        holds one item; `on_batch` hears the weight of each. One that takes at most `short_s` is
        done in the event loop, others by the executor."""
        self._work = work
        self._max_weight = max_weight
        self._executor = executor
        self._on_batch = on_batch
        self._short_s = short_s
        self._waiting: deque[_Waiting[Item, Answer]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._seconds: dict[int, float] = {}
        """Processor time that the last batch of a weight took."""

    async def submit(self, item: Item, *, weight: int = 1) -> Answer:
        """The answer to one item; raises what `work` raised for its batch.

        An item whose caller is cancelled before its batch starts is not worked on.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, weight, answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            weight = sum(waiting.weight for waiting in batch)
            items = [waiting.item for waiting in batch]
            self._on_batch(weight)
            try:
                if self._seconds.get(weight, math.inf) <= self._short_s:
                    answers = self._timed(weight, items)
                else:
                    answers = await loop.run_in_executor(self._executor, self._timed, weight, items)
            except Exception as error:  # noqa: BLE001 - each caller gets it; the worker goes on
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
            else:
                for waiting, answer in zip(batch, answers, strict=True):
                    if not waiting.answer.done():
                        waiting.answer.set_result(answer)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        self._worker = None

    def _timed(self, weight: int, items: Sequence[Item]) -> Sequence[Answer]:
        started = time.thread_time()
        answers = self._work(items)
        self._seconds[weight] = time.thread_time() - started
        return answers

    def _next_batch(self) -> list[_Waiting[Item, Answer]]:
        batch: list[_Waiting[Item, Answer]] = []
        weight = 0
        while self._waiting and (not batch or weight + self._waiting[0].weight <= self._max_weight):
            waiting = self._waiting.popleft()
            if not waiting.answer.done():  # done before its turn: the caller is gone
                batch.append(waiting)
                weight += waiting.weight
        return batch
