"""The road's fixtures: a client of the stack, an upload that was ingested, a training that ran."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.client import Client
from services.local.state import StackState
from shared.schemas.jobs import Job
from tests.roads import push_squares, spec


@pytest.fixture(scope="session")
def client(stack: StackState) -> Iterator[Client]:
    with Client(data_dir=stack.data_dir) as client:
        yield client


@pytest.fixture(scope="session")
def ingested(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The job that took the zip in."""
    return push_squares(client, tmp_path_factory.mktemp("upload"))


@pytest.fixture(scope="session")
def trained(client: Client, ingested: Job) -> Job:
    """A job that trained on two ranks and published shapes@1."""
    del ingested
    return client.wait(client.submit("train", spec()).id, timeout_s=240)
