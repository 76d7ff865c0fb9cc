"""What the tests stand on: a real Redis and a real S3, started once a session on loopback.

Each test gets a queue name and a bucket of its own, so that no test sees what another left.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr

from services.local.servers import S3Server, start_redis, start_s3
from services.local.stack import start_detached, stop
from services.local.state import StackState
from shared.queue.events import EventLog
from shared.queue.jobs import JobQueue
from shared.settings import ClientSettings, Settings
from shared.storage.objects import ObjectStore

# Derandomised: a run of the tests must not fail by chance. Fixtures of this file may be shared by
# the examples of one test, since each example makes jobs of its own.
hypothesis_settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
hypothesis_settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--elsewhere", action="store_true", help="test the system that ELMYR_URL and others name"
    )


def pytest_configure() -> None:
    """SIGTERM (a time-out from outside) unwinds like Ctrl-C, so that fixtures end their servers. A
    shell that starts us in the background has SIGINT ignored: children would ignore it, too."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL, with its password, of a Redis that lives as long as the session."""
    with start_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server (endpoint and keys) that lives as long as the session."""
    with start_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def settings(redis_url: str, s3: S3Server) -> Settings:
    """Settings with a queue name and a bucket of this test's own; the bucket is not made yet."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    return Settings(
        redis_url=SecretStr(redis_url),
        queue_name=name,
        s3_endpoint=s3.endpoint,
        s3_access_key=SecretStr(s3.access_key),
        s3_secret_key=SecretStr(s3.secret_key),
        s3_bucket=name,
    )


@pytest.fixture
def object_store(settings: Settings) -> ObjectStore:
    """A store over this test's own, empty bucket."""
    store = ObjectStore.from_settings(settings)
    store.ensure_bucket()
    return store


@pytest.fixture
def job_queue(settings: Settings) -> JobQueue:
    """This test's own, empty queue."""
    return JobQueue.from_settings(settings)


@pytest.fixture
def event_log(settings: Settings) -> EventLog:
    """The event log of this test's own queue."""
    return EventLog.from_settings(settings)


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StackState]:
    """A whole running stack: Redis, S3, Ray, Serve, API and dispatcher, as `elmyr up` starts it.

    The state has the addresses, the key and each part's process id at the start; `status` of its
    data folder gives the present ones. With --elsewhere it is the one that ELMYR_URL,
    ELMYR_SERVE_URL and ELMYR_API_KEY name, of which only the addresses and the key are known:
    enough for what speaks HTTP alone.
    """
    data_dir = tmp_path_factory.mktemp("stack")
    if request.config.getoption("--elsewhere"):
        elsewhere = ClientSettings()
        assert elsewhere.url
        assert elsewhere.serve_url
        assert elsewhere.api_key
        yield StackState(
            state="running",
            api_url=elsewhere.url,
            serve_url=elsewhere.serve_url,
            dashboard_url="",
            api_key=elsewhere.api_key.get_secret_value(),
            data_dir=data_dir,
            stack_id="",
        )
        return
    try:
        yield start_detached(data_dir)
    finally:
        stop(data_dir)
