"""A Docker engine: the one that answers, else one of our own for as long as the block lasts."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.local.processes import Process
from shared.settings import inherited_environment
from tests.compose.telling import told

READY_S = 60.0


@contextmanager
def engine() -> Iterator[dict[str, str]]:
    """What must be in the environment of `docker` and its like to find the engine."""
    if answers({}):
        yield {}
        return
    if os.geteuid():
        raise SystemExit("no Docker engine answers, and only root can start one")
    folder = Path(tempfile.mkdtemp(prefix="elmyr-engine-"))  # short: the path of a socket is
    where = {"DOCKER_HOST": f"unix://{folder}/docker.sock"}
    with told("an engine of our own"):
        process = Process(
            "dockerd",
            [
                "dockerd",
                # Containers find each other on networks of their own, ports go through the proxy.
                *("--iptables=false", "--bridge=none"),
                *("-H", where["DOCKER_HOST"]),
                *("--data-root", folder / "data", "--exec-root", folder / "exec"),
                *("--pidfile", folder / "pid"),
            ],
            log=folder / "dockerd.log",
            env=inherited_environment({}),
        )
        process.wait_ready(lambda: answers(where), timeout_s=READY_S)
    try:
        yield where
    finally:
        with told("the end of the engine"):
            process.stop(grace_s=60)
            # It may leave its network namespace mounted.
            subprocess.run(["umount", folder / "exec/netns/default"], capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


def answers(where: dict[str, str]) -> bool:
    asked = subprocess.run(
        ["docker", "version"], env=inherited_environment(where), capture_output=True
    )
    return asked.returncode == 0
