"""One read for many: how often the store is asked, and that no answer is older than a question."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from services.api.coalescing import Coalesced
from shared.errors import NotFound

NUM_THREADS = 8
PATIENCE_S = 30


class Store:
    """Each of its reads waits until it is let go, and answers which it was."""

    def __init__(self) -> None:
        self.begun = 0
        self.let_go = threading.Semaphore(0)

    def read(self, key: str) -> int:
        self.begun += 1
        number = self.begun
        assert self.let_go.acquire(timeout=PATIENCE_S)
        if key == "missing":
            raise NotFound("there is nothing")
        return number


class Key(str):
    """Tells who has joined a read: it is hashed to look the answer up, and again to take turns."""

    def __init__(self, _: str) -> None:
        self.hashed: Counter[int] = Counter()

    def __hash__(self) -> int:
        self.hashed[threading.get_ident()] += 1
        return super().__hash__()

    def num_joined(self) -> int:
        return sum(times >= 2 for times in list(self.hashed.values()))


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        yield pool


def ask_together(store: Store, key: Key, pool: ThreadPoolExecutor) -> list[Future[int]]:
    """One thread whose read is under way, and then all others, which ask for the same."""
    read = Coalesced(store.read)
    futures = [pool.submit(read, key)]
    wait_until(lambda: store.begun == 1)
    futures += [pool.submit(read, key) for _ in range(NUM_THREADS - 1)]
    wait_until(lambda: key.num_joined() == NUM_THREADS)
    return futures


def test_those_who_come_during_a_read_share_the_next(pool: ThreadPoolExecutor) -> None:
    store = Store()
    futures = ask_together(store, Key("garments"), pool)
    store.let_go.release(2)
    assert [future.result(PATIENCE_S) for future in futures] == [1] + [2] * (NUM_THREADS - 1)
    assert store.begun == 2


def test_an_error_is_everybodys_and_the_next_read_is_new(pool: ThreadPoolExecutor) -> None:
    store = Store()
    futures = ask_together(store, Key("missing"), pool)
    store.let_go.release(2)
    for future in futures:
        with pytest.raises(NotFound):
            future.result(PATIENCE_S)
    assert store.begun == 2


def test_one_after_the_other_each_reads_for_itself() -> None:
    store = Store()
    store.let_go.release(3)
    read = Coalesced(store.read)
    assert [read(key) for key in ("garments", "garments", "shoes")] == [1, 2, 3]
