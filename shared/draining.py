"""A node that goes away (a spot machine, `kubectl drain`) tells those at work on it, by one file.

Whoever works holds a shared lock on it; whoever drains the node writes into it and waits until the
lock is free. The kernel frees the locks of the dead. What the work is, is not known here.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.2


@contextmanager
def at_work(drain_file: Path | None) -> Iterator[None]:
    """Hold a drain up, within the block. None: nobody drains here."""
    lock = at_work_for_life(drain_file)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def at_work_for_life(drain_file: Path | None) -> int | None:
    """Hold a drain up until this process has ended, or closes the file descriptor."""
    if drain_file is None:
        return None
    lock = os.open(drain_file, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def is_draining(drain_file: Path | None) -> bool:
    """Whether this node goes away."""
    return drain_file is not None and drain_file.exists() and drain_file.stat().st_size > 0


def drain(drain_file: Path, *, patience_s: float) -> bool:
    """Tell those at work, and wait until none is left; returns whether that came true in time."""
    deadline = time.monotonic() + patience_s
    with drain_file.open("ab") as file:
        file.write(b"draining\n")
        file.flush()
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(POLL_S)
            else:
                return True
    return False
