"""The whole embedded stack as `elmyr up --detach` starts it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import pytest

from services.local.marks import marked
from services.local.stack import start_detached, status
from services.local.state import StackState
from shared.errors import Conflict
from tests.roads import open_to_others

GIB = 2**30


def until(condition: Callable[[], bool], *, timeout_s: float = 120) -> None:
    """Wait for a condition; AssertionError when it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_all_parts_run_and_their_addresses_answer(stack: StackState) -> None:
    now = status(stack.data_dir)
    assert now.state == "running"
    assert [(part.name, part.state) for part in now.parts] == [
        (name, "running") for name in ("redis", "s3", "ray", "serve", "api", "dispatcher")
    ]
    assert httpx2.get(f"{now.api_url}/readyz").status_code == 200
    assert httpx2.get(f"{now.serve_url}/readyz").status_code == 200
    key = {"Authorization": f"Bearer {now.api_key}"}
    assert httpx2.get(f"{now.api_url}/v1/jobs").status_code == 401
    assert httpx2.get(f"{now.api_url}/v1/jobs", headers=key).status_code == 200


def test_nothing_listens_beyond_loopback(stack: StackState) -> None:
    processes = marked(stack.stack_id)
    assert len(processes) > len(stack.parts)
    assert [address for process in processes for address in open_to_others(process)] == []


def test_ray_refuses_who_has_no_token(stack: StackState) -> None:
    jobs = f"{stack.dashboard_url}/api/jobs/"
    assert httpx2.get(jobs).status_code == 401
    assert httpx2.get(jobs, headers={"Authorization": "Bearer guess"}).status_code == 403


def test_at_rest_the_stack_takes_less_than_3_gib(stack: StackState) -> None:
    shares = {part.name: part.memory_bytes or 0 for part in status(stack.data_dir).parts}
    assert sum(shares.values()) < 3 * GIB, shares


def test_secrets_stay_with_their_owner(stack: StackState) -> None:
    for name in ("stack.json", "identity.json", "ray/token", "redis/redis.conf", "s3/s3.json"):
        assert (stack.data_dir / name).stat().st_mode & 0o077 == 0, name
    for process in marked(stack.stack_id):
        try:
            seen = " ".join([*process.cmdline(), *process.environ().values()])
        except psutil.Error:
            continue  # ended meanwhile
        assert stack.api_key not in seen


def test_a_second_stack_on_the_folder_is_refused(stack: StackState) -> None:
    with pytest.raises(Conflict, match="already runs"):
        start_detached(stack.data_dir)


@pytest.mark.parametrize("name", ["api", "dispatcher"])
def test_a_killed_service_is_started_again(stack: StackState, name: str) -> None:
    before = status(stack.data_dir)
    killed = before.part(name).pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)

    def is_back() -> bool:
        part = status(stack.data_dir).part(name)
        return part.state == "running" and part.pid != killed

    until(is_back)
    for part in status(stack.data_dir).parts:
        assert part.name == name or part.pid == before.part(part.name).pid
    assert httpx2.get(f"{stack.api_url}/readyz").status_code == 200


def test_a_killed_ray_comes_back_with_serve(stack: StackState) -> None:
    killed = status(stack.data_dir).part("ray").pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)

    def is_back() -> bool:
        now = status(stack.data_dir)
        running = now.part("ray").state == now.part("serve").state == "running"
        return running and now.part("ray").pid != killed

    until(is_back, timeout_s=300)
    assert httpx2.get(f"{stack.serve_url}/readyz").status_code == 200


def test_jobs_inherit_where_the_stores_are(stack: StackState, tmp_path: Path) -> None:
    """Not by Ray's runtime_env or metadata, which anyone with the token can read."""
    answer = tmp_path / "answer"
    ray_job = {
        "entrypoint": f"python -c \"import os; open('{answer}', 'w').write("
        "str('ELMYR_S3_SECRET_KEY' in os.environ))\"",
        "submission_id": "job-asks-for-the-stores-1",
    }
    token = (stack.data_dir / "ray" / "token").read_text()
    headers = {"Authorization": f"Bearer {token}"}
    jobs = f"{stack.dashboard_url}/api/jobs/"
    httpx2.post(jobs, json=ray_job, headers=headers, timeout=60).raise_for_status()
    until(lambda: answer.exists() and answer.read_text() != "")
    assert answer.read_text() == "True"
