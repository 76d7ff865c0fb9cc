"""The preStop hook of a Ray pod: `python -m workers.drain` returns when the node may go.

First Ray is told to place nothing here any more (Serve then moves its replicas elsewhere), then
the attempts are told to end with a checkpoint: the queue starts them again on another node.
"""

from __future__ import annotations

import subprocess
import sys
import time

import structlog

from shared.draining import drain
from shared.logs import configure_logs
from shared.settings import settings

RAY_S = 20.0
"""The command connects to the cluster first, some 5 s; a head that is gone must not hold us up."""

log = structlog.get_logger()


def main() -> int:
    """Drain this node for at most twice `stop_grace_s`; 1 if something still worked then."""
    configure_logs("drain")
    config = settings()
    if config.drain_file is None:
        log.error("set ELMYR_DRAIN_FILE: without it nobody hears of the drain")
        return 1
    patience_s = 2 * config.stop_grace_s
    began_at = time.monotonic()
    _tell_ray(patience_s)
    done = drain(config.drain_file, patience_s=patience_s - (time.monotonic() - began_at))
    log.info("drained" if done else "something still works", after_s=time.monotonic() - began_at)
    return 0 if done else 1


def _tell_ray(patience_s: float) -> None:
    """The node is the one that this process runs on. A head cannot be drained, and says so."""
    command = [
        *("ray", "drain-node"),
        *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the pod ends"),
        *("--deadline-remaining-seconds", f"{patience_s:.0f}"),
    ]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=RAY_S, check=False)
    except subprocess.TimeoutExpired:
        log.warning("Ray was not told of the drain: it does not answer")
    else:
        if told.returncode:
            log.warning("Ray was not told of the drain", why=told.stderr[-300:])


if __name__ == "__main__":
    sys.exit(main())
