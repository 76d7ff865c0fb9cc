"""Long work, one piece at a time in a thread of its own: what is drawn meanwhile hardly waits.

What the work is, is not known here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from shared.errors import Unavailable

Result = TypeVar("Result")

RETRY_AFTER_S = 2.0


class CallerGone(Exception):
    """Nobody waits for this work any more."""


class Bench:
    """Bounds and runs the long work of one replica. All methods belong to one event loop."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._taken = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bench")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places. Raises Unavailable when there is none."""
        if self._taken >= self._capacity:
            raise Unavailable(
                f"{self._taken} requests are at work or wait for it, and no more may: try again",
                retry_after_s=RETRY_AFTER_S,
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(self, work: Callable[[Callable[[], None]], Result]) -> Result:
        """What `work` returns. It is handed a check to make now and then, which ends it when the
        caller has been cancelled; work that has not begun by then is left out."""
        gone = threading.Event()

        def check() -> None:
            if gone.is_set():
                raise CallerGone

        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, work, check)
        finally:
            gone.set()
