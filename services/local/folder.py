"""The data folder: which process holds it, and files in it that only its owner may read."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import Conflict

LOCK_FILE = "lock"
LOCK_S = 0.5
"""Longer than `holder` looks at a lock: a look must not make a start fail."""


def made(directory: Path) -> Path:
    """The directory as an absolute path, made if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    return directory.resolve()


def write_secret(path: Path, text: str) -> Path:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text)
    return draft.replace(path)


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Hold the folder for one stack; the lock ends with the process, however it ends.

    Raises Conflict when another process holds it.
    """
    deadline = time.monotonic() + LOCK_S
    with (data_dir / LOCK_FILE).open("a") as lock:
        while not _try_lock(lock.fileno()):
            if time.monotonic() > deadline:
                raise Conflict(f"a stack already runs on {data_dir}: see `elmyr status`")
            time.sleep(0.05)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def holder(data_dir: Path) -> int | None:
    """The id of the process that runs a stack on this folder; None when there is none."""
    path = data_dir / LOCK_FILE
    if not path.exists():
        return None
    with path.open() as lock:
        while not _try_lock(lock.fileno()):
            if pid := lock.read():
                return int(pid)
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
