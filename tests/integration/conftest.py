"""The API of the test's own queue and bucket, and a client that has its key."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

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
