"""The composed system that `python -m tests.compose` has started; without it, nothing to test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.client import Client
from services.local.state import StackState
from shared.settings import inherited_environment
from tests.compose.system import System


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    found = inherited_environment({})
    if "COMPOSE_PROJECT_NAME" not in found:
        pytest.skip("NOT TESTED: no composed system; `make compose-test` starts one")
    return found


@pytest.fixture(scope="session")
def system(environment: dict[str, str]) -> System:
    del environment
    return System({})


@pytest.fixture(scope="session")
def client(stack: StackState) -> Iterator[Client]:
    with Client(data_dir=stack.data_dir) as client:
        yield client
