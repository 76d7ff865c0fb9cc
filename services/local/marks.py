"""Which processes belong to a stack: those that carry its id in their environment.

Ray starts processes that start processes, and not all of them end with it (Serve's HAProxy does
not). The environment is inherited by all of them, and nobody else has it. Some overwrite theirs
with a title (Ray's dashboard): the sessions of the marked ones hold those, too, since each part is
started in a session of its own.
"""

from __future__ import annotations

import os
from collections.abc import Container

import psutil

STACK_MARK = "ELMYR_STACK_ID"
PART_MARK = "ELMYR_STACK_PART"


def mark(stack_id: str, part: str) -> dict[str, str]:
    """The variables that mark a process as part of a stack."""
    return {STACK_MARK: stack_id, PART_MARK: part}


def marked(stack_id: str, part: str | None = None) -> list[psutil.Process]:
    """The running processes of a stack, or of one part of it; never ourselves."""
    return _members(_sessions(stack_id, part))


def end_marked(stack_id: str, part: str | None = None, *, grace_s: float = 5.0) -> int:
    """End them: SIGTERM, SIGKILL after the grace. Returns how many there were.

    Looks again until none is left, since a process may start another one while it ends.
    """
    ended = 0
    sessions = _sessions(stack_id, part)
    while processes := _members(sessions):
        ended += len(processes)
        _signal(processes, "terminate")
        _, alive = psutil.wait_procs(processes, timeout=grace_s)
        _signal(alive, "kill")
        psutil.wait_procs(alive, timeout=grace_s)
        sessions |= _sessions(stack_id, part)
    return ended


def interrupt(stack_id: str, word: str, *, grace_s: float) -> None:
    """SIGTERM to the processes of a stack that have `word` on their command line; wait for their
    end, no longer than the grace."""
    processes = [process for process in marked(stack_id) if word in _command(process)]
    _signal(processes, "terminate")
    psutil.wait_procs(processes, timeout=grace_s)


def memory_bytes(stack_id: str) -> dict[str, int]:
    """The proportional share of memory (PSS: shared pages count once) of each part's processes."""
    sessions = _sessions(stack_id, None)
    shares: dict[str, int] = {}
    for process in _members(sessions):
        try:
            part = sessions[os.getsid(process.pid)]
            shares[part] = shares.get(part, 0) + process.memory_full_info().pss
        except (psutil.Error, ProcessLookupError, KeyError):
            continue  # ended meanwhile
    return shares


def _sessions(stack_id: str, part: str | None) -> dict[int, str]:
    """The sessions (the kernel's: see setsid) of the marked processes, each with its part."""
    sessions = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            name = environment.get(PART_MARK, "")
            if environment.get(STACK_MARK) == stack_id and part in (None, name):
                sessions[os.getsid(process.pid)] = name
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or another user's
    return sessions


def _members(sessions: Container[int]) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.pid != os.getpid():
                members.append(process)
        except OSError:
            continue  # ended meanwhile, or another user's
    return members


def _signal(processes: list[psutil.Process], method: str) -> None:
    for process in processes:
        try:
            getattr(process, method)()
        except psutil.NoSuchProcess:
            continue


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []
