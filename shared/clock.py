"""Wall-clock time as the API shows it. Leases never use it: they run on Redis's clock."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The current time, in UTC, with its zone."""
    return datetime.now(UTC)
