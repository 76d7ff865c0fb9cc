"""Ray Jobs over HTTP: submit, list, stop, read logs; and what the cluster has.

Every attempt is one Ray job, and its submission id names job and attempt: submitting twice is
impossible, looking one up is always possible. What an attempt does, and what its end means for its
job, is not known here. Ray itself is not imported: the dispatcher's image does not carry it.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx2

from services.dispatcher.admission import Resources
from shared.errors import Conflict, InvalidInput, Unavailable
from shared.ids import ID_PATTERN
from shared.settings import Settings

TIMEOUT = httpx2.Timeout(5.0, connect=2.0)
SUBMIT_TIMEOUT_S = 15.0
"""Ray waits up to 10 s for the agent of its head node."""
RETRY_AFTER_S = 1.0
TAIL_BYTES = 3000
NOT_THERE = (404, 416)  # no log yet; nothing behind this offset yet


class RayStatus(StrEnum):
    """Ray's word about a job. The last three are final."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        return self not in (RayStatus.PENDING, RayStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class RayAttempt:
    """An attempt as Ray knows it."""

    submission_id: str
    job_id: str
    number: int
    status: RayStatus
    message: str = ""
    """In Ray's words; for a FAILED one with the end of its log."""
    agent_url: str | None = None
    """Of the node where it runs; None before it starts."""
    ended_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A part of a log, and the size of all of it so far, in bytes."""

    data: bytes
    size: int


def submission_id(job_id: str, number: int) -> str:
    """The one Ray job of an attempt. Both parts are checked: they also become a command line.

    Raises InvalidInput.
    """
    if not re.fullmatch(ID_PATTERN, job_id) or number < 1:
        raise InvalidInput(f"{job_id!r}, {number} is no attempt of a job")
    return f"{job_id}-{number}"


class RayJobs:
    """The Jobs API of one Ray cluster; safe to share between threads.

    Every method raises Unavailable when Ray does not answer, or not as expected.
    """

    def __init__(
        self, settings: Settings, *, module: str = "workers.attempt", python: str = sys.executable
    ) -> None:
        """`python -m module JOB_ID NUMBER` is what an attempt runs."""
        token = settings.ray_auth_token.get_secret_value()
        self._client = httpx2.Client(
            base_url=settings.ray_dashboard_url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT,
            trust_env=False,  # a proxy of the environment is for the world outside
        )
        self._queue_name = settings.queue_name
        self._stop_grace_s = settings.stop_grace_s
        # Ray starts a shell; without exec a SIGTERM to the process group would end that shell at
        # once, and Ray would call the attempt dead while it still writes its checkpoint.
        self._entrypoint = f"exec {shlex.quote(python)} -m {module}"

    def attempts(self) -> dict[str, RayAttempt]:
        """All attempts of this queue that Ray still knows, by submission id."""
        found = (self._attempt(details) for details in self._json("GET", "/api/jobs/"))
        return {attempt.submission_id: attempt for attempt in found if attempt}

    def attempt(self, job_id: str, number: int) -> RayAttempt | None:
        """One attempt; None if Ray does not know it, or knows it as somebody else's."""
        found = self._find(submission_id(job_id, number))
        return self._attempt(found) if found else None

    def capacity(self) -> Resources:
        """What the cluster's living nodes have, in use or not."""
        answer = self._json("GET", "/api/v0/nodes", params={"detail": 1})
        alive = [node for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"]
        return Resources(
            cpus=sum(node["resources_total"].get("CPU", 0) for node in alive),
            gpus=sum(node["resources_total"].get("GPU", 0) for node in alive),
        )

    def submit(self, job_id: str, number: int, *, driver: Resources) -> None:
        """Start an attempt, or find that it was started before.

        `driver` is what its first process holds; what it starts later asks Ray for its own. Raises
        Conflict: the name belongs to a job of somebody else.
        """
        name = submission_id(job_id, number)
        body = {
            "submission_id": name,
            "entrypoint": f"{self._entrypoint} {job_id} {number}",
            "entrypoint_num_cpus": driver.cpus,
            "entrypoint_num_gpus": driver.gpus,
            "metadata": self._metadata(job_id, number),
            # Ray reads whole seconds here; its default of 3 would kill a checkpoint half-way.
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": f"{self._stop_grace_s:.0f}"}},
        }
        try:
            self._json("POST", "/api/jobs/", json=body, timeout=SUBMIT_TIMEOUT_S)
        except Unavailable:
            # A time-out may have been a success, and Ray answers 500 to a name that is taken.
            if (found := self._find(name)) is None:
                raise
            if self._attempt(found) is None:
                raise Conflict(f"Ray has a job {name} that is not ours") from None

    def stop(self, name: str) -> None:
        """SIGTERM now, SIGKILL after the grace; Ray does not wait for either."""
        response = self._request("POST", f"/api/jobs/{name}/stop")
        if response.status_code != 404:
            _checked(response)

    def forget(self, name: str) -> None:
        """Remove an ended job from Ray's list."""
        response = self._request("DELETE", f"/api/jobs/{name}")
        if response.status_code != 404:
            _checked(response)

    def read_log(self, attempt: RayAttempt, *, start: int, max_bytes: int) -> LogChunk:
        """What the attempt's driver has printed from byte `start` on, so far."""
        return self._log(attempt, f"bytes={start}-{start + max_bytes - 1}", start)

    def log_tail(self, attempt: RayAttempt) -> str:
        """The last lines that the attempt's driver has printed."""
        return self._log(attempt, f"bytes=-{TAIL_BYTES}", 0).data.decode(errors="replace")

    def _log(self, attempt: RayAttempt, byte_range: str, start: int) -> LogChunk:
        # The node's agent serves its files with ranges; the Jobs API knows only the whole file.
        if attempt.agent_url is None:
            return LogChunk(b"", start)
        response = self._request(
            "GET",
            f"{attempt.agent_url}/logs/job-driver-{attempt.submission_id}.log",
            headers={"Range": byte_range},
        )
        if response.status_code in NOT_THERE:
            return LogChunk(b"", start)
        data = _checked(response).content
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
        return LogChunk(data, int(size or start + len(data)))

    def _metadata(self, job_id: str, number: int | str) -> dict[str, str]:
        # With the queue's name: several may share a cluster, and none touches another's jobs.
        return {"elmyr_queue": self._queue_name, "job_id": job_id, "attempt": str(number)}

    def _attempt(self, details: Mapping[str, Any]) -> RayAttempt | None:
        """What Ray lists as an attempt; None for jobs of others."""
        metadata = details.get("metadata") or {}
        job_id, number = metadata.get("job_id", ""), metadata.get("attempt", "")
        if not (job_id and number) or metadata != self._metadata(job_id, number):
            return None
        return RayAttempt(
            submission_id=details["submission_id"],
            job_id=job_id,
            number=int(number),
            status=RayStatus(details["status"]),
            message=details.get("message") or "",
            agent_url=details.get("driver_agent_http_address"),
            ended_at_ms=details.get("end_time") or 0,
        )

    def _find(self, name: str) -> Any:
        response = self._request("GET", f"/api/jobs/{name}")
        return None if response.status_code == 404 else _decoded(response)

    def _json(self, method: str, path: str, **options: Any) -> Any:
        return _decoded(self._request(method, path, **options))

    def _request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            return self._client.request(method, path, **options)
        except httpx2.TransportError as error:
            raise Unavailable(
                f"Ray does not answer ({type(error).__name__}: {error})",
                retry_after_s=RETRY_AFTER_S,
            ) from error


def _checked(response: httpx2.Response) -> httpx2.Response:
    if response.is_success:
        return response
    raise Unavailable(
        f"Ray answers {response.status_code} to {response.request.method} "
        f"{response.request.url.path}: {response.text[-300:].strip()}",
        retry_after_s=RETRY_AFTER_S,
    )


def _decoded(response: httpx2.Response) -> Any:
    try:
        return _checked(response).json()
    except ValueError as error:
        raise Unavailable("Ray answers no JSON", retry_after_s=RETRY_AFTER_S) from error
