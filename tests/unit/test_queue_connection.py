"""Key names and the meaning of Redis's errors, without a Redis."""

from __future__ import annotations

import pytest
import redis

from shared.errors import ElmyrError, IdempotencyClash, NotFound, StaleToken, Unavailable
from shared.queue.connection import redis_errors
from shared.queue.keys import NAMES, QueueKeys


def test_every_key_of_a_queue_has_its_hash_tag() -> None:
    keys = QueueKeys("elmyr")
    for name, pattern in NAMES.items():
        assert keys.key(name, *["x"] * pattern.count("%s")).startswith("{elmyr}:")


def test_no_two_names_make_the_same_key() -> None:
    assert len({pattern % ("x",) if "%" in pattern else pattern for pattern in NAMES.values()}) == (
        len(NAMES)
    )


@pytest.mark.parametrize(
    ("reply", "error", "detail"),
    [
        ("NOT_FOUND there is no job x", NotFound, "there is no job x"),
        ("STALE_TOKEN attempt 1 must stop", StaleToken, "attempt 1 must stop"),
        ("IDEMPOTENCY_CLASH another body", IdempotencyClash, "another body"),
        ("UNAVAILABLE the queue is full", Unavailable, "the queue is full"),
        ("MISCONF Errors writing to the AOF file", Unavailable, "takes no writes"),
        ("BUSY Redis is busy running a script", Unavailable, "takes no writes"),
        (
            "ERR Error running script: @user_script: 9: -OOM command not allowed",
            Unavailable,
            "takes no writes",
        ),
    ],
)
def test_an_error_reply_becomes_our_error(reply: str, error: type[ElmyrError], detail: str) -> None:
    with pytest.raises(error, match=detail) as caught, redis_errors():
        raise redis.ResponseError(reply)
    assert (caught.value.retry_after_s is not None) == issubclass(error, Unavailable)


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("Connection refused"),
        redis.TimeoutError("Timeout reading from socket"),
        redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
        redis.ReadOnlyError("You can't write against a read only replica", status_code="READONLY"),
        redis.OutOfMemoryError("command not allowed", status_code="OOM"),
    ],
)
def test_a_redis_that_is_away_is_unavailable(error: redis.RedisError) -> None:
    with pytest.raises(Unavailable) as caught, redis_errors():
        raise error
    assert caught.value.retry_after_s


def test_a_defect_of_ours_is_not_hidden() -> None:
    with pytest.raises(redis.ResponseError, match="no transition"), redis_errors():
        raise redis.ResponseError("ERR no transition from succeeded to running")
