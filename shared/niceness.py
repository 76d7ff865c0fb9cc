"""Who goes first where processors are short: online requests, then all other work."""

from __future__ import annotations

import os

BACKGROUND_NICENESS = 10


def yield_to_requests() -> None:
    """Make the calling thread, and threads that it starts from now on, background work.

    On Linux niceness is the thread's own: others of the process answer as before.
    """
    niceness = max(os.getpriority(os.PRIO_PROCESS, 0), BACKGROUND_NICENESS)
    os.setpriority(os.PRIO_PROCESS, 0, niceness)
