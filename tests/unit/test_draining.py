"""A node waits for those at work on it, and for nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.draining import at_work, drain, is_draining

AT_WORK = """
import sys
from pathlib import Path
from shared.draining import at_work_for_life
at_work_for_life(Path(sys.argv[1]))
print("at work", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is at work until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", AT_WORK, tmp_path / "drain"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_nobody_is_waited_for_where_nobody_works(tmp_path: Path) -> None:
    file = tmp_path / "drain"
    with at_work(file):
        assert not is_draining(file)
    assert drain(file, patience_s=5)
    assert is_draining(file)


def test_all_who_work_hold_a_drain_up_and_hear_of_it(tmp_path: Path) -> None:
    file = tmp_path / "drain"
    with at_work(file), at_work(file):
        assert not drain(file, patience_s=0.1)
        assert is_draining(file)


@pytest.mark.parametrize("end", ["leaves", "dies"])
def test_whoever_has_ended_is_not_waited_for(
    worker: subprocess.Popen[str], tmp_path: Path, end: str
) -> None:
    assert not drain(tmp_path / "drain", patience_s=0.1)
    if end == "dies":
        worker.kill()
    worker.communicate()
    assert drain(tmp_path / "drain", patience_s=5)


def test_where_nobody_drains_nothing_is_written() -> None:
    with at_work(None):
        assert not is_draining(None)
