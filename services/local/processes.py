"""One child process with its log: start it, wait until it is ready, end it.

It does not know what the process is.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shared.errors import Unavailable

TAIL_LINES = 20
POLL_S = 0.05


class PartFailed(Unavailable):
    """A part of the embedded stack does not run"""

    code = "PART_FAILED"


class Process:
    """A running child. It leads a session of its own, so a Ctrl-C in the terminal meets only us."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str],
        leaves: Sequence[Path] = (),
    ) -> None:
        """Start it. Its output goes to `log`; the log of the time before becomes `log`.1. `leaves`
        are the files that it leaves behind: they are removed when it has been stopped."""
        self.name = name
        self.log = log
        self._leaves = leaves
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_name(f"{log.name}.1"))
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._child.poll()

    def wait_ready(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Return when `is_ready`; PartFailed, with the end of its log, when it ends or is late."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if self.exit_code is not None:
                raise PartFailed(self.describe_end())
            if time.monotonic() > deadline:
                raise PartFailed(
                    f"{self.name} is not ready after {timeout_s:.0f} s; {self.describe_log()}"
                )
            time.sleep(POLL_S)

    def wait_done(self, *, timeout_s: float) -> None:
        """Return when it has ended well; PartFailed, with the end of its log, otherwise."""
        self.wait_ready(lambda: self.exit_code == 0, timeout_s=timeout_s)

    def describe_end(self) -> str:
        return f"{self.name} ended with code {self.exit_code}; {self.describe_log()}"

    def describe_log(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join([f"the end of {self.log}:", *(f"    {line}" for line in lines)])

    def stop(self, *, grace_s: float = 10.0) -> None:
        """SIGTERM, and SIGKILL after the grace; nothing to do if it has ended."""
        self._child.terminate()
        try:
            self._child.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for path in self._leaves:
            path.unlink(missing_ok=True)
