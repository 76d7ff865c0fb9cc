"""What Ray's command line runs for us before it starts a head (RAY_START_HOOK in ray_head.py)."""

from __future__ import annotations

from typing import Any


def without_client_server(ray_params: Any, head: bool) -> None:  # noqa: FBT001 - Ray calls it
    """No Ray Client server, a process and an open port that nobody uses here.

    The command line can move its port but not switch it off.
    """
    del head
    ray_params.ray_client_server_port = None
