"""The composed system as docker-compose sees it. Which one: COMPOSE_FILE, COMPOSE_PROJECT_NAME and
DOCKER_HOST say so in the environment, as to docker-compose itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.settings import inherited_environment
from tests.compose.telling import say

PARTS = (
    *("redis", "s3", "ray-head", "ray-worker"),
    *("api", "dispatcher", "serve", "prometheus"),
)
"""All but Grafana, which Debian does not package, and the worker with a GPU."""
POLL_S = 2.0


@dataclass(frozen=True)
class System:
    """A project of docker-compose; `env` is added to the environment of its commands."""

    env: Mapping[str, str]

    def compose(self, *words: str) -> None:
        """Run docker-compose, its output in view. Raises CalledProcessError."""
        command = self._compose()
        subprocess.run([*command, *words], env=inherited_environment(self.env), check=True)

    def inspect(self, *parts: str) -> list[dict[str, Any]]:
        """What the engine knows of the containers of some parts (of all, if none is named)."""
        ids = self._output(*self._compose(), "ps", "-q", *parts).split()
        return list(json.loads(self._output("docker", "inspect", *ids))) if ids else []

    def health(self) -> dict[str, str]:
        """Container -> `healthy`, `starting`, `unhealthy`, or its state if it does not run."""
        return {c["Name"].lstrip("/"): health(c) for c in self.inspect(*PARTS)}

    def wait_healthy(self, *, within_s: float) -> None:
        """Wait for every container, telling of each change. Raises AssertionError, with the logs
        of those that are not well."""
        deadline = time.monotonic() + within_s
        told: dict[str, str] = {}
        while set((now := self.health()).values()) != {"healthy"}:
            for name, word in now.items():
                if told.get(name) != word:
                    say(f"       {name}: {word}")
            told = now
            if time.monotonic() > deadline:
                self.tell_logs()
                raise AssertionError(f"not healthy within {within_s:.0f} s: {now}")
            time.sleep(POLL_S)

    def tell_logs(self) -> None:
        """The end of the log of every container that is not healthy."""
        for container in self.inspect():
            if health(container) != "healthy":
                say(f"---- {container['Name']}: {json.dumps(container['State'])[-1500:]}")
                subprocess.run(
                    ["docker", "logs", "--tail", "40", container["Id"]],
                    env=inherited_environment(self.env),
                )

    def crash(self, part: str) -> None:
        """SIGKILL to the first process of a part's container, and so to all of it. `docker kill`
        would be no crash: the engine takes it for the operator's wish, and starts nothing anew."""
        (container,) = self.inspect(part)
        os.kill(container["State"]["Pid"], signal.SIGKILL)

    def started_at(self, part: str) -> str:
        """When a part's container was started last."""
        (container,) = self.inspect(part)
        return str(container["State"]["StartedAt"])

    def execute(self, part: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a part's container."""
        words = [*self._compose(), "exec", "-T", part, *command]
        return subprocess.run(
            words, env=inherited_environment(self.env), capture_output=True, text=True
        )

    def _compose(self) -> list[str]:
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
        return ["docker-compose"] if plugin.returncode else ["docker", "compose"]

    def _output(self, *command: str) -> str:
        done = subprocess.run(
            command, env=inherited_environment(self.env), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def health(container: dict[str, Any]) -> str:
    state = container["State"]
    if state["Status"] != "running":
        return str(state["Status"])
    return str(state.get("Health", {}).get("Status", "no check"))
