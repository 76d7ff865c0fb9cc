"""The enum, the one transition table, the scripts and the drawing say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.queue.scripts import sources
from shared.schemas.jobs import ACTIVE_STATES, FINAL_STATES, TRANSITIONS, JobState

ROOT = Path(__file__).parents[2]
DRAWING = (ROOT / "docs" / "states.md").read_text()
ARROWS = re.findall(r"^ +(\S+) --> (\S+?)(?:: (\w+).*)?$", DRAWING, re.MULTILINE)


def test_the_table_has_every_state() -> None:
    assert set(TRANSITIONS) == set(JobState)


def test_the_drawing_shows_the_table() -> None:
    drawn = sorted((start, end) for start, end, _ in ARROWS if "[*]" not in (start, end))
    table = sorted((start.value, end.value) for start in TRANSITIONS for end in TRANSITIONS[start])
    assert drawn == table


def test_the_drawing_shows_where_a_job_begins_and_ends() -> None:
    assert [end for start, end, _ in ARROWS if start == "[*]"] == [JobState.QUEUED]
    assert {start for start, end, _ in ARROWS if end == "[*]"} == FINAL_STATES


def test_every_arrow_names_the_script_that_makes_it() -> None:
    scripts = {script for _, end, script in ARROWS if end != "[*]"}
    assert scripts <= set(sources())
    assert {
        "submit",
        "lease",
        "heartbeat",
        "finish",
        "cancel",
        "pause",
        "resume",
        "retry",
    } == scripts


def test_final_states_are_left_only_to_be_queued_again() -> None:
    for state in FINAL_STATES:
        assert TRANSITIONS[state] <= {JobState.QUEUED}
    assert not TRANSITIONS[JobState.SUCCEEDED]


def test_every_active_state_can_reach_every_end() -> None:
    for state in ACTIVE_STATES:
        assert TRANSITIONS[state] >= FINAL_STATES


@pytest.mark.parametrize("script", sorted(sources()))
def test_each_script_gets_the_table_from_python(script: str) -> None:
    [line] = re.findall(r"^  return \(\{(.*)\}\)\[from\]\[to\]$", sources()[script], re.MULTILINE)
    found = {
        (start, end)
        for start, ends in re.findall(r"(\w+) = \{(.*?)\}", line)
        for end in re.findall(r"(\w+) = true", ends)
    }
    assert found == {(start, end) for start in TRANSITIONS for end in TRANSITIONS[start]}
