"""What does not work now: told once, then tried again with growing pauses, until it works again.

It does not know what is tried. Safe to share between threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from shared.errors import TooMany, Unavailable, UnsafeStore

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0

log = structlog.get_logger()


@dataclass
class _Outage:
    since: float
    pause_s: float
    retry_at: float


class Outages:
    """A dispatcher outlives every part that it stands on: Redis, S3, Ray, Serve."""

    def __init__(self) -> None:
        self._outages: dict[str, _Outage] = {}

    def may_try(self, what: str) -> bool:
        """Whether this works, as far as is known, or its pause is over."""
        outage = self._outages.get(what)
        return outage is None or time.monotonic() >= outage.retry_at

    def survive(self, what: str, step: Callable[[], object]) -> bool:
        """Do it, unless it pauses; returns whether it was done.

        Only what passes is survived (Unavailable, TooMany): not an UnsafeStore, not a defect.
        """
        if not self.may_try(what):
            return False
        try:
            step()
        except UnsafeStore:
            raise
        except (Unavailable, TooMany) as error:
            self._note(what, error)
            return False
        if outage := self._outages.pop(what, None):
            log.info("works again", what=what, after_s=round(time.monotonic() - outage.since, 1))
        return True

    def _note(self, what: str, error: Unavailable | TooMany) -> None:
        now = time.monotonic()
        outage = self._outages.get(what)
        if outage is None:
            log.warning("does not work for now", what=what, error=str(error))
            outage = self._outages[what] = _Outage(now, FIRST_PAUSE_S, now)
        outage.retry_at = now + outage.pause_s
        outage.pause_s = min(2 * outage.pause_s, MAX_PAUSE_S)
