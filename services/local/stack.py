"""The embedded stack: all of Elmyr on this machine, in one folder, on loopback.

`Stack` starts the parts one on top of the other, starts again what dies, and stops them in reverse.
The functions below it are what `elmyr up`, `down` and `status` call. A part that dies while the
stack runs is named with the end of its log and started again, all others going on: each of them
keeps its truth on disk (Redis and S3) or can look it up (Ray's jobs are the dispatcher's to find
dead; Serve is deployed anew on a new Ray).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from services.local.folder import held, holder, made
from services.local.identity import load_identity, save_identity
from services.local.marks import end_marked, interrupt, memory_bytes
from services.local.parts import PARTS, Site
from services.local.ports import number, reserve
from services.local.processes import Process
from services.local.ray_head import second_name
from services.local.state import STATE_FILE, PartState, StackState, load_state, save_state
from shared.errors import Conflict, ElmyrError, NotFound
from shared.settings import Settings, inherited_environment

WATCH_S = 0.5
RESTART_MAX_S = 30.0
"""Restarts of a part wait 1, 2, 4 ... seconds, until it has once run for STEADY_S."""
STEADY_S = 60.0
START_S = 600.0
STOP_S = 180.0


class Stack:
    """The parts of one data folder, run by this process. The folder must be held (`held`)."""

    def __init__(
        self, data_dir: Path, *, parts: Sequence[str] = tuple(PARTS), console: Console
    ) -> None:
        self._console = console
        self._identity = load_identity(data_dir)
        # A supervisor that was killed leaves its parts behind, on the ports that we want.
        end_marked(self._identity.stack_id)
        self._reserved = self._reserve_ports()
        save_identity(self._identity, data_dir)
        self._site = Site(data_dir, self._identity, Settings())
        self._processes: dict[str, Process] = {}
        self._began: dict[str, float] = {}
        self._delays_s: dict[str, float] = {}
        self._retry_at: dict[str, float] = {}
        self.state = StackState(
            state="starting",
            api_url=self._site.api_url,
            serve_url=self._site.serve_url,
            dashboard_url=self._site.dashboard_url,
            api_key=self._identity.api_key,
            data_dir=data_dir,
            stack_id=self._identity.stack_id,
            supervisor_pid=os.getpid(),
            parts=[PartState(name=name) for name in parts],
        )
        save_state(self.state)

    def start(self) -> None:
        """Start all parts. PartFailed names the one that does not start; stop() is the caller's."""
        for part in self.state.parts:
            self._start(part)
        self.state.state = "running"
        save_state(self.state)

    def watch(self) -> None:
        """Start again what dies, until an exception (a signal's) ends it."""
        while True:
            time.sleep(WATCH_S)
            for part in self.state.parts:
                process = self._processes.get(part.name)
                if process and process.exit_code is not None:
                    self._mourn(part, process.describe_end())
                if part.state == "failed" and time.monotonic() > self._retry_at[part.name]:
                    self._restart(part)

    def stop(self) -> None:
        """Stop the parts, the last first, and every process that any of them has started."""
        self.state.state = "stopping"
        save_state(self.state)
        for part in reversed(self.state.parts):
            if part.name == "ray":
                # Running attempts write a checkpoint and give their jobs back to the queue.
                grace_s = self._site.settings.stop_grace_s
                interrupt(self._identity.stack_id, "workers.attempt", grace_s=grace_s)
            self._end(part)
            self._console.print(f"stopped  {part.name}")
        end_marked(self._identity.stack_id)
        second_name(self._identity).unlink(missing_ok=True)
        (self._site.data_dir / STATE_FILE).unlink(missing_ok=True)

    def _reserve_ports(self) -> dict[str, socket.socket]:
        """Hold a port for each name until its part starts; the last start's where that is free."""
        known = self._identity.ports
        names = [name for part in PARTS.values() for name in part.ports]
        reserved = {name: reserve(known.get(name, 0)) for name in names}
        self._identity.ports = {name: number(held) for name, held in reserved.items()}
        return reserved

    def _start(self, part: PartState) -> None:
        part.state, part.error, part.log = "starting", None, self._site.log(part.name)
        save_state(self.state)
        self._began[part.name] = began = time.monotonic()
        with self._console.status(f"starting {part.name}"):
            for name in PARTS[part.name].ports:
                self._reserved[name].close()
            process = PARTS[part.name].start(self._site)
        if process:
            self._processes[part.name] = process
        part.pid = process.pid if process else None
        part.state = "running" if process or part.name == "serve" else "external"
        save_state(self.state)
        self._console.print(
            f"ready    {part.name:<10} {time.monotonic() - began:5.1f} s", highlight=False
        )

    def _mourn(self, part: PartState, why: str) -> None:
        now = time.monotonic()
        if process := self._processes.pop(part.name, None):
            process.stop()
        if now - self._began[part.name] > STEADY_S:
            self._delays_s[part.name] = 0.0
        delay_s = min(max(1.0, 2 * self._delays_s.get(part.name, 0.0)), RESTART_MAX_S)
        self._delays_s[part.name], self._retry_at[part.name] = delay_s, now + delay_s
        part.state, part.pid, part.error = "failed", None, why
        save_state(self.state)
        self._console.print(f"failed   {why}", highlight=False, markup=False, soft_wrap=True)

    def _restart(self, dead: PartState) -> None:
        end_marked(self._identity.stack_id, dead.name)
        for part in self.state.parts:
            if part is dead or (dead.name, part.name) == ("ray", "serve"):
                try:
                    self._start(part)
                except ElmyrError as error:
                    self._mourn(part, str(error))

    def _end(self, part: PartState) -> None:
        process = self._processes.pop(part.name, None)
        if process:
            process.stop()
        end_marked(self._identity.stack_id, part.name)
        part.state, part.pid = "waiting", None
        save_state(self.state)


def run_foreground(data_dir: Path, *, parts: Sequence[str] = tuple(PARTS)) -> None:
    """Run a stack, or only some of its parts, until Ctrl-C, SIGTERM or SIGHUP; then stop it.

    Raises Conflict when one runs on the folder already, PartFailed when a part does not start.
    """
    console = Console(stderr=True)
    with held(made(data_dir)):
        for signal_number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signal_number, _interrupt)
        try:
            stack = Stack(made(data_dir), parts=parts, console=console)
            try:
                stack.start()
                console.print(f"API      {stack.state.api_url}/docs")
                console.print(f"serving  {stack.state.serve_url}")
                console.print(f"Ray      {stack.state.dashboard_url}")
                if console.is_terminal:
                    console.print("Ctrl-C stops it.")
                stack.watch()
            finally:
                for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(signal_number, signal.SIG_IGN)
                console.print("stopping")
                stack.stop()
        except KeyboardInterrupt:
            return


def start_detached(data_dir: Path) -> StackState:
    """Start a stack in the background; return when all of it is ready.

    Its progress lines appear on stderr meanwhile. Raises Conflict when one runs on the folder
    already, PartFailed when a part does not start (nothing of it is left then).
    """
    data_dir = made(data_dir)
    if holder(data_dir):
        raise Conflict(f"a stack already runs on {data_dir}: see `elmyr status`")
    console = Console(stderr=True)
    supervisor = Process(
        "stack",
        [sys.executable, "-m", "services.local", data_dir],
        log=data_dir / "logs" / "stack.log",
        env=inherited_environment({}),
    )
    with supervisor.log.open() as lines:

        def is_running() -> bool:
            for line in lines:
                console.print(line.rstrip("\n"), highlight=False, markup=False, soft_wrap=True)
            state = load_state(data_dir)
            # The file of a supervisor that was killed may still be there.
            return state is not None and (state.supervisor_pid, state.state) == (
                supervisor.pid,
                "running",
            )

        try:
            supervisor.wait_ready(is_running, timeout_s=START_S)
        except BaseException:
            supervisor.stop(grace_s=STOP_S)
            is_running()
            raise
    return status(data_dir)


def stop(data_dir: Path) -> None:
    """Stop the stack that runs on the folder, and whatever a killed one has left; no error if none.

    Raises Conflict when it has not stopped after three minutes.
    """
    console = Console(stderr=True)
    supervisor = holder(data_dir)
    if supervisor:
        os.kill(supervisor, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        with console.status("stopping"):
            while holder(data_dir) == supervisor:
                if time.monotonic() > deadline:
                    raise Conflict(f"the stack (process {supervisor}) does not stop")
                time.sleep(0.1)
    identity = load_identity(data_dir)
    left = end_marked(identity.stack_id)
    second_name(identity).unlink(missing_ok=True)
    (data_dir / STATE_FILE).unlink(missing_ok=True)
    console.print(f"stopped  {data_dir}" if supervisor or left else f"no stack runs on {data_dir}")


def status(data_dir: Path) -> StackState:
    """The stack that runs on the folder, with the memory that its parts take now.

    NotFound when none runs. `stopped`: its supervisor was killed; `stop` ends what is left of it.
    """
    state = load_state(data_dir)
    if state is None:
        raise NotFound(f"no stack runs on {data_dir}: `elmyr up` starts one")
    if not holder(data_dir):
        state.state = "stopped"
    memory = memory_bytes(state.stack_id)
    for part in state.parts:
        part.memory_bytes = memory.get(part.name)
    return state


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
