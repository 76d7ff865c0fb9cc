"""How a stack starts, watches and stops its parts, shown with the two quick ones: Redis and S3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from services.local.folder import holder
from services.local.identity import load_identity
from services.local.marks import marked
from services.local.stack import status, stop
from services.local.state import StackState, load_state
from shared.errors import NotFound
from shared.ids import new_job_id
from shared.queue.jobs import JobQueue
from shared.schemas.jobs import JobKind, JobSubmission
from shared.settings import Settings
from shared.storage.objects import ObjectStore


def until(condition: Callable[[], bool], *, timeout_s: float = 60) -> None:
    """Wait for a condition; AssertionError when it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


class Supervisor:
    """`elmyr up` with two parts only, as a process that a test may kill."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> StackState:
        self.spawn()
        until(self.is_running)
        return status(self.data_dir)

    def spawn(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.local", self.data_dir, "redis", "s3"],
            stderr=subprocess.PIPE,
            text=True,
        )
        return self._process

    def is_running(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._process.communicate()[1]
        state = load_state(self.data_dir)
        return state is not None and (state.supervisor_pid, state.state) == (
            self._process.pid,
            "running",
        )

    def end(self, number: int = signal.SIGTERM) -> str:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.communicate(timeout=60)[1]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "data")
    yield supervisor
    stop(supervisor.data_dir)


def settings_of(data_dir: Path) -> Settings:
    identity = load_identity(data_dir)
    return Settings(
        redis_url=SecretStr(
            f"redis://:{identity.redis_password}@127.0.0.1:{identity.ports['redis']}/0"
        ),
        s3_endpoint=f"127.0.0.1:{identity.ports['s3']}",
        s3_access_key=SecretStr(identity.s3_access_key),
        s3_secret_key=SecretStr(identity.s3_secret_key),
    )


def assert_nothing_left(data_dir: Path) -> None:
    assert marked(load_identity(data_dir).stack_id) == []
    assert holder(data_dir) is None
    with pytest.raises(NotFound):
        status(data_dir)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_parts(supervisor: Supervisor, number: int) -> None:
    state = supervisor.start()
    assert [part.state for part in state.parts] == ["running", "running"]
    progress = supervisor.end(number)
    assert progress.index("ready    redis") < progress.index("ready    s3")
    assert progress.index("stopped  s3") < progress.index("stopped  redis")
    assert_nothing_left(supervisor.data_dir)


def test_a_restart_keeps_identity_and_ports(supervisor: Supervisor) -> None:
    before = supervisor.start()
    supervisor.end()
    after = supervisor.start()
    assert after.api_key == before.api_key
    assert after.api_url == before.api_url
    ports = load_identity(supervisor.data_dir).ports
    supervisor.end()
    assert load_identity(supervisor.data_dir).ports == ports


def test_a_restart_goes_on_with_the_old_data(supervisor: Supervisor) -> None:
    supervisor.start()
    settings = settings_of(supervisor.data_dir)
    ObjectStore.from_settings(settings).put("a/b", b"kept")
    job_id = new_job_id()
    submission = JobSubmission(kind=JobKind.TRAIN, spec={})
    JobQueue.from_settings(settings).submit(job_id, submission, owner="somebody")
    supervisor.end(signal.SIGKILL)
    supervisor.start()
    settings = settings_of(supervisor.data_dir)
    assert ObjectStore.from_settings(settings).get("a/b") == b"kept"
    assert JobQueue.from_settings(settings).get(job_id).owner == "somebody"


def test_a_killed_supervisor_leaves_nothing_behind(supervisor: Supervisor) -> None:
    state = supervisor.start()
    supervisor.end(signal.SIGKILL)
    assert len(marked(state.stack_id)) == 2
    assert status(supervisor.data_dir).state == "stopped"
    stop(supervisor.data_dir)
    assert_nothing_left(supervisor.data_dir)


def test_a_new_start_replaces_what_a_killed_supervisor_left(supervisor: Supervisor) -> None:
    before = supervisor.start()
    supervisor.end(signal.SIGKILL)
    after = supervisor.start()
    old, new = ({part.pid for part in state.parts} for state in (before, after))
    assert not old & {process.pid for process in marked(after.stack_id)}
    assert new == {process.pid for process in marked(after.stack_id)}


def test_a_dead_part_is_named_and_started_again_while_the_others_go_on(
    supervisor: Supervisor,
) -> None:
    before = supervisor.start()
    redis = before.part("redis").pid
    assert redis is not None
    os.kill(redis, signal.SIGKILL)
    until(lambda: status(supervisor.data_dir).part("redis").pid not in (None, redis))
    after = status(supervisor.data_dir)
    assert after.part("s3").pid == before.part("s3").pid
    assert "redis ended with code -9; the end of" in supervisor.end()


def sockets_of(pid: int) -> set[str]:
    """The files of the UNIX sockets on which a process listens."""
    return {entry.laddr for entry in psutil.Process(pid).net_connections(kind="unix")} - {""}


def test_a_dead_part_leaves_no_sockets_behind_its_successor(supervisor: Supervisor) -> None:
    s3 = supervisor.start().part("s3").pid
    assert s3 is not None
    until(lambda: len(sockets_of(s3)) >= 4)  # opened one after the other
    old = sockets_of(s3)
    os.kill(s3, signal.SIGKILL)
    until(lambda: status(supervisor.data_dir).part("s3").pid not in (None, s3))
    new = status(supervisor.data_dir).part("s3").pid
    assert new is not None
    # Its port, and so the names of two of them, are those of before; the others are new.
    until(lambda: not any(Path(name).exists() for name in old - sockets_of(new)))


def test_a_second_stack_on_the_folder_is_refused(supervisor: Supervisor) -> None:
    supervisor.start()
    second = Supervisor(supervisor.data_dir).spawn()
    assert "a stack already runs on" in second.communicate(timeout=30)[1]
    assert second.returncode == 1
    assert supervisor.is_running()


def test_two_stacks_live_on_one_machine(supervisor: Supervisor, tmp_path: Path) -> None:
    other = Supervisor(tmp_path / "other")
    first = supervisor.start()
    try:
        second = other.start()
        assert second.api_url != first.api_url
        other.end()
        assert supervisor.is_running()
        assert all(psutil.pid_exists(part.pid) for part in first.parts if part.pid)
    finally:
        stop(other.data_dir)


def test_a_part_that_does_not_start_is_named_with_the_end_of_its_log(
    supervisor: Supervisor,
) -> None:
    (supervisor.data_dir / "redis").mkdir(parents=True)
    (supervisor.data_dir / "redis" / "appendonly.aof").write_text("not a log of commands\n" * 9)
    process = supervisor.spawn()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "error: redis ended with code 1; the end of" in error
    assert "Bad file format reading the append only file" in error
    assert_nothing_left(supervisor.data_dir)


def test_a_stack_of_the_user_is_used_instead_of_ours(
    supervisor: Supervisor, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELMYR_REDIS_URL", redis_url)
    state = supervisor.start()
    assert state.part("redis").state == "external"
    assert state.part("redis").pid is None
    assert len(marked(state.stack_id)) == 1


def test_stop_without_a_stack_is_no_error(tmp_path: Path) -> None:
    stop(tmp_path)
