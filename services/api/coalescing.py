"""Many who ask the same at the same time are answered by one read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

NUM_TURNS = 64
"""More keys than that are read one after the other."""

T = TypeVar("T")


class Coalesced(Generic[T]):
    """`read(key)` for many threads. Each gets what was read after it had asked, but a key is read
    by one thread at a time: those who ask meanwhile wait, and the next read is for all of them.

    Raises what `read` raises, in all threads that it was for.
    """

    def __init__(self, read: Callable[[str], T]) -> None:
        self._read = read
        self._lock = Lock()
        self._next: dict[str, Future[T]] = {}
        """Of each key the answer of the read that has not begun."""
        self._turns = [Lock() for _ in range(NUM_TURNS)]

    def __call__(self, key: str) -> T:
        with self._lock:
            answer = self._next.setdefault(key, Future())
        with self._turns[hash(key) % NUM_TURNS]:
            if not answer.done():
                with self._lock:
                    del self._next[key]
                try:
                    answer.set_result(self._read(key))
                except Exception as error:  # noqa: BLE001 - it goes to all who asked
                    answer.set_exception(error)
        return answer.result()
