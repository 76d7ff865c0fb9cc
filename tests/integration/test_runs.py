"""Claims, HEAD and RESULT in a real store: numbers come once, and a zombie can do no harm."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier
from typing import TypeVar

import pytest

from shared.clock import now
from shared.errors import CorruptObject, IdempotencyClash, StaleToken
from shared.ids import new_job_id
from shared.schemas.jobs import Outcome
from shared.storage import keys
from shared.storage.objects import ObjectStore
from shared.storage.runs import Head, RunResult, RunStore

T = TypeVar("T")


@pytest.fixture
def runs(object_store: ObjectStore) -> RunStore:
    return RunStore(object_store)


@pytest.fixture
def job_id() -> str:
    return new_job_id()


def at_once(num: int, call: Callable[[int], T]) -> list[T]:
    start = Barrier(num)

    def wait_and_call(number: int) -> T:
        start.wait()
        return call(number)

    with ThreadPoolExecutor(num) as pool:
        return list(pool.map(wait_and_call, range(num)))


def test_a_job_is_recorded_once(runs: RunStore, object_store: ObjectStore, job_id: str) -> None:
    runs.record(job_id, b'{"n": 1}')
    runs.record(job_id, b'{"n": 1}')
    with pytest.raises(IdempotencyClash):
        runs.record(job_id, b'{"n": 2}')
    assert object_store.get(keys.job(job_id)) == b'{"n": 1}'


def test_a_number_is_claimed_once(runs: RunStore, job_id: str) -> None:
    numbers = at_once(16, lambda n: runs.claim_attempt(job_id, above=0, nonce=f"n{n}"))
    assert sorted(numbers) == list(range(1, 17))
    again = [runs.claim_attempt(job_id, above=0, nonce=f"n{n}") for n in range(16)]
    assert again == numbers, "the same nonce meets its own claim"


def test_a_number_is_above_what_is_known(runs: RunStore, job_id: str) -> None:
    assert runs.claim_attempt(job_id, above=4, nonce="a") == 5
    runs.take_head(job_id, 8)
    assert runs.claim_attempt(job_id, above=0, nonce="b") == 9, "whatever Redis has forgotten"


def test_head_carries_the_checkpoint_from_attempt_to_attempt(runs: RunStore, job_id: str) -> None:
    assert runs.head(job_id) is None
    assert runs.take_head(job_id, 1) == Head(token=1)
    committed = Head(token=1, checkpoint_key="k/manifest.json", manifest_sha256="ab", kimg=2.5)
    runs.commit_head(job_id, committed)
    runs.commit_head(job_id, committed)
    assert runs.take_head(job_id, 1) == committed
    assert runs.take_head(job_id, 2) == committed.model_copy(update={"token": 2})
    assert runs.head(job_id) == committed.model_copy(update={"token": 2})


def test_a_stale_attempt_cannot_commit(runs: RunStore, job_id: str) -> None:
    with pytest.raises(StaleToken):
        runs.commit_head(job_id, Head(token=1))
    runs.take_head(job_id, 1)
    runs.take_head(job_id, 2)
    with pytest.raises(StaleToken):
        runs.commit_head(job_id, Head(token=1, kimg=9))
    with pytest.raises(StaleToken):
        runs.take_head(job_id, 1)
    with pytest.raises(StaleToken):
        runs.commit_head(job_id, Head(token=3))  # it never took HEAD
    assert runs.head(job_id) == Head(token=2)


def test_of_attempts_that_race_for_head_the_newest_has_it(runs: RunStore, job_id: str) -> None:
    def take(number: int) -> bool:
        try:
            runs.take_head(job_id, number)
        except StaleToken:
            return False
        return True

    assert at_once(16, take)[-1]
    head = runs.head(job_id)
    assert head is not None
    assert head.token == 15


def test_commits_race_with_a_takeover(runs: RunStore, job_id: str) -> None:
    """Attempt 1 commits until it is refused; attempt 2 goes on from the last that succeeded."""
    runs.take_head(job_id, 1)
    committed = [0.0]

    def work(number: int) -> Head | None:
        if number == 1:
            return runs.take_head(job_id, 2)
        for kimg in count(1):
            try:
                runs.commit_head(job_id, Head(token=1, kimg=kimg))
            except StaleToken:
                break
            committed.append(kimg)
        return None

    _, taken = at_once(2, work)
    assert taken is not None
    assert taken.kimg == committed[-1]
    assert runs.head(job_id) == taken


def test_the_first_result_holds(runs: RunStore, job_id: str) -> None:
    assert runs.result(job_id) is None

    def end(number: int) -> RunResult:
        result = RunResult(
            token=number, outcome=Outcome.SUCCEEDED, result={"version": number}, ended_at=now()
        )
        return runs.write_result(job_id, result)

    results = at_once(8, end)
    assert results == [runs.result(job_id)] * 8


def test_a_head_that_cannot_be_read_is_named(
    runs: RunStore, object_store: ObjectStore, job_id: str
) -> None:
    object_store.put(keys.head(job_id), b"{")
    for use in (lambda: runs.head(job_id), lambda: runs.take_head(job_id, 1)):
        with pytest.raises(CorruptObject, match=keys.head(job_id)):
            use()
