"""How many replicas the interactive deployment wants: a pure function of what is ongoing.

Serve's own rule (ongoing requests / target) takes it that ten times the requests a second are ten
times the ongoing ones. Here they are not: a batch takes hardly longer than a picture, so that few
are ongoing until a replica is nearly full, and then all at once many. Under a steady load that rule
drops replicas that it must start again minutes later.
"""

from __future__ import annotations

from typing import Any

MAX_GROWTH = 2.0
"""A backlog says that replicas are too few, not how many are missing."""
SPARE_SHARE = 1 / 64
"""Of the target. A replica that has half a request ongoing draws at most half of what it could, as
its queue would be longer otherwise: even of two of them one is enough."""


def desired_replicas(context: Any) -> tuple[float, dict[str, Any]]:
    """Serve's AutoscalingContext -> (number of replicas, a state of which there is none).

    Serve waits `upscale_delay_s` or `downscale_delay_s` before it follows, and holds the bounds.
    """
    running, wanted = context.current_num_replicas, context.target_num_replicas
    if running == 0:
        return wanted, {}  # from none, Serve itself starts the first
    fullness = context.total_num_requests / running / context.config.get_target_ongoing_requests()
    if fullness > 1:
        return max(wanted, running * min(fullness, MAX_GROWTH)), {}  # some may still be starting
    if fullness <= SPARE_SHARE:
        return wanted - 1, {}
    return wanted, {}
