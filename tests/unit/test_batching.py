"""The micro-batcher: what waits goes together, in order, and nobody pays for another."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from services.serving.batching import SHORT_S, Batcher, WaitingRoom
from shared.errors import TooMany


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


class Work:
    """Squares numbers, keeps the batches that it saw, and lets nothing pass until `gate` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = Event()
        self.started = Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.started.set()
        assert self.gate.wait(10)
        if 13 in items:
            raise ValueError("13 is not squared")
        return [item * item for item in items]


def run_held(
    work: Work,
    executor: ThreadPoolExecutor,
    submit: Callable[[Batcher[int, int]], Awaitable[object]],
) -> None:
    """Hold the batcher in a first batch [0] while `submit` fills its queue, then let it go on."""

    async def main() -> None:
        batcher = Batcher(work, max_weight=4, executor=executor)
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.to_thread(work.started.wait, 10)
        filling = asyncio.ensure_future(submit(batcher))
        # Each pass of the loop brings what is submitted one step on; ten bring it into the queue.
        for _ in range(10):
            await asyncio.sleep(0)
        work.gate.set()
        await filling
        assert await first == 0

    asyncio.run(main())


def test_what_waits_goes_together_in_order(executor: ThreadPoolExecutor) -> None:
    work = Work()

    async def submit(batcher: Batcher[int, int]) -> None:
        answers = await asyncio.gather(*(batcher.submit(item) for item in range(1, 11)))
        assert answers == [item * item for item in range(1, 11)]

    run_held(work, executor, submit)
    assert work.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_a_batch_is_bounded_by_weight_but_holds_at_least_one(executor: ThreadPoolExecutor) -> None:
    work = Work()

    async def submit(batcher: Batcher[int, int]) -> None:
        weights = {1: 3, 2: 1, 3: 9, 4: 2, 5: 3}
        await asyncio.gather(*(batcher.submit(item, weight=w) for item, w in weights.items()))

    run_held(work, executor, submit)
    assert work.batches == [[0], [1, 2], [3], [4], [5]]


def test_an_idle_batcher_answers_at_once(executor: ThreadPoolExecutor) -> None:
    work = Work()
    work.gate.set()

    async def main() -> None:
        batcher = Batcher(work, max_weight=4, executor=executor)
        assert [await batcher.submit(item) for item in (2, 3)] == [4, 9]

    asyncio.run(main())
    assert work.batches == [[2], [3]]


def test_who_asks_again_at_once_is_in_the_next_batch(executor: ThreadPoolExecutor) -> None:
    work = Work()

    async def submit(batcher: Batcher[int, int]) -> None:
        async def ask(item: int) -> None:
            for _ in range(3):
                await batcher.submit(item)
                for _ in range(4):  # passes of the loop that an answer and a request take
                    await asyncio.sleep(0)

        await asyncio.gather(*(ask(item) for item in range(1, 6)))

    run_held(work, executor, submit)
    assert [len(batch) for batch in work.batches] == [1, 4, 4, 4, 3]


def test_short_work_is_done_where_it_stands_and_long_work_in_a_thread(
    executor: ThreadPoolExecutor,
) -> None:
    threads: list[int] = []

    def work(items: Sequence[float]) -> Sequence[float]:
        threads.append(threading.get_ident())
        until = time.thread_time() + sum(items)
        while time.thread_time() < until:
            pass
        return items

    async def main(short_s: float) -> list[bool]:
        threads.clear()
        batcher = Batcher(work, max_weight=4, executor=executor, short_s=short_s)
        for seconds, weight in ((0.0, 1), (0.0, 1), (2 * SHORT_S, 2), (0.0, 2), (0.0, 2)):
            await batcher.submit(seconds, weight=weight)
        here = threading.get_ident()
        return [thread == here for thread in threads]

    # What is not known yet may be long, and what was long the last time is not known to be short.
    assert asyncio.run(main(SHORT_S)) == [False, True, False, False, True]
    assert asyncio.run(main(0)) == [False] * 5


def test_a_failed_batch_fails_its_callers_and_no_other(executor: ThreadPoolExecutor) -> None:
    work = Work()

    async def submit(batcher: Batcher[int, int]) -> None:
        answers = await asyncio.gather(
            *(batcher.submit(item) for item in (13, 1, 2, 3, 4, 5)), return_exceptions=True
        )
        assert [type(answer) for answer in answers[:4]] == [ValueError] * 4
        assert answers[4:] == [16, 25]

    run_held(work, executor, submit)


def test_who_has_left_is_not_worked_for(executor: ThreadPoolExecutor) -> None:
    work = Work()

    async def submit(batcher: Batcher[int, int]) -> None:
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert answers[::2] == [1, 9]
        assert isinstance(answers[1], asyncio.CancelledError)

    run_held(work, executor, submit)
    assert work.batches == [[0], [1, 3]]


def test_the_waiting_room_is_bounded() -> None:
    room = WaitingRoom(4)
    with room.seat(3):
        with pytest.raises(TooMany) as refusal, room.seat(2):
            pass
        assert refusal.value.retry_after_s
        with room.seat(1):
            assert room.taken == 4
    assert room.taken == 0
    with room.seat(99):  # larger than the room, but nobody is before it
        assert room.taken == 99
