"""Whose process is whose: what a stack ends, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator

import psutil
import pytest

from services.local.marks import end_marked, interrupt, mark, marked, memory_bytes

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
PARENT_OF_UNMARKED = (
    f'import subprocess, sys; subprocess.Popen([sys.executable, "-c", {SLEEP!r}], env={{}}).wait()'
)


class Processes:
    """Marked processes of a test; all of them are ended with it."""

    def __init__(self) -> None:
        self.stack_id = uuid.uuid4().hex
        self._started: list[subprocess.Popen[str]] = []

    def start(self, code: str, part: str, *words: str, stack_id: str = "") -> psutil.Process:
        """Start one in a session of its own, and wait until it is up."""
        child = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env=mark(stack_id or self.stack_id, part),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        return psutil.Process(child.pid)

    def end(self) -> None:
        end_marked(self.stack_id, grace_s=0.1)
        for child in self._started:
            child.kill()
            child.communicate()


@pytest.fixture
def processes() -> Iterator[Processes]:
    processes = Processes()
    yield processes
    processes.end()


def test_only_the_processes_of_the_part_are_ended(processes: Processes) -> None:
    ours = processes.start(SLEEP, "ray")
    other_part = processes.start(SLEEP, "redis")
    other_stack = processes.start(SLEEP, "ray", stack_id=uuid.uuid4().hex)
    assert end_marked(processes.stack_id, "ray") == 1
    assert not ours.is_running()
    assert other_part.is_running()
    assert other_stack.is_running()


def test_a_process_that_ignores_sigterm_is_killed(processes: Processes) -> None:
    deaf = processes.start(DEAF, "ray")
    end_marked(processes.stack_id, grace_s=0.2)
    assert not deaf.is_running()


def test_a_child_without_the_mark_is_found_by_its_session(processes: Processes) -> None:
    parent = processes.start(PARENT_OF_UNMARKED, "ray")
    (child,) = parent.children()
    assert {process.pid for process in marked(processes.stack_id)} == {parent.pid, child.pid}
    assert end_marked(processes.stack_id) == 2
    assert not child.is_running()


def test_interrupt_reaches_the_named_processes_only(processes: Processes) -> None:
    attempt = processes.start(SLEEP, "ray", "workers.attempt")
    other = processes.start(SLEEP, "ray")
    interrupt(processes.stack_id, "workers.attempt", grace_s=10)
    assert not attempt.is_running()
    assert other.is_running()


def test_memory_is_told_by_part(processes: Processes) -> None:
    processes.start(SLEEP, "ray")
    processes.start(SLEEP, "redis")
    shares = memory_bytes(processes.stack_id)
    assert set(shares) == {"ray", "redis"}
    assert all(share > 0 for share in shares.values())
