"""What the command line makes of words, and words of what it shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import typer

from services.cli.exits import MEANINGS, ExitCode, exit_code
from services.cli.follow import sentence, status_line
from services.cli.output import clean, duration
from services.cli.train import overrides
from services.client import JobCanceled, JobFailed, NoStack, Unreachable, WaitTimedOut
from shared import errors
from shared.schemas.events import Event, EventType
from shared.schemas.jobs import Attempt, Job, JobKind, JobState

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(state: JobState = JobState.FAILED, **more: Any) -> Job:
    return Job(
        id="job-1",
        kind=JobKind.TRAIN,
        owner="o",
        state=state,
        spec={},
        priority=0,
        max_attempts=3,
        created_at=NOW,
        updated_at=NOW,
        **more,
    )


def event(type_: EventType, **data: Any) -> Event:
    return Event(id="1-0", type=type_, at=NOW, data=data)


def test_the_status_line_is_as_promised() -> None:
    data = {
        "kimg": 120.04,
        "of": 1000.0,
        "img_per_s": 739.7,
        "loss_d": 0.641,
        "loss_g": 1.2291,
        "eta_s": 119,
    }
    assert status_line(data) == "kimg 120.0/1000 | 740 img/s | D 0.64 G 1.23 | eta 1m"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({}, ""),
        ({"kimg": 0.0, "of": None}, "kimg 0.0"),
        ({"done": 64, "of": 1000.0}, "64/1000"),
        ({"kimg": 1.0, "loss_d": None, "loss_g": 2.0}, "kimg 1.0 | G 2.00"),
        ({"kimg": 1.0, "fd": 3.2, "accuracy": 0.5}, "kimg 1.0"),
    ],
)
def test_the_status_line_says_what_is_known(data: dict[str, Any], line: str) -> None:
    assert status_line(data) == line


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (event(EventType.STATE, state="running", attempt=2), "running, attempt 2"),
        (
            event(EventType.STATE, state="queued", reason="waits for 2 CPUs"),
            "queued: waits for 2 CPUs",
        ),
        (
            event(EventType.STATE, state="running", attempt=1, stop_requested="pause"),
            "running, attempt 1, pause asked",
        ),
        (event(EventType.LOG, line="x", stream="stdout"), None),
        (event(EventType.DONE, state="succeeded", result={}), None),
        (
            event(
                EventType.COLLAPSE,
                kimg=62.5,
                alarms=["variance_within", "gradient_similarity"],
                signs={"variance_within": 0.01, "gradient_similarity": 0.98, "sureness_d": 0.4},
                action="back to 50.0 kimg with lower learning rates",
            ),
            "kimg 62.5: collapsed (variance_within 0.01, gradient_similarity 0.98); "
            "back to 50.0 kimg with lower learning rates",
        ),
    ],
)
def test_events_as_sentences(told: Event, line: str | None) -> None:
    assert sentence(told) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (3599, "59m"),
        (3660, "1h01m"),
        (86399, "23h59m"),
        (200000, "2d"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_nothing_that_a_terminal_obeys_gets_through() -> None:
    assert clean("a\x1b[2Jb\rc\nd\x9be\tf\x00") == "a�[2Jb�c�d�e\tf�"


def test_settings_are_nested_and_typed() -> None:
    settings = ["a.b=0.5", "a.c=x", "d=true", "e=null", "f=[1]", "g=1=2", "h="]
    assert overrides(settings) == {
        "a": {"b": 0.5, "c": "x"},
        "d": True,
        "e": None,
        "f": [1],
        "g": "1=2",
        "h": "",
    }


@pytest.mark.parametrize(
    "settings", [["a"], ["=1"], ["a=1", "a=2"], ["a=1", "a.b=2"], ["a.b=1", "a=2"]]
)
def test_settings_that_say_nothing_or_two_things_are_refused(settings: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        overrides(settings)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ElmyrError("x"), 1),
        (errors.Unavailable("x"), 1),
        (errors.Conflict("x"), 1),
        (NoStack("x"), 1),
        (Unreachable("x"), 1),
        (errors.InvalidInput("x"), 2),
        (JobFailed(job()), 3),
        (errors.Unauthorized("x"), 4),
        (errors.Forbidden("x"), 4),
        (JobCanceled(job(JobState.CANCELED)), 5),
        (errors.NotFound("x"), 6),
        (WaitTimedOut(job(JobState.RUNNING), 1), 124),
    ],
)
def test_exit_codes(error: errors.ElmyrError, code: int) -> None:
    assert exit_code(error) == code


def test_every_exit_code_is_explained() -> None:
    assert set(MEANINGS) == set(ExitCode)


def test_a_failed_job_says_its_last_error_and_the_end_of_its_log() -> None:
    attempts = [
        Attempt(number=n, state="ended", started_at=NOW, error=why)
        for n, why in ((1, "first"), (2, "loss is not finite"), (3, None))
    ]
    error = JobFailed(job(attempts=attempts, reason="attempts used up"), ["line 1", "line 2"])
    assert error.detail == "job job-1 failed: loss is not finite"
    assert str(error).splitlines() == [error.detail, "line 1", "line 2"]
    assert JobFailed(job(reason="attempts used up")).detail.endswith("failed: attempts used up")
