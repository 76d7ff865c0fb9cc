"""The Ray Serve application: two deployments, each ingress and generator at once.

A hop from an ingress to a second deployment would halve the requests a second. Settings come from
the environment of the cluster's processes (ELMYR_*), models from the registry: deploying anew is
needed for new code only. What a replica does is told in replicas.py.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from ray import serve
from ray.serve._private import replica

from services.serving.exporter import start_export
from services.serving.metering import Metered
from shared.settings import Settings, settings

MAX_ONGOING = 4096
"""Far above what the replica itself lets wait: its own 429 speaks problem+json."""

TARGET_ONGOING = 32
TARGET_CHUNKS = 2
"""Ongoing requests per replica that autoscaling aims at; of `interactive`: from which it grows."""
DOWNSCALE_DELAY_S = 300.0
"""One replica less at most as often (scaling.py)."""


def _interactive() -> Metered:
    from services.serving import replicas  # torch: 4 s that only a replica has to spend

    return _in_replica(replicas.interactive)


def _bulk() -> Metered:
    from services.serving import replicas

    return _in_replica(replicas.bulk)


def _in_replica(build: Callable[[Settings], Metered]) -> Metered:
    _keep_grpc_on(settings().serve_host)
    application = build(settings())
    start_export(application.meter)
    return application


def _keep_grpc_on(host: str) -> None:
    """Bind this replica's gRPC port to loopback, if that is where we serve.

    Serve 2.60 opens one on all interfaces for calls between deployments (which carry pickles; we
    make none) and has no option for it. Called before it does so, while the replica is built.
    """
    if not ip_address(host).is_loopback:
        return
    add_port = replica.add_port_to_grpc_server

    def add_local_port(server: Any, address: str) -> int:
        return int(add_port(server, address.replace("[::]", host)))

    replica.add_port_to_grpc_server = add_local_port


def _deployment(
    name: str, build: Any, *, target: int, min_replicas: int, max_replicas: int, **autoscaling: Any
) -> Any:
    deployment = serve.deployment(
        name=name,
        max_ongoing_requests=MAX_ONGOING,
        # Training owns the processors that Ray counts; it yields to requests by its niceness.
        ray_actor_options={"num_cpus": 0},
        # A line per request costs more than the answer of a health check, and Serve makes it at
        # level INFO even where it is not written.
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
        autoscaling_config={
            "min_replicas": min_replicas,
            "max_replicas": max(min_replicas, max_replicas, 1),
            "target_ongoing_requests": target,
            **autoscaling,
        },
    )
    return deployment(serve.ingress(build)()).bind()


app = _deployment(
    "interactive",
    _interactive,
    target=TARGET_ONGOING,
    min_replicas=settings().serve_min_replicas,
    max_replicas=settings().serve_max_replicas,
    policy={"policy_function": "services.serving.scaling:desired_replicas"},
    downscale_delay_s=DOWNSCALE_DELAY_S,
)
bulk = _deployment(
    "bulk",
    _bulk,
    target=TARGET_CHUNKS,
    min_replicas=settings().serve_bulk_min_replicas,
    max_replicas=settings().serve_bulk_max_replicas,
)
