"""The data folder: who holds it, and files in it that only its owner may read."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import Conflict

LOCK_FILE = "lock"


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
    with (data_dir / LOCK_FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"a stack already runs on {data_dir}: see `elmyr status`") from error
        yield


def is_held(data_dir: Path) -> bool:
    """Whether a stack runs on this folder."""
    if not (data_dir / LOCK_FILE).exists():
        return False
    try:
        with held(data_dir):
            return False
    except Conflict:
        return True
