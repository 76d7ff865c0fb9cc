"""`elmyr` on a terminal: a table with relative times, a status line, and Ctrl-C that detaches."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.schemas.events import EventType
from shared.schemas.jobs import JobState, Outcome
from shared.settings import Settings, inherited_environment
from tests.live import Live, live_api

TRAIN = ("train", "--dataset", "garments", "--model", "tailor")
JOB_ID = r"job-[0-9a-z]{20,}"
STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A process whose three streams are one terminal of 100 columns."""

    def __init__(self, environment: dict[str, str], *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.cli.main", *words],
            cwd=Path(__file__).parents[2],
            env=inherited_environment({"COLUMNS": "100", "TERM": "xterm", **environment}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.raw = ""

    @property
    def screen(self) -> str:
        """All that was shown, without styles."""
        return STYLES.sub("", self.raw).replace("\r\n", "\n")

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read until the pattern is shown."""
        while not (found := re.search(pattern, self.screen)):
            assert self._read(), f"ended without {pattern}: {self.screen}"
        return found

    def end(self) -> int:
        """Read to the end; returns the exit code."""
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait()

    def _read(self) -> bool:
        try:
            chunk = os.read(self._ours, 65536)
        except OSError:  # Linux's way to say that the other side has closed
            return False
        self.raw += chunk.decode()
        return bool(chunk)


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    with live_api(settings) as live:
        live.add_dataset("garments")
        yield live


def test_a_training_is_followed_by_itself(live: Live) -> None:
    terminal = Terminal(live.environment, *TRAIN)
    job = live.start(terminal.read_until(JOB_ID)[0])
    live.report(
        job,
        EventType.METRIC,
        kimg=120.0,
        of=1000.0,
        img_per_s=740.0,
        loss_d=0.64,
        loss_g=1.23,
        eta_s=120,
    )
    terminal.read_until(re.escape("kimg 120.0/1000 | 740 img/s | D 0.64 G 1.23 | eta 2m"))
    live.end(job, Outcome.SUCCEEDED, model="tailor", version=1)
    assert terminal.end() == 0
    assert "succeeded: published tailor@1" in terminal.screen
    assert "elmyr sample tailor" in terminal.screen


def test_the_first_ctrl_c_detaches_and_the_job_goes_on(live: Live) -> None:
    terminal = Terminal(live.environment, *TRAIN)
    job = live.start(terminal.read_until(JOB_ID)[0])
    terminal.read_until("running, attempt 1")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert f"elmyr jobs watch {job.id}" in terminal.screen
    assert f"elmyr jobs cancel {job.id}" in terminal.screen
    assert "Traceback" not in terminal.screen
    assert live.queue.get(job.id).state is JobState.RUNNING
    assert live.queue.get(job.id).stop_requested is None


def test_a_list_is_a_table_for_people(live: Live) -> None:
    terminal = Terminal(live.environment, *TRAIN, "--name", "[bold]first[/]", "--detach")
    assert terminal.end() == 0
    table = Terminal(live.environment, "jobs", "list")
    assert table.end() == 0
    header, row = table.screen.splitlines()
    assert header.split() == [
        "ID", "KIND", "STATE", "PROGRESS", "ATTEMPT", "QUEUED", "STARTED", "NAME",
    ]  # fmt: skip
    assert re.fullmatch(rf"{JOB_ID} +train +queued +0/3 +\d+\w ago +\[bold\]first\[/\] *", row)


def test_no_color_is_honoured(live: Live) -> None:
    colours = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    plain = Terminal({**live.environment, "NO_COLOR": "1"}, "jobs", "get", "job-of-nobody")
    assert (plain.end(), colours.search(plain.raw)) == (6, None)
    coloured = Terminal(live.environment, "jobs", "get", "job-of-nobody")
    assert coloured.end() == 6
    assert colours.search(coloured.raw)
