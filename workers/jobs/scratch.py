"""An attempt's folder for temporary files, and the end of those that killed attempts have left.

An ingest keeps the whole upload there, so what a SIGKILL leaves behind could fill the disk.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "elmyr-attempt-"
NEW_S = 60.0
"""Younger folders may not be held yet."""


@contextmanager
def scratch() -> Iterator[Path]:
    """Temporary files of this process go to a folder that goes with it, killed or not.

    The process holds the folder by a lock, which the kernel lets go of when the process dies: the
    next attempt on this node removes the folder then.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        _remove_if_left(left)
    # The trainer's tear-down may still write there when we leave.
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            with _held(folder):
                yield Path(folder)
        finally:
            tempfile.tempdir = before


def _remove_if_left(folder: Path) -> None:
    # An OSError: it is held, it is another user's, or it went by itself.
    with suppress(OSError):
        if time.time() - folder.stat().st_mtime > NEW_S:
            with _held(folder):
                shutil.rmtree(folder)


@contextmanager
def _held(folder: str | Path) -> Iterator[None]:
    """Raises BlockingIOError while another process holds the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
