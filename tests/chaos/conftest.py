"""A client of the stack on which there is something to train on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.client import Client
from services.local.state import StackState
from tests.roads import DATASET, push_squares


@pytest.fixture(scope="session")
def client(stack: StackState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with Client(data_dir=stack.data_dir) as client:
        if DATASET not in {dataset.name for dataset in client.datasets()}:
            push_squares(client, tmp_path_factory.mktemp("upload"))
        yield client
