"""What the queue says and keeps when its Redis is unfit, full, frozen, killed or away."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from services.local.servers import Server, start_redis
from shared.errors import Unavailable, UnsafeStore
from shared.queue.connection import FRESH_S, Connection
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.schemas.events import EventType
from shared.schemas.jobs import JobKind, JobState, JobSubmission, Outcome

SUBMISSION = JobSubmission(kind=JobKind.TRAIN, spec={})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Redis of this test's own, which it may break."""
    with start_redis(tmp_path) as server:
        yield server


@pytest.fixture
def connection(server: Server) -> Connection:
    return Connection(server.url, "faults")


@pytest.fixture
def queue(connection: Connection) -> JobQueue:
    return JobQueue(connection, max_queued_jobs=1000, retry_base_s=0, retry_max_s=0)


def test_a_server_that_may_forget_is_refused(queue: JobQueue, connection: Connection) -> None:
    queue.check_server()
    connection.client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(UnsafeStore, match=r"may evict jobs .*allkeys-lru.*set `maxmemory-policy"):
        queue.check_server()
    connection.client.config_set("maxmemory-policy", "noeviction")
    connection.client.config_set("appendonly", "no")
    with pytest.raises(UnsafeStore, match="set `appendonly yes`"):
        queue.check_server()


def test_a_full_server_takes_no_new_work_but_lets_work_end(
    queue: JobQueue, connection: Connection
) -> None:
    for name in ("runs", "waits"):
        queue.submit(name, SUBMISSION, owner="user")
    queue.lease("runs", owner="dispatcher", ttl_s=60)
    queue.begin("runs", owner="dispatcher", number=1)
    connection.client.config_set("maxmemory", "1")
    with pytest.raises(Unavailable, match="takes no writes now") as caught:
        queue.submit("new", SUBMISSION, owner="user")
    assert caught.value.retry_after_s
    with pytest.raises(Unavailable):
        EventLog(connection).append("runs", EventType.LOG, {"line": "x"}, token=1)
    assert queue.renew(["runs"], owner="dispatcher", ttl_s=60) == {"runs"}
    assert queue.heartbeat("runs", 1) is None
    assert queue.finish("runs", 1, Outcome.SUCCEEDED).state is JobState.SUCCEEDED
    assert queue.cancel("waits").state is JobState.CANCELED
    connection.client.config_set("maxmemory", "0")
    assert queue.submit("new", SUBMISSION, owner="user")[1]


def test_a_killed_server_loses_nothing_that_it_answered(
    queue: JobQueue, server: Server, tmp_path: Path
) -> None:
    queue.submit("job-a", SUBMISSION, owner="user")
    job = queue.lease("job-a", owner="dispatcher", ttl_s=60)
    assert job is not None
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    for call in (queue.ping, queue.counts, queue.active, queue.ready, queue.list):
        with pytest.raises(Unavailable, match="Redis does not answer") as caught:
            call()
        assert caught.value.retry_after_s
    with pytest.raises(Unavailable):
        queue.wait_for_work(10)
    with start_redis(tmp_path, server.port, password=_password(server)):
        assert queue.get("job-a") == job
        assert queue.begin("job-a", owner="dispatcher", number=1).token == 1


def test_whoever_follows_hears_that_the_server_went(
    queue: JobQueue, connection: Connection, server: Server
) -> None:
    queue.submit("job-a", SUBMISSION, owner="user")

    async def follow() -> None:
        async for _ in EventLog(connection).follow("job-a"):
            await asyncio.to_thread(server.stop)

    with pytest.raises(Unavailable):
        asyncio.run(asyncio.wait_for(follow(), 60))


def test_what_the_server_has_closed_is_not_used(queue: JobQueue, server: Server) -> None:
    for name in ("first", "second"):
        queue.submit(name, SUBMISSION, owner="user")
        with redis.Redis.from_url(server.url) as other:
            other.client_kill_filter(_type="normal", skipme=True)  # an idle time, a failover
        time.sleep(FRESH_S)
    assert queue.get("second").state is JobState.QUEUED


def test_an_answer_that_was_not_waited_for_is_not_the_next_ones(
    queue: JobQueue, connection: Connection
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for name in ("first", "second"):
        queue.submit(name, SUBMISSION, owner="user")
    with pytest.raises(KeyboardInterrupt):
        connection.run_while(interrupt, "get", "first")
    assert queue.get("second").id == "second"


def test_a_frozen_server_is_not_waited_for(server: Server) -> None:
    connection = Connection(server.url, "faults", answer_timeout_s=0.5)
    with connection.client:
        queue = JobQueue(connection, max_queued_jobs=10, retry_base_s=0, retry_max_s=0)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match="Redis does not answer"):
                queue.ping()
        finally:
            os.kill(server.pid, signal.SIGCONT)


def _password(server: Server) -> str:
    return server.url.split("@")[0].rpartition(":")[2]
