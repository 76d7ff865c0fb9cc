"""The names of the queue's keys in Redis: Python and Lua both read them from here.

Every key begins with `{queue_name}:`. The braces are a Redis hash tag: all keys of a queue lie in
one slot of a Redis cluster, so that a script may touch any of them.
"""

from __future__ import annotations

NAMES = {
    # One job: HASH (its fields: lua/preamble.lua), STREAM of its events, SET of the jobs that
    # wait for it.
    "job": "job:%s",
    "events": "job:%s:events",
    "dependents": "job:%s:dependents",
    # Every job by the order of submits, and the parts of that list that a filter asks for: ZSETs,
    # score = the job's sequence number.
    "all": "jobs",
    "state": "jobs:state:%s",
    "kind": "jobs:kind:%s",
    "label": "jobs:label:%s",
    # A queued job is in exactly one of these ZSETs: leasable (score = rank; a share for each owner
    # would be `ready:%s`), due later (ms), or waiting for other jobs (sequence number).
    "ready": "ready",
    "delayed": "delayed",
    "waiting": "waiting",
    # The active jobs and when their leases end; the jobs that have a deadline: ZSETs, score = ms.
    "leases": "leases",
    "deadlines": "deadlines",
    # STRINGs: the newest time that a script has seen (ms), the newest sequence number.
    "clock": "clock",
    "sequence": "sequence",
    # HASH: how many attempts have ended, by kind and outcome, and how many leases have expired.
    "tally": "tally",
    # STREAM of a few entries; a new one comes when a dispatcher should look.
    "wake": "wake",
}


class QueueKeys:
    """The keys of one queue."""

    def __init__(self, queue_name: str) -> None:
        self.prefix = f"{{{queue_name}}}:"

    def key(self, name: str, *ids: str) -> str:
        """A key by its entry in NAMES, e.g. `key("job", job_id)`."""
        return self.prefix + (NAMES[name] % ids)
