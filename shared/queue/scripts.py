"""The Lua scripts as Redis gets them: tables generated from Python, preamble, body.

What a script does stands in its file. Nothing here talks to Redis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

from shared.queue.keys import NAMES
from shared.schemas.jobs import ACTIVE_STATES, FINAL_STATES, TRANSITIONS, JobState

_PREAMBLE = "preamble"
_SCRIPT = """\
{tables}
{preamble}
local function main()
{body}
end
return run(main)
"""


@cache
def sources() -> dict[str, str]:
    """The full text of every script, by its name: the file's, without `.lua`."""
    bodies = {
        path.name.removesuffix(".lua"): path.read_text()
        for path in files("shared.queue").joinpath("lua").iterdir()
        if path.name.endswith(".lua")
    }
    preamble = bodies.pop(_PREAMBLE)
    return {
        name: _SCRIPT.format(tables=_tables(), preamble=preamble, body=body)
        for name, body in bodies.items()
    }


def _tables() -> str:
    """The one transition table, the named sets of states and the keys, as Lua."""
    allowed = {state: _set(targets) for state, targets in TRANSITIONS.items()}
    tables = {
        "NAMES": _table({name: f"'{pattern}'" for name, pattern in NAMES.items()}),
        "ALLOWED": _table(allowed),
        "ACTIVE": _set(ACTIVE_STATES),
        "FINAL": _set(FINAL_STATES),
    }
    return "\n".join(f"local {name} = {table}" for name, table in tables.items())


def _set(states: Iterable[JobState]) -> str:
    return _table(dict.fromkeys(sorted(states), "true"))


def _table(entries: Mapping[JobState, str] | Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{key} = {value}" for key, value in entries.items()) + "}"
