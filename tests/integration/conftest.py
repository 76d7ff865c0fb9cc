"""The API of the test's own queue and bucket with a client that has its key; a queue by itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import httpx2
import pytest

from shared.queue.connection import Connection
from shared.queue.jobs import JobQueue
from shared.settings import Settings
from tests.live import KEY, Live, live_api


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    """A running API. A test file that needs other settings has a fixture of this name."""
    with live_api(settings) as live:
        yield live


@pytest.fixture
def http(live: Live) -> Iterator[httpx2.Client]:
    with httpx2.Client(
        base_url=live.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60
    ) as client:
        yield client


@pytest.fixture
def connection(redis_url: str) -> Connection:
    return Connection(redis_url, f"jobs-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def queue(connection: Connection) -> JobQueue:
    """A queue of this test's own that retries at once."""
    return JobQueue(connection, max_queued_jobs=50, retry_base_s=0, retry_max_s=0)
