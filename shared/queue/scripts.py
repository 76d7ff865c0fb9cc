"""The Lua scripts as Redis gets them: states and keys from Python, then preamble, then body.

What a script does stands in its file. Nothing here talks to Redis.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from shared.queue.keys import NAMES
from shared.schemas.jobs import ACTIVE_STATES, FINAL_STATES, TRANSITIONS, JobState

_PREAMBLE = "preamble"
_SCRIPT = """\
local ACTIVE, FINAL = {active}, {final}
local function allowed(from, to)
  return ({transitions})[from][to]
end
{preamble}
local function main()
{body}
end
return run(main)
"""


@cache
def sources() -> dict[str, str]:
    """The full text of every script, by its name: the file's, without `.lua`."""
    texts = {
        path.name.removesuffix(".lua"): _with_keys(path.read_text())
        for path in files("shared.queue").joinpath("lua").iterdir()
        if path.name.endswith(".lua")
    }
    preamble = texts.pop(_PREAMBLE)
    transitions = ", ".join(f"{state} = {_set(ends)}" for state, ends in TRANSITIONS.items())
    return {
        name: _SCRIPT.format(
            active=_set(ACTIVE_STATES),
            final=_set(FINAL_STATES),
            transitions=f"{{{transitions}}}",
            preamble=preamble,
            body=body,
        )
        for name, body in texts.items()
    }


def _with_keys(text: str) -> str:
    """Put the patterns of NAMES where the text names them; a name that is not there is an error."""
    return re.sub(r"key\('(\w+)'", lambda match: f"key('{NAMES[match[1]]}'", text)


def _set(states: Iterable[JobState]) -> str:
    return "{" + ", ".join(f"{state} = true" for state in sorted(states)) + "}"
