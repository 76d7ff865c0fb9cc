"""The connection to Redis: the scripts on it, and every error of Redis as one of ours.

No command is sent twice: a repeated transition would be another transition.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, Self, TypeVar

import hiredis
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.errors import (
    Conflict,
    ElmyrError,
    IdempotencyClash,
    InvalidInput,
    NotFound,
    StaleToken,
    Unavailable,
    UnsafeStore,
)
from shared.queue.keys import QueueKeys
from shared.queue.scripts import sources
from shared.settings import Settings

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0  # a script takes under a millisecond; a disk may stall an fsync for seconds
RETRY_AFTER_S = 2.0  # a restart of Redis takes about this long
FRESH_S = 0.5  # a connection that was idle no longer is not looked at: a look costs 6 us

# What a script may refuse; lua/preamble.lua: refuse().
_REFUSALS: dict[str, type[ElmyrError]] = {
    error.code: error
    for error in (Conflict, IdempotencyClash, InvalidInput, NotFound, StaleToken, Unavailable)
}
# Redis is there but takes no writes now: full, disk full, failing over, or a script runs.
_BUSY = ("OOM ", "MISCONF ", "READONLY ", "NOREPLICAS ", "CLUSTERDOWN ", "MASTERDOWN ", "BUSY ")

_OPTIONS: dict[str, Any] = {
    "decode_responses": True,
    "protocol": 2,  # the shapes of answers below are RESP2's
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
}

T = TypeVar("T")


class Connection:
    """Connections to the Redis server of one queue; threads may share them, a fork never."""

    def __init__(
        self, url: str, queue_name: str, *, answer_timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        self._url = url
        self._answer_timeout_s = answer_timeout_s
        self.keys = QueueKeys(queue_name)
        self.client = redis.Redis.from_url(
            url, **_OPTIONS, retry=Retry(NoBackoff(), 0), socket_timeout=answer_timeout_s
        )
        self._idle: list[tuple[redis.Connection, float]] = []
        """Connections that are open, and when each was used last."""
        self._scripts = {
            name: (hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(), source)
            for name, source in sources().items()
        }

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.redis_url.get_secret_value(), settings.queue_name)

    def run(self, script: str, *args: str | float, keys: Sequence[str] = ()) -> Any:
        """Run a script of lua/ in one round trip; raises what it refuses as our error."""
        return self.run_while(_nothing, script, *args, keys=keys)[0]

    def run_while(
        self, work: Callable[[], T], script: str, *args: str | float, keys: Sequence[str] = ()
    ) -> tuple[Any, T]:
        """Run a script, and `work` while Redis is at it: work that would do no harm twice."""
        digest, source = self._scripts[script]
        operands = (len(keys) + 1, self.keys.prefix, *keys, *args)
        try:
            try:
                return self._evaluate(work, "EVALSHA", digest, *operands)
            except redis.exceptions.NoScriptError:
                return self._evaluate(work, "EVAL", source, *operands)
        except redis.RedisError as error:
            _raise_ours(error)

    def _evaluate(self, work: Callable[[], T], *command: str | float) -> tuple[Any, T]:
        """The client's own way here costs 60 us of a submit's 430."""
        connection = self._idle_connection()
        try:
            # hiredis's stubs know tuples of one item only.
            packed = hiredis.pack_command(command)  # type: ignore[arg-type]
            connection.send_packed_command([packed])  # type: ignore[no-untyped-call]
            worked = work()
            return connection.read_response(), worked
        except redis.ResponseError:
            raise  # an answer as good as any
        except BaseException:
            # Its answer would be taken for the next command's.
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise
        finally:
            if connection.is_connected:
                self._idle.append((connection, time.monotonic()))
            else:
                self.client.connection_pool.release(connection)

    def _idle_connection(self) -> redis.Connection:
        """One that nobody uses and the server has not closed; it stays the pool's."""
        while True:
            try:
                connection, used_at = self._idle.pop()
            except IndexError:
                return self.client.connection_pool.get_connection()
            if time.monotonic() - used_at < FRESH_S:
                return connection
            with suppress(redis.ConnectionError, redis.TimeoutError, OSError):
                if not connection.can_read(0):
                    return connection
            self.client.connection_pool.release(connection)

    def open_async(self, *, block_s: float) -> redis.asyncio.Redis:
        """A client of its own for the running event loop, for commands that block so long."""
        return redis.asyncio.Redis.from_url(
            self._url,
            **_OPTIONS,
            retry=AsyncRetry(NoBackoff(), 0),
            socket_timeout=block_s + self._answer_timeout_s,
        )

    def check_server(self) -> None:
        """Raises UnsafeStore when this server may lose what it has acknowledged."""
        with redis_errors():
            info = self.client.info()
        version = str(info["redis_version"])
        if tuple(map(int, version.split(".")[:2])) < (6, 2):
            raise UnsafeStore(f"Redis {version} is too old: 6.2 or newer is needed")
        if not info["aof_enabled"]:
            raise UnsafeStore("Redis would forget jobs at a crash: set `appendonly yes`")
        if (policy := info["maxmemory_policy"]) != "noeviction":
            raise UnsafeStore(
                f"Redis may evict jobs (maxmemory-policy {policy}): set `maxmemory-policy "
                "noeviction`"
            )


def _nothing() -> None:
    """The work beside a script that has none."""


@contextmanager
def redis_errors() -> Iterator[None]:
    """The one place where an error of Redis becomes one of ours."""
    try:
        yield
    except redis.RedisError as error:
        _raise_ours(error)


def _raise_ours(error: redis.RedisError) -> NoReturn:
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        raise Unavailable(
            f"Redis does not answer ({error}): try again", retry_after_s=RETRY_AFTER_S
        ) from error
    # redis-py takes the codes that it knows off the message.
    if isinstance(error, redis.ResponseError) and (
        refused := _refusal(f"{error.status_code or ''} {error}".strip())
    ):
        raise refused from error
    raise error


def _refusal(message: str) -> ElmyrError | None:
    """What an error reply means, or None for a defect of ours."""
    code, _, detail = message.partition(" ")
    if code in _REFUSALS:
        error = _REFUSALS[code]
        retry_after_s = RETRY_AFTER_S if issubclass(error, Unavailable) else None
        return error(detail, retry_after_s=retry_after_s)
    if any(word in message for word in _BUSY):
        return Unavailable(
            f"Redis takes no writes now ({message}): try again", retry_after_s=RETRY_AFTER_S
        )
    return None
